"""Traces of runs: what the server can show of them, whoever was killed."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from serving import runs
from srghn.parents import mark


def test_a_run_that_goes_on_is_running(tmp_path: Path) -> None:
    runs.write(tmp_path, runs.begun("one", schedule="nightly"))
    found = runs.find(tmp_path, "one")
    assert found is not None
    assert (found.state, found.schedule, found.alive, found.over) == (
        "running", "nightly", True, False
    )  # fmt: skip


def test_one_whose_process_is_gone_is_stopped_and_says_how_to_go_on(tmp_path: Path) -> None:
    runs.write(tmp_path, replace(runs.begun("one"), process="999999999:1"))
    found = runs.find(tmp_path, "one")
    assert found is not None
    assert (found.state, found.alive) == ("stopped", False)
    assert "srghn run --resume one" in found.message
    assert found.state in runs.TROUBLE


@pytest.mark.parametrize(
    ("lock", "age", "said"),
    [
        ("held", 900, ("running", True)),
        ("free", 0, ("stopped", False)),
        (None, 900, ("stopped", False)),
        (None, -900, ("stopped", False)),
        (None, 60, ("running", True)),
    ],
)
def test_one_under_another_hosts_name_works_while_its_workspace_is_locked(
    tmp_path: Path, lock: str | None, age: float, said: tuple[str, bool]
) -> None:
    """A container made anew has another name, and process ids of its own.

    A firing that is prepared has no workspace yet.
    """
    runs.write(tmp_path, replace(runs.begun("one"), process=mark(), host="elsewhere"))
    os.utime(tmp_path / "runs" / "one.json", (time.time() - age,) * 2)
    with ExitStack() as stack:
        if lock is not None:
            place = tmp_path / "workspaces" / "one"
            place.mkdir(parents=True)
            file = stack.enter_context((place / ".lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX if lock == "held" else fcntl.LOCK_UN)
        found = runs.find(tmp_path, "one")
        assert found is not None
        assert (found.state, found.alive) == said


def test_an_end_keeps_what_it_said(tmp_path: Path) -> None:
    began = runs.begun("one", resumed=2)
    runs.write(tmp_path, runs.ended(began, "failed", "no such world", version=3))
    found = runs.find(tmp_path, "one")
    assert found is not None
    assert (found.over, found.message, found.version, found.resumed) == (
        True, "no such world", 3, 2
    )  # fmt: skip
    assert not found.alive


def test_the_latest_stand_first_and_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert runs.recent(tmp_path) == []
    for day in (2, 1, 3):
        runs.write(tmp_path, replace(runs.begun(f"run{day}"), at=f"2026-01-0{day}"))
    (tmp_path / "runs" / "torn.json").write_text("{")
    (tmp_path / "runs" / "newer.json").write_text('{"run_id": "x", "unknown": 1}')
    assert [trace.run_id for trace in runs.recent(tmp_path)] == ["run3", "run2", "run1"]
    assert [trace.run_id for trace in runs.recent(tmp_path, 1)] == ["run3"]
