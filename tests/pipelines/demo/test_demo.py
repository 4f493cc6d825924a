"""`srghn demo` whole, as a newcomer runs it: killed in the middle, started again, run twice.

`make long` kills it at three moments, one of them amid the canary's trial, and runs it three times.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from serving.registry.ledger import Ledger
from tests.conftest import Srghn

#: A demo takes two minutes on two idle cores, and several times as long on a busy machine.
DEADLINE_SECONDS = 900.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SRGHN_")}
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "demo"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def command_lines(folder: Path) -> list[str]:
    """Command lines of processes at work in the home of `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes()
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder / ".srghn").encode() in environment and line:
            found.append(line)
    return found


def posted(folder: Path, version: int) -> bool:
    """Whether an outcome of `version` is in the ledger."""
    path = folder / ".srghn" / "ledger.db"
    if not path.exists():
        return False
    with closing(Ledger(f"sqlite:///{path}")) as ledger:
        return bool(ledger.outcomes(version))


def midway(folder: Path) -> bool:
    """Whether the trial has outcomes of the canary, and an episode of it that is not over."""
    if not posted(folder, 2):
        return False
    with closing(Ledger(f"sqlite:///{folder / '.srghn' / 'ledger.db'}")) as ledger:
        trial = ledger.canary()
        assert trial is not None
        rows = ledger.resolved(trial.policy, trial.epoch, 0, math.inf)
        return any(row.arm == 1 and row.ended_at is None for row in rows)


def begun(folder: Path, run: str) -> bool:
    """Whether that run evolves."""
    return (folder / f".srghn/workspaces/{run}/data/run/run.json").exists()


def kill_when(come: Callable[[], bool], folder: Path) -> None:
    """Start the demo and kill it as soon as `come`; what it had started ends by itself."""
    process = start(folder)
    end = time.monotonic() + DEADLINE_SECONDS
    try:
        while not come():
            assert process.poll() is None, "the demo ended before it could be killed"
            assert time.monotonic() < end, "the moment to kill the demo never came"
            time.sleep(0.02)
    finally:  # a test that fails leaves no demo running beside the others
        process.kill()
        process.wait()
    end = time.monotonic() + 120
    while (left := command_lines(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == []


def shown(srghn: Srghn) -> dict[str, Any]:
    """The demo to its end, which is as it should be."""
    done = srghn("demo", "--json", timeout=900)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["versions"] == {"1": "RETIRED", "2": "CHAMPION", "3": "FAILED"}
    assert result["champion"]["mode"] == "flipped"
    assert result["returns"]["flipped"] >= 475
    assert Path(result["report"]).is_file()
    promoted = [e["actor"] for e in history(srghn) if e["to_state"] == "CHAMPION"]
    assert promoted == ["policy:auto", "canary controller"]
    return result


def history(srghn: Srghn) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(srghn("history", "--json").stdout)
    return events


@pytest.mark.slow
@pytest.mark.services
def test_a_killed_demo_goes_on_and_shows_the_same_again(srghn: Srghn, tmp_path: Path) -> None:
    """Killed while the second run evolves: a champion is served, and its episode is over."""
    kill_when(lambda: begun(tmp_path, "demo-second"), tmp_path)
    result = shown(srghn)
    events = history(srghn)
    assert shown(srghn) == result
    assert history(srghn) == events
    status = json.loads(srghn("status", "--json").stdout)
    assert status["champion"]["digest"] == result["champion"]["digest"]
    assert status["canary"] is None


@pytest.mark.long
@pytest.mark.services
def test_the_whole_loop_survives_kills_and_further_runs(srghn: Srghn, tmp_path: Path) -> None:
    kill_when(lambda: begun(tmp_path, "demo-first"), tmp_path)
    kill_when(lambda: posted(tmp_path, 1), tmp_path)  # its episode is over: not to be played again
    kill_when(lambda: midway(tmp_path), tmp_path)  # in the middle of the canary's trial
    result = shown(srghn)
    events = history(srghn)
    for _ in range(2):
        assert shown(srghn) == result
    assert history(srghn) == events
