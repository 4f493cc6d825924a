"""A home that cannot be written is read all the same; what would write says so in a line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.conftest import Home

#: What lets root write whatever a file's mode says.
POWERS = "-dac_override,-dac_read_search,-fowner"
pytestmark = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None,
    reason="root writes everywhere, and setpriv is not there to give that up",
)


@pytest.fixture
def read_only(home: Home) -> Iterator[Path]:
    folder = home.settings.home
    home.release.ledger.close()
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def srghn(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    powerless = ["setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}"]
    return subprocess.run(
        [
            *(powerless if os.geteuid() == 0 else []),
            *(sys.executable, "-m", "pipelines.cli", *arguments),
        ],
        env={**os.environ, "SRGHN_HOME": str(home)},
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_read_and_left_as_it_is(read_only: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in read_only.rglob("*")}
    for command in (("candidates",), ("status", "--json"), ("history", "1"), ("report", "1")):
        done = srghn(read_only, *command)
        assert done.returncode == 0, done.stderr
        assert done.stdout
        assert done.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in read_only.rglob("*")} == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("run", "--preset", "cartpole"), "set SRGHN_HOME to a folder that can"),
        (("reject", "1", "--reason", "x"), "attempt to write a readonly database"),
        (("sync",), "Permission denied"),
    ],
)
def test_what_would_write_is_refused_in_a_line(
    command: tuple[str, ...], said: str, read_only: Path
) -> None:
    done = srghn(read_only, *command)
    assert done.returncode == 3
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
