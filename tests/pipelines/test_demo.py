"""`srghn demo` whole, as a newcomer runs it: killed in the middle, started again, run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Srghn

#: Seconds after which a demo is killed; on any machine somewhere in the first and second run.
KILLS = (15.0, 35.0)


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


@pytest.mark.slow
@pytest.mark.services
def test_the_whole_loop_survives_kills_and_a_second_run(srghn: Srghn, tmp_path: Path) -> None:
    for seconds in KILLS:
        process = start(tmp_path)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    end = time.monotonic() + 20
    while (left := command_lines(tmp_path)) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == []

    done = srghn("demo", "--json", timeout=900)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["versions"] == {"1": "RETIRED", "2": "CHAMPION", "3": "FAILED"}
    assert result["champion"]["mode"] == "flipped"
    assert result["returns"]["flipped"] >= 475
    assert Path(result["report"]).is_file()
    events = json.loads(srghn("history", "--json").stdout)
    promoted = [e["actor"] for e in events if e["to_state"] == "CHAMPION"]
    assert promoted == ["policy:auto", "canary controller"]

    again = srghn("demo", "--json", timeout=900)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == result
    assert json.loads(srghn("history", "--json").stdout) == events
    status = json.loads(srghn("status", "--json").stdout)
    assert status["champion"]["digest"] == result["champion"]["digest"]
    assert status["canary"] is None
