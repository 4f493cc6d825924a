"""Delivery to MLflow, from what a run leaves on disk.

Evolution itself never talks to MLflow: it writes its tables, and this module delivers the rows that
have not been delivered yet. So a dead tracking server costs nothing and loses nothing: the run's
folder is the buffer, and any later delivery resumes where the last one ended. One that died between
a call and its note sends that call again, which MLflow shows as the same value twice.

MLflow takes about three milliseconds of CPU to store a generation, and CartPole plays one in
thirty. So of a long and fast run only as many are delivered, evenly, as its time affords; MLflow's
own charts show some three hundred. All of them are in its artefact `generations.csv`.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.progress import spinner
from pipelines.runs.workspaces import Workspace
from pipelines.tracking.mlflow_run import MlflowRun, connect, is_there, rows_per_call
from serving.registry.records import Who
from serving.settings import Settings
from srghn.errors import first_line
from srghn.files import atomic_write

#: Pause between deliveries; doubled after each that failed, up to the second figure.
SYNC_SECONDS, MOST_SECONDS = 5.0, 60.0
#: CPU seconds that a generation costs, the share of a run's time they may take, and how many
#: generations are delivered in any case.
ROW_SECONDS, SHARE, ALWAYS = 0.003, 0.01, 100
#: What takes longer than this to end is told.
TOLD_SECONDS = 1.0


@dataclass(frozen=True)
class Delivery:
    """Where delivery stands: the MLflow run, the generations it has, or why it could not go on.

    `described`: whether it has all parameters. A run begun by version 0.2 gets them again.
    """

    mlflow_run_id: str | None = None
    generations: int = 0
    finished: bool = False
    failure: str | None = None
    described: bool = False


def deliver(workspace: Workspace, settings: Settings, *, finished: bool = False) -> Delivery:
    """Bring the workspace's MLflow run up to date. Never raises: a failure is in the result."""
    try:
        _deliver(workspace, settings, finished)
    except Exception as error:  # noqa: BLE001 - whatever MLflow or its store raises
        return replace(_noted(workspace), failure=_said(error))
    return _noted(workspace)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def close(workspace: Workspace, settings: Settings, status: str) -> None:
    """End the workspace's MLflow run, if it has one, as FAILED or KILLED. Never raises.

    A run that is resumed is set to RUNNING again by its next delivery.
    """
    noted = _noted(workspace)
    if noted.finished or noted.mlflow_run_id is None:
        return
    with suppress(Exception):  # whatever MLflow or its store raises: the run's own error is told
        connect(settings).set_terminated(noted.mlflow_run_id, status)


@contextmanager
def delivering(workspace: Workspace, settings: Settings) -> Iterator[None]:
    """Deliver every few seconds while the body runs, on a thread of its own."""
    stop = threading.Event()

    def work() -> None:
        pause = SYNC_SECONDS
        while not stop.wait(pause):
            failed = deliver(workspace, settings).failure is not None
            pause = min(2 * pause, MOST_SECONDS) if failed else SYNC_SECONDS

    thread = threading.Thread(target=work, daemon=True, name="mlflow-delivery")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(TOLD_SECONDS)
        if thread.is_alive():  # a store that is new takes a while
            with spinner("recording the run in MLflow"):
                thread.join()


def deliver_all(settings: Settings, *, again: Who | None = None) -> dict[str, Any]:
    """Every run's delivery that is still to be made, and the ledger's outbox.

    Where somebody wants it `again`, every version and alias is written, whatever was delivered
    before, and every run that MLflow no longer has. A run that is at work delivers for itself.
    Raises `ServiceError` where an embedded store cannot be used.
    """
    from pipelines.versions.release import Release

    mirror = Release(settings).mirror()
    found = (Workspace(folder) for folder in sorted(settings.workspaces.glob("*")))
    waiting = [
        workspace
        for workspace in found
        if workspace.run.exists()
        and not workspace.busy
        and (again is not None or not _noted(workspace).finished)
    ]
    failure, runs = _silence(settings) if waiting else None, 0
    for workspace in () if failure else waiting:
        if _noted(workspace).finished and not _lost(workspace, settings):
            continue
        finished = workspace.verdict_metrics.exists()
        delivery = deliver(workspace, settings, finished=finished)
        if not finished:  # nobody is working on it
            close(workspace, settings, "KILLED")
        failure = failure or delivery.failure
        runs += delivery.failure is None
    events = mirror.deliver() if again is None else mirror.reconcile(again)
    return {"runs": runs, "events": events, "failure": failure or mirror.failure}


def _silence(settings: Settings) -> str | None:
    """Why MLflow cannot be used, asked once: each run would wait for it anew."""
    try:
        connect(settings)
    except Exception as error:  # noqa: BLE001 - whatever MLflow or its store raises
        return _said(error)
    return None


def _lost(workspace: Workspace, settings: Settings) -> bool:
    """Whether MLflow no longer has the run that was delivered; then its note is void."""
    run_id = _noted(workspace).mlflow_run_id
    with suppress(Exception):  # then it is as it was
        if run_id is not None and not is_there(connect(settings), run_id):
            _note(workspace, Delivery())
            return True
    return False


def _deliver(workspace: Workspace, settings: Settings, finished: bool) -> None:
    noted = _noted(workspace)
    rows, total = _pending(workspace, noted.generations, finished)
    if noted.finished or not (rows or finished or not noted.described):
        return
    run = MlflowRun.of(connect(settings), workspace, noted.mlflow_run_id)
    if noted.mlflow_run_id not in (None, run.run_id):  # MLflow lost it with all that it had
        noted = Delivery()
        rows, total = _pending(workspace, 0, finished)
    if not noted.described:
        _note(workspace, Delivery(run.run_id, noted.generations))
        run.describe(workspace)
    noted = Delivery(run.run_id, noted.generations, described=True)
    _note(workspace, noted)
    while rows:
        batch, rows = rows[: (count := rows_per_call(rows[0][1]))], rows[count:]
        run.log_generations([row for _, row in batch])
        _note(workspace, replace(noted, generations=batch[-1][0] + 1))
    if finished:
        run.finish(workspace)
        _note(workspace, replace(noted, generations=total, finished=True))


def _pending(
    workspace: Workspace, done: int, finished: bool
) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """Rows of the generations table to be delivered, by their place in it, and its length."""
    from srghn.evolution.progress import CHECKPOINTS, rows

    table = rows(workspace.run, "generations")
    if table is None:
        return [], 0
    total = len(table)
    begun, last = (
        (workspace.run / name).stat().st_mtime  # of the folder: when a checkpoint was put there
        for name in ("run.json", CHECKPOINTS)
    )
    seconds = (last - begun) / total
    stride = math.ceil(ROW_SECONDS / max(SHARE * seconds, ROW_SECONDS / total))
    wanted = [
        place
        for place in range(done, total)
        if place < ALWAYS or place % stride == 0 or (finished and place == total - 1)
    ]
    found = table.take(np.array(wanted, dtype=np.int64)).to_pylist()
    return list(zip(wanted, found, strict=True)), total


def _note_file(workspace: Workspace) -> Path:
    return workspace.root / "tracking.json"


def _noted(workspace: Workspace) -> Delivery:
    path = _note_file(workspace)
    return Delivery(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else Delivery()


def _note(workspace: Workspace, delivery: Delivery) -> None:
    atomic_write(_note_file(workspace), json.dumps(asdict(delivery)))
