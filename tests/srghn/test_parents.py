"""Children end with the process they work for, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from srghn.parents import PARENT, alive, mark

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

CHILD = "from srghn.parents import die_with_parent; die_with_parent(); import time; time.sleep(60)"


def wait_until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_process_is_alive_until_it_ends_and_a_zombie_is_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    marked = mark(child.pid)
    assert alive(marked)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet counted
    assert Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    assert not alive(marked)
    child.wait()
    assert not alive(marked)


def test_a_later_process_of_the_same_id_is_another_one() -> None:
    pid, _, started = mark().partition(":")
    assert alive(f"{pid}:{started}")
    assert not alive(f"{pid}:{int(started) + 1}")
    assert alive(pid)  # as written by version 0.2, which noted no start


@pytest.mark.parametrize("text", ["", "0:", "nobody", "-1:3"])
def test_what_names_no_process_is_not_alive(text: str) -> None:
    assert not alive(text)


def _grandchild(tmp_path: Path) -> tuple[subprocess.Popen[bytes], int]:
    """This process, a shell as DVC uses one, and a child that watches both; shell and child id."""
    noted = tmp_path / "pid"
    command = (
        f'"{sys.executable}" -c "{CHILD}" & echo $! > {noted}.new; mv {noted}.new {noted}; wait'
    )
    shell = subprocess.Popen(["sh", "-c", command], env={**os.environ, PARENT: mark()})
    wait_until(noted.exists)
    return shell, int(noted.read_text())


def test_a_child_ends_with_a_shell_between_that_was_killed(tmp_path: Path) -> None:
    shell, pid = _grandchild(tmp_path)
    marked = mark(pid)
    time.sleep(1.0)
    assert alive(marked)
    shell.kill()
    shell.wait()
    wait_until(lambda: not alive(marked))


def test_a_child_ends_when_its_parent_is_a_zombie(tmp_path: Path) -> None:
    """A parent killed under a program that does not wait for it is never gone, only dead."""
    code = (
        "import os, subprocess, sys, time; from srghn.parents import PARENT, mark\n"
        f"child = subprocess.Popen([sys.executable, '-c', {CHILD!r}],\n"
        "                         env={**os.environ, PARENT: mark()})\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    marked = mark(int(parent.stdout.readline()))
    assert alive(marked)
    os.kill(parent.pid, signal.SIGKILL)  # and not waited for
    wait_until(lambda: not alive(marked))
    parent.communicate()
