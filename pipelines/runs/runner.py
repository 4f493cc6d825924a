"""Runs started by hand: the flow with a Prefect server around it, and a new attempt at the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.progress import spinner
from pipelines.runs.prepare import prepare, preset_name
from pipelines.runs.workspaces import (
    Workspace,
    create_workspace,
    new_run_id,
    open_workspace,
    require_writable,
    unfinished,
)
from pipelines.services.prefect_server import prefect_server
from pipelines.versions.judge import judge_version, require_judgeable
from pipelines.versions.release import Approval, Release
from serving.registry.states import State
from serving.settings import Settings
from srghn.config import RunParams

if TYPE_CHECKING:
    from srghn.inference.verdict import Verdict


def start_run(
    settings: Settings,
    preset: str,
    overrides: Sequence[str],
    start: str,
    approve: Approval,
    resume: str | None = None,
    offer: Callable[[Workspace, RunParams], bool] = lambda workspace, params: False,
) -> dict[str, Any]:
    """Run the flow to its end; returns what `pipelines.versions.release.outcome` sums up.

    Parameters are checked before anything is started or written. Where an unfinished run has the
    same ones, `offer` is asked whether to go on with it instead. Raises `SrghnError`.
    """
    require_writable(settings.home)
    if resume is None:
        params = prepare(settings, preset, overrides, start)
        begun = unfinished(settings, params)
        if begun and offer(begun[-1], params):
            run_id = begun[-1].name
        else:
            run_id = create_workspace(settings, new_run_id(preset_name(preset)), params).name
    else:
        run_id = open_workspace(settings, resume).name
    return execute(settings, run_id, approve)


def execute(settings: Settings, run_id: str, approve: Approval) -> dict[str, Any]:
    """The flow on a workspace that exists, with a Prefect server for as long as it takes."""
    with prefect_server(settings, spinner("starting a Prefect server")):
        with spinner("loading Prefect"):
            from pipelines.runs.flow import evolve_and_gate
        result: dict[str, Any] = evolve_and_gate(approve=approve, run_id=run_id)
    return result


def judge_again(settings: Settings, version: int) -> tuple[Verdict, Path]:
    """A new attempt at the gate, on fresh episodes, against the current champion.

    An attempt of this kind that was killed goes on instead. Raises `TransitionRefused` when the
    attempts are used up or the version cannot be judged, `ConfigError` while it is being judged.
    """
    release = Release(settings)
    require_judgeable(found := release.ledger.version(version))
    workspace = open_workspace(settings, found.run_id)
    with workspace.held():
        found = release.ledger.version(version)
        begun = found.state is State.EVALUATING
        key = f"{found.run_id}:again:{found.attempt if begun else found.attempt + 1}"
        verdict = judge_version(release, version, workspace, key)
    return verdict, release.reports(verdict.report_digest) / "report.html"
