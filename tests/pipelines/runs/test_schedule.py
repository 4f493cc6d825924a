"""Schedules through a real Prefect server and a real worker: `srghn up` in a home of its own.

This is for `make long`: it waits for two firings by the minute; `test_taken_over.py` has one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serving import runs
from srghn.config import load_params
from tests.conftest import Srghn

TINY = (
    "--set", "evolution.generations=2", "--set", "evolution.episodes=1",
    "--set", "evaluate.cell_episodes=0", "--set", "gate.perturbations=[]",
    "--set", "gate.episodes=20", "--set", "gate.cell_episodes=20",
)  # fmt: skip
DEADLINE_SECONDS = 400.0


@contextmanager
def up(folder: Path, **settings: str) -> Iterator[str]:
    """`srghn up` in a folder, on free ports, until the block ends; the HTTP server's URL."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SRGHN_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "up", "--port", "0"],
        cwd=folder,
        env={**environment, **settings},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        url = next(line.split()[1] for line in process.stderr if line.startswith("policies"))
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 130


def parts(home: Path) -> dict[str, int]:
    """The processes that `srghn up` keeps up, by name."""
    noted = json.loads((home / "services.json").read_text())
    return {name: int(mark.partition(":")[0]) for name, mark in noted.items()}


def wait_until(what: str, come: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not come():
        assert time.monotonic() < end, f"no {what} in time"
        time.sleep(0.2)


@pytest.mark.long
@pytest.mark.services
def test_schedules_run_and_outlive_each_part(srghn: Srghn, tmp_path: Path) -> None:
    """Every part is killed in turn. The run that a killed worker had goes on under its own id."""
    before = {path.name for path in tmp_path.iterdir()}
    with up(tmp_path) as url:
        outlives(srghn, url, tmp_path / ".srghn")
        assert srghn("schedule", "remove", "nightly").returncode == 0
        assert json.loads(srghn("schedule", "list", "--json").stdout) == []
    assert {path.name for path in tmp_path.iterdir()} == before | {".srghn"}


def outlives(srghn: Srghn, url: str, home: Path) -> None:
    traces = lambda: runs.recent(home)  # noqa: E731
    done = srghn("schedule", "add", "nightly", "--cron", "* * * * *", *TINY)
    assert done.returncode == 0, done.stderr
    wait_until("worker", lambda: "worker" in parts(home))
    listed = json.loads(srghn("schedule", "list", "--json").stdout)
    assert [(s["name"], s["worker"], s["next_run"] is not None) for s in listed] == [
        ("nightly", True, True)
    ]
    wait_until("run", lambda: any(t.state == "running" for t in traces()))
    cut = next(t for t in traces() if t.state == "running").run_id
    http = parts(home)["HTTP server"]
    os.kill(parts(home)["worker"], signal.SIGKILL)
    found = ended(home, cut)
    assert (found.state, found.resumed, found.schedule) == ("finished", 1, "nightly")

    os.kill(parts(home)["Prefect server"], signal.SIGKILL)
    wait_until("another run", lambda: len({t.run_id for t in traces() if t.over}) >= 2)
    assert parts(home)["HTTP server"] == http  # nothing that died stopped it
    assert httpx.get(f"{url}/health/live").status_code == 200
    os.kill(http, signal.SIGKILL)
    wait_until("HTTP server", lambda: answers(f"{url}/health/live"))

    assert srghn("schedule", "pause", "nightly", "--reason", "enough").returncode == 0
    over = [t for t in traces() if t.state == "finished"]
    versions = json.loads(srghn("candidates", "--json").stdout)
    assert {t.version for t in over} <= {v["version"] for v in versions}
    seeds = {
        load_params(home / "workspaces" / t.run_id / "params.yaml").evolution.seed for t in over
    }
    assert len(seeds) == len(over) >= 2  # each firing made a candidate of its own


def ended(home: Path, run_id: str) -> runs.RunTrace:
    """The trace of a run, once it is over."""
    wait_until("end of the run", lambda: runs.find(home, run_id).over)  # type: ignore[union-attr]
    found = runs.find(home, run_id)
    assert found is not None
    return found


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False
