"""One run from its parameters to its verdict, whoever asks: the command line, Prefect, a test.

Prefect wraps each step as a task (`flow.py`); by hand they are called as they are. Every step can
be repeated: what was done before is found and kept.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipelines.progress import spinner
from pipelines.runs.prepare import check, prepared
from pipelines.runs.target import DEFAULT_TARGET, Target
from pipelines.runs.workspaces import (
    Workspace,
    create_workspace,
    find_workspace,
    new_run_id,
    open_workspace,
)
from pipelines.tracking import delivery as tracking
from pipelines.versions.judge import judge_version, recorded
from pipelines.versions.release import PIPELINE, Approval, Release, made_before, outcome
from serving import runs
from serving.registry.records import Who
from serving.settings import Settings
from srghn.candidates.candidate import Candidate
from srghn.config import RunParams
from srghn.errors import LedgerError, SrghnError, TransitionRefused
from srghn.files import atomic_write
from srghn.inference.verdict import Verdict

T = TypeVar("T")
#: Event of a run that ended without a verdict, by an error of its own.
RUN_FAILED = "run_failed"
#: Entries of a result that name a place in the home.
PLACES = ("workspace", "report")
#: Runs one named step and gives what it gives.
Step = Callable[[str, Callable[[], Any]], Any]


@dataclass(frozen=True)
class Request:
    """What to run: whole parameters and where the lineage starts, or an earlier run by its id.

    `firing` is the scheduled time, which the seed is made of; None for a run by hand.
    """

    params: RunParams | None = None
    start: str = "champion"
    name: str = "run"
    run_id: str | None = None
    schedule: str | None = None
    firing: datetime | None = None
    target: Target = DEFAULT_TARGET


def by_hand(name: str, do: Callable[[], Any]) -> Any:
    """The step itself, with nobody told."""
    return do()


def open_run(settings: Settings, request: Request) -> Workspace | dict[str, Any]:
    """The workspace to work in, or, where nothing can be new, what is known of the earlier run.

    The same parameters in the same environment always make the same candidate, so a run that was
    judged is not repeated.
    """
    if request.run_id is not None and find_workspace(settings, request.run_id) is not None:
        return open_workspace(settings, request.run_id)
    if request.params is None:
        return open_workspace(settings, str(request.run_id))  # raises, naming those there are
    from srghn.evolution.registry import make_strategy

    target = request.target
    params = prepared(settings, request.params, request.start, request.firing, target)
    version = check(settings, params, target)
    now = make_strategy(params, version.interface).digest
    before = made_before(Release(settings), params, version.fingerprint, now, target.policy)
    if before is not None:
        return {
            "nothing_new": True,
            "version": before.version,
            "run_id": before.run_id,
            "state": str(before.state),
            "report": str(Release(settings).report_page(before.version)),
            "summary": f"nothing new: run {before.run_id} made version {before.version} with the "
            f"same parameters in the same environment; it is {before.state}",
        }
    run_id = request.run_id or new_run_id(request.name)
    return create_workspace(settings, run_id, params, target)


def begin(settings: Settings, request: Request, resumed: int = 0) -> Workspace | dict[str, Any]:
    """`open_run`, with a trace of a run that a firing asks for, though it gets no workspace."""
    run_id = request.run_id
    if run_id is None or request.params is None or find_workspace(settings, run_id) is not None:
        return open_run(settings, request)
    trace = runs.begun(run_id, schedule=request.schedule, resumed=resumed)
    with _telling(settings, trace, None):
        runs.write(settings.home, trace)
        return open_run(settings, request)


def carry_out(
    settings: Settings, workspace: Workspace, approve: Approval, step: Step = by_hand
) -> dict[str, Any]:
    """Evolve, freeze, judge and record one candidate; returns what `outcome` sums up."""
    run_id = workspace.name
    with tracking.delivering(workspace, settings):
        for stage in ("pin", "evolve", "evaluate"):
            step(stage, partial(workspace.run_stage, stage, settings))
    release = Release(settings)
    version: int = step("register", lambda: _register(release, workspace))
    verdict = recorded(release, version)
    if verdict is None:
        verdict = step("gate", lambda: judge_version(release, version, workspace, run_id))
    if approve == "auto" and verdict.passed:
        step("release", lambda: release.release(version, run_id))
    return _conclude(workspace, settings, version, verdict)


@contextmanager
def traced(
    settings: Settings, workspace: Workspace, schedule: str | None = None, resumed: int = 0
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Work alone in a workspace, and leave a trace of how it ended, in the home and in MLflow.

    Yields what is to be called with the result. An error is recorded and raised again.
    """
    with workspace.held():
        trace = runs.begun(workspace.name, schedule=schedule, resumed=resumed)
        runs.write(settings.home, trace)

        finished = threading.Event()

        def done(result: dict[str, Any]) -> None:
            told = runs.ended(trace, "finished", result["summary"], result["version"])
            runs.write(settings.home, told)
            finished.set()

        with _telling(settings, trace, workspace, finished):
            yield done


