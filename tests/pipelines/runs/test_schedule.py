"""Schedules through a real Prefect server and a real worker: `srghn up` in a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from srghn.config import load_params
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
        process.terminate()
        assert process.wait(60) == 130


def wait_for(srghn: Srghn, count: int, *command: str) -> list[dict[str, object]]:
    """What a command lists, once that is so much and none of it is still being judged."""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        found: list[dict[str, object]] = json.loads(srghn(*command, "--json").stdout)
        if sum(each.get("state") not in ("REGISTERED", "EVALUATING") for each in found) >= count:
            return found
        time.sleep(2)
    raise AssertionError(f"no {count} of {' '.join(command)} within {DEADLINE_SECONDS:.0f} s")


@pytest.mark.slow
@pytest.mark.services
def test_schedules_run_and_their_candidates_wait_in_the_ledger(
    srghn: Srghn, up: str, tmp_path: Path
) -> None:
    bad = srghn("schedule", "add", "nightly", "--cron", "every day")
    assert bad.returncode == 3
    assert "five fields" in bad.stderr

    names = ("nightly", "other")
    before = {path.name for path in tmp_path.iterdir()}
    for seed, name in enumerate(names):
        seeded = ("--set", f"evolution.seed={seed}")
        done = srghn("schedule", "add", name, "--cron", "* * * * *", *TINY, *seeded)
        assert done.returncode == 0, done.stderr
    listed = wait_for(srghn, 2, "schedule", "list")
    assert [(s["name"], s["cron"], s["paused"]) for s in listed] == [
        (name, "* * * * *", False) for name in names
    ]

    versions = wait_for(srghn, 2, "candidates")
    for name in names:
        assert srghn("schedule", "pause", name).returncode == 0
    assert [s["paused"] for s in json.loads(srghn("schedule", "list", "--json").stdout)] == [
        True,
        True,
    ]
    missing = srghn("schedule", "pause", "weekly")
    assert "no schedule 'weekly'; there are: nightly, other" in missing.stderr

    runs = [tmp_path / ".srghn" / "workspaces" / str(v["run_id"]) for v in versions]
    assert {load_params(run / "params.yaml").evolution.seed for run in runs} == {0, 1}
    assert {path.name for path in tmp_path.iterdir()} == before
    assert httpx.get(f"{up}/health/ready").status_code == 503  # nothing passed: nothing is served
    for name in names:
        assert srghn("schedule", "remove", name).returncode == 0
    assert json.loads(srghn("schedule", "list", "--json").stdout) == []
