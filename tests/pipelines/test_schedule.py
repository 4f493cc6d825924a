"""Schedules through a real Prefect server and a real worker: `srghn up` in a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Srghn

TINY = (
    "--set", "evolution.generations=2", "--set", "evolution.episodes=1",
    "--set", "evaluate.cell_episodes=0", "--set", "gate.perturbations=[]",
    "--set", "gate.episodes=20", "--set", "gate.cell_episodes=20",
)  # fmt: skip
DEADLINE_SECONDS = 400.0


@pytest.fixture
def up(tmp_path: Path) -> Iterator[str]:
    """`srghn up` on free ports; the HTTP server's URL. Everything ends with it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SRGHN_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "up", "--port", "0"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        url = next(line.split()[1] for line in process.stderr if line.startswith("policies"))
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def wait_for(what: str, srghn: Srghn, *command: str) -> list[dict[str, object]]:
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        found: list[dict[str, object]] = json.loads(srghn(*command, "--json").stdout)
        if found:
            return found
        time.sleep(2)
    raise AssertionError(f"no {what} within {DEADLINE_SECONDS:.0f} s")


@pytest.mark.slow
@pytest.mark.services
def test_a_schedule_runs_and_its_candidate_waits_in_the_ledger(
    srghn: Srghn, up: str, tmp_path: Path
) -> None:
    bad = srghn("schedule", "add", "nightly", "--cron", "every day")
    assert bad.returncode == 3
    assert "five fields" in bad.stderr

    done = srghn("schedule", "add", "nightly", "--cron", "* * * * *", *TINY)
    assert done.returncode == 0, done.stderr
    listed = wait_for("schedule", srghn, "schedule", "list")
    assert [(s["name"], s["cron"], s["paused"]) for s in listed] == [
        ("nightly", "* * * * *", False)
    ]

    versions = wait_for("version", srghn, "candidates")
    assert str(versions[0]["run_id"]).startswith("cartpole-switch-")
    assert srghn("schedule", "pause", "nightly").returncode == 0
    assert json.loads(srghn("schedule", "list", "--json").stdout)[0]["paused"]
    missing = srghn("schedule", "pause", "weekly")
    assert "no schedule 'weekly'; there are: nightly" in missing.stderr

    while json.loads(srghn("candidates", "--json").stdout)[0]["state"] == "EVALUATING":
        time.sleep(2)
    assert httpx.get(f"{up}/health/ready").status_code == 503  # nothing passed: nothing is served
    assert srghn("schedule", "remove", "nightly").returncode == 0
    assert json.loads(srghn("schedule", "list", "--json").stdout) == []