@contextmanager
def _telling(
    settings: Settings,
    trace: runs.RunTrace,
    workspace: Workspace | None,
    finished: threading.Event | None = None,
) -> Iterator[None]:
    """Record how what is done here fails, unless it has finished, and raise it again."""
    try:
        yield
    except BaseException as error:
        if finished is None or not finished.is_set():
            _tell(settings, trace, workspace, error)
        raise


def _tell(
    settings: Settings, trace: runs.RunTrace, workspace: Workspace | None, error: BaseException
) -> None:
    if isinstance(error, Exception):
        why = str(error) if isinstance(error, SrghnError) else repr(error)
        failed(settings, runs.ended(trace, "failed", why), workspace)
        return
    how = f"go on with: srghn run --resume {trace.run_id}"
    why = "stopped before it began" if workspace is None else f"stopped; {how}"
    failed(settings, runs.ended(trace, "cancelled", why), workspace)
    if isinstance(error, KeyboardInterrupt) and workspace is not None:
        error.args = (how,)  # the command line says it


def failed(settings: Settings, trace: runs.RunTrace, workspace: Workspace | None) -> None:
    """Tell of a run that failed or was cancelled: in its trace, in MLflow and in the ledger."""
    with suppress(OSError):  # a full disk may be what it failed of
        runs.write(settings.home, trace)
    if workspace is not None:
        tracking.close(workspace, settings, "FAILED" if trace.state == "failed" else "KILLED")
    if trace.state == "failed":
        told = {"run_id": trace.run_id, "message": trace.message, "schedule": trace.schedule}
        who = Who(PIPELINE, f"run {trace.run_id} failed: {trace.message}"[:2000])
        with suppress(LedgerError):  # which may be what it failed of
            Release(settings).ledger.note(RUN_FAILED, told, who=who)


def _register(release: Release, workspace: Workspace) -> int:
    """Store the candidate and give it a version number.

    Raises `TransitionRefused` if another run made the very same candidate before.
    """
    run_id = workspace.name
    params, target = workspace.params(), workspace.target
    version = release.register(workspace.candidate, run_id, params, target)
    found = release.ledger.version(version)
    if found.run_id != run_id:
        raise TransitionRefused(
            f"run {run_id} made the candidate of run {found.run_id}, byte for byte: version "
            f"{version}, which is {found.state}. srghn gate {version} judges it (again)"
        )
    return version


def _conclude(
    workspace: Workspace, settings: Settings, version: int, verdict: Verdict
) -> dict[str, Any]:
    """Deliver to MLflow and sum up; a tracking failure is told, and changes nothing."""
    release = Release(settings)
    with spinner("recording the run in MLflow"):
        delivery = tracking.deliver(workspace, settings, finished=True)
        release.deliver()
    candidate = Candidate.load(workspace.candidate)
    found = release.ledger.version(version)
    result = {
        **outcome(workspace, found, verdict, candidate.manifest, release.report_page(version)),
        "mlflow_run_id": delivery.mlflow_run_id,
        "tracking_failure": delivery.failure,
    }
    atomic_write(workspace.outcome, json.dumps(_within(settings.home, result), indent=1))
    return result


def concluded(settings: Settings, workspace: Workspace) -> dict[str, Any]:
    """What a run that has finished gave, as `carry_out` did."""
    result: dict[str, Any] = json.loads(workspace.outcome.read_text(encoding="utf-8"))
    paths = {k: str(settings.home / result[k]) for k in PLACES if result[k] is not None}
    return {**result, **paths}


def _within(home: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with its paths counted from the home, which may move."""
    paths = {name: result[name] for name in PLACES if result[name] is not None}
    return {**result, **{k: Path(v).relative_to(home).as_posix() for k, v in paths.items()}}
