"""Runs started by hand, and a new attempt at the gate."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipelines.progress import spinner
from pipelines.runs.prepare import prepared, resolved
from pipelines.runs.presets import preset_name
from pipelines.runs.target import DEFAULT_TARGET, Target
from pipelines.runs.work import Request, carry_out, concluded, open_run, traced
from pipelines.runs.workspaces import (
    Workspace,
    open_workspace,
    require_writable,
    unfinished,
)
from pipelines.services.prefect_server import running_server, use_server
from pipelines.versions.judge import judge_version, require_judgeable
from pipelines.versions.recall import workspace_of
from pipelines.versions.release import Approval, Release
from serving import runs
from serving.registry.states import State
from serving.settings import Settings
from srghn.config import RunParams
from srghn.errors import SrghnError, first_line
from srghn.parents import mark

logger = logging.getLogger(__name__)
#: How often a request is repeated to a Prefect server that only shows a run: for some 14 seconds.
RETRIES = "3"

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
    target: Target = DEFAULT_TARGET,
) -> dict[str, Any]:
    """One run to its end; returns what `pipelines.versions.release.outcome` sums up.

    Parameters are checked before anything is started or written. Where an unfinished run has the
    same ones, `offer` is asked whether to resume it instead. Where a finished one has, nothing
    can be new: its outcome is returned, with `nothing_new`. Raises `SrghnError`.
    """
    require_writable(settings.home)
    if resume is not None:
        Release(settings).incumbent()  # a ledger that cannot be used is reported before evolution
        return execute(settings, open_workspace(settings, resume).name, approve)
    params = prepared(settings, resolved(preset, overrides), start, target=target)
    begun = unfinished(settings, params, target)
    if begun and offer(begun[-1], params):
        return execute(settings, begun[-1].name, approve)
    opened = open_run(settings, Request(params, name=preset_name(preset), target=target))
    if isinstance(opened, dict):
        return opened
    return execute(settings, opened.name, approve)


def execute(settings: Settings, run_id: str, approve: Approval) -> dict[str, Any]:
    """Work on a workspace that exists; a Prefect server that is up shows it.

    None is started for a run by hand: nothing of it waits for a clock or a worker. One that is
    stopped before it begins, or meanwhile, takes nothing away but what it would show.
    """
    url = running_server(settings)
    workspace = open_workspace(settings, run_id)
    if url is not None:
        use_server(settings, url)
        os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", RETRIES)
        with spinner("loading Prefect"):
            from pipelines.runs.flow import evolve_and_gate
        try:
            return cast(dict[str, Any], evolve_and_gate(approve=approve, run_id=run_id))
        except Exception as error:
            trace = runs.find(settings.home, run_id)
            if trace is not None and trace.process == mark():
                if trace.state != "finished":
                    raise
                logger.warning("Prefect does not show how it ended: %s", first_line(error))
                return concluded(settings, workspace)
            if isinstance(error, SrghnError):
                raise
            logger.warning("Prefect does not show this run: %s", first_line(error))
    with traced(settings, workspace) as done:
        result = carry_out(settings, workspace, approve)
        done(result)
    return result


def judge_again(settings: Settings, version: int) -> tuple[Verdict, Path]:
    """A new attempt at the gate, on fresh episodes, against the current champion.

    An attempt of this kind that was killed goes on instead, while its lease runs. Raises
    `TransitionRefused` when the attempts are used up or the version cannot be judged, `ConfigError`
    while it is being judged.
    """
    release = Release(settings)
    require_judgeable(found := release.ledger.version(version))
    workspace = workspace_of(release, found)
    with workspace.held():
        found = release.ledger.version(version)
        begun = found.state is State.EVALUATING
        key = f"{workspace.name}:again:{found.attempt if begun else found.attempt + 1}"
        verdict = judge_version(release, version, workspace, key)
    return verdict, release.reports(verdict.report_digest) / "report.html"
