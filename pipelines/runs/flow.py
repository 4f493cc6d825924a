"""The Prefect flow: when each stage runs, what is retried, and who is told.

What depends on what is DVC's to know (`dvc.yaml`): every task that computes is one `dvc repro` of
one stage in the run's own workspace, so a flow that is started again does only what is left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task

from pipelines.progress import spinner
from pipelines.runs.prepare import prepare, preset_name
from pipelines.runs.workspaces import Workspace, create_workspace, new_run_id, open_workspace
from pipelines.services.processes import extend_import_path
from pipelines.tracking import delivery as tracking
from pipelines.versions.judge import judge_version, recorded
from pipelines.versions.release import Approval, Release, outcome
from serving.settings import Settings, load_settings
from srghn.candidates.candidate import Candidate
from srghn.errors import TransitionRefused
from srghn.files import atomic_write
from srghn.inference.verdict import Verdict
from srghn.parents import die_with_parent


@task(task_run_name="{stage}")
def stage_task(run_id: str, stage: str) -> None:
    """One DVC stage in the run's workspace."""
    settings = load_settings()
    open_workspace(settings, run_id).run_stage(stage, settings)


@task
def register_task(run_id: str) -> int:
    """Store the candidate and give it a version number.

    Raises `TransitionRefused` if another run came to the very same candidate before.
    """
    settings = load_settings()
    release = Release(settings)
    workspace = open_workspace(settings, run_id)
    version = release.register(workspace.candidate, run_id, workspace.params().canary)
    found = release.ledger.version(version)
    if found.run_id != run_id:
        raise TransitionRefused(
            f"run {run_id} came to the candidate of run {found.run_id}, byte for byte: version "
            f"{version}, which is {found.state}. srghn gate {version} judges it (again)"
        )
    return version


@task(task_run_name="gate")
def gate_task(run_id: str, version: int) -> Verdict:
    """Lease, gate stage and verdict; goes on where an evaluation of this run was cut off."""
    settings = load_settings()
    return judge_version(Release(settings), version, open_workspace(settings, run_id), run_id)


@task
def release_task(run_id: str, version: int) -> None:
    """Approve and introduce, where the policy says that no person is needed."""
    settings = load_settings()
    Release(settings).release(version, run_id)


@flow(name="evolve-and-gate", log_prints=False)
def evolve_and_gate(
    preset: str = "cartpole-switch",
    overrides: Sequence[str] = (),
    start: str = "champion",
    approve: Approval = "manual",
    run_id: str | None = None,
) -> dict[str, Any]:
    """Evolve, freeze, judge and record one candidate, in an isolated workspace of its own.

    With `run_id`, an earlier run goes on in its workspace and the first three are not looked at.
    """
    die_with_parent()  # a worker's run ends with the worker
    extend_import_path()
    settings = load_settings()
    if run_id is None:
        params = prepare(settings, preset, overrides, start)
        run_id = create_workspace(settings, new_run_id(preset_name(preset)), params).name
    workspace = open_workspace(settings, run_id)
    with workspace.held():
        with tracking.delivering(workspace, settings):
            for stage in ("pin", "evolve", "evaluate"):
                stage_task(run_id, stage)
        version = register_task(run_id)
        verdict = recorded(Release(settings), version) or gate_task(run_id, version)
        if approve == "auto" and verdict.passed:
            release_task(run_id, version)
        return _conclude(workspace, settings, version, verdict)


def _conclude(
    workspace: Workspace, settings: Settings, version: int, verdict: Verdict
) -> dict[str, Any]:
    """Deliver to MLflow and sum up; a tracking failure is told, and changes nothing."""
    release = Release(settings)
    with spinner("recording the run in MLflow"):
        delivery = tracking.deliver(workspace, settings, finished=True)
        release.mirror().deliver()
    candidate = Candidate.load(workspace.candidate)
    found = release.ledger.version(version)
    result = {
        **outcome(workspace, found, verdict, candidate.manifest, release.report_page(version)),
        "mlflow_run_id": delivery.mlflow_run_id,
        "tracking_failure": delivery.failure,
    }
    atomic_write(workspace.outcome, json.dumps(_within(settings.home, result), indent=1))
    return result


def _within(home: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with its paths counted from the home, which may move."""
    paths = {name: result[name] for name in ("workspace", "report") if result[name] is not None}
    return {**result, **{k: Path(v).relative_to(home).as_posix() for k, v in paths.items()}}
