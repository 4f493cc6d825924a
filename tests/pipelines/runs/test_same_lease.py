"""The same lease gives the same bytes: on one worker and two, idle and loaded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.runs.stages import STAGES
from pipelines.versions.lease import Lease
from serving.settings import Settings
from tests.pipelines.conftest import Home


@contextmanager
def loaded() -> Iterator[None]:
    """Three threads that take all the time they get."""
    over = threading.Event()

    def burn() -> None:
        while not over.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=burn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def files(folder: Path) -> dict[str, bytes]:
    """All but the clock's."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "timings.json"}


def test_two_workers_and_a_loaded_machine_change_no_byte(home: Home) -> None:
    workspace = home.workspace
    lease = Lease.load(workspace.lease)
    assert lease.lease is not None
    first = files(workspace.report)
    assert {"report.html", "report.json", "verdict.json", "episodes.parquet"} <= set(first)
    assert b"<pre>srghn replay 1</pre>" in first["report.html"]
    two = Settings(home=home.settings.home, engine="processes", workers=2).resolved()
    with loaded():
        STAGES["gate"](workspace, two)
    assert files(workspace.report) == first
    STAGES["gate"](workspace, home.settings)
    assert files(workspace.report) == first
    assert Lease.load(workspace.lease) == lease
