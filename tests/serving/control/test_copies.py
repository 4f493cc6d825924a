"""The process that answers copies ends with its worker, without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from serving.control.copies import Copy, Of
from serving.control.helper import PAUSES, Helper


def test_however_often_it_failed_it_waits_no_longer_than_the_longest_pause() -> None:
    helper = Helper(["true"])
    pauses = []
    for _ in range(2000):
        pauses.append(helper.pause)
        helper.fail()
    assert pauses[:3] == [PAUSES[0], 2 * PAUSES[0], 4 * PAUSES[0]]
    assert set(pauses[10:]) == {PAUSES[1]}


def test_it_ends_quietly_when_its_worker_is_gone(tmp_path: Path) -> None:
    of = Of(1, "0" * 64)
    copy = Copy(of, (of,), [0.0], None, 0, 10.0, 50.0)
    started = subprocess.Popen(
        [sys.executable, "-m", "serving.control.copies", str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert started.stdin is not None
    assert started.stdout is not None
    assert started.stderr is not None
    started.stdout.close()  # nobody reads its answers any more
    started.stdin.write(msgspec.json.encode(copy) + b"\n")
    started.stdin.close()
    assert (started.wait(timeout=60), started.stderr.read()) == (0, b"")
    started.stderr.close()
