"""What all tests share: quiet tools, and homes of their own."""

from __future__ import annotations

import csv
import gc
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from srghn.quiet import be_quiet

be_quiet()
# With torch and Great Expectations loaded, looking for cycles took a twentieth of the tests' time.
gc.set_threshold(7_000)
# A build repeats what it did; a developer's run goes on looking for what nobody thought of.
hypothesis.settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

#: The test files that take longest, the longest first: they begin first, so that none ends alone.
#: Any file that takes more than 20 seconds belongs here (`--durations=0`), and any of more than ten
#: that would be among the last.
FIRST = (
    "pipelines/demo/test_demo.py",
    "pipelines/runs/test_dvc.py",
    "pipelines/runs/test_taken_over.py",
    "pipelines/versions/test_recall.py",
    "pipelines/versions/test_replay.py",
    "test_fixtures.py",
    "pipelines/lab/experiments/test_experiments.py",
    "pipelines/versions/test_release.py",
    "matrix/test_way.py",
    "regression_suite/test_known_bad.py",
    "srghn/evaluation/engines/test_engines.py",
    "serving/test_fuzz.py",
    "srghn/envs/test_switch.py",
    "pipelines/lab/test_bench.py",
    "pipelines/runs/test_kills.py",
    "pipelines/runs/test_work.py",
    "pipelines/runs/test_cut_off.py",
    "pipelines/runs/test_ends.py",
    "serving/registry/test_policies.py",
    "test_readme.py",
    "test_packaging.py",
)
#: Folder in memory, and what must be free there: many times what is there at once.
MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, help="write a CSV file of tests and seconds")


def pytest_configure(config: pytest.Config) -> None:
    """Where there is room, temporary folders lie in memory: a disk takes milliseconds to sync."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    place = {root / name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write what `--results` asks for: how each test ended, and how long it took."""
    path: Path | None = config.getoption("--results")
    if path is None:
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("test", "outcome", "seconds"))
        for outcome in ("passed", "failed"):
            for report in terminalreporter.stats.get(outcome, []):
                if report.when == "call":
                    writer.writerow((report.nodeid, outcome, f"{report.duration:.0f}"))


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A server run in this process sets up logging; its handler keeps a stream that is closed."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


Done = subprocess.CompletedProcess[str]
Srghn = Callable[..., Done]


@pytest.fixture
def srghn_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Srghn:
    """The same entry point in this process: for commands that end before they start anything."""
    from pipelines.cli import main

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
        monkeypatch.chdir(tmp_path)
        for name in [n for n in os.environ if n.startswith("SRGHN_")]:
            monkeypatch.delenv(name)
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["srghn", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        said = capsys.readouterr()
        return Done(arguments, code, said.out, said.err)

    return run


@pytest.fixture
def srghn(tmp_path: Path) -> Srghn:
    """Run `srghn ARGS...` as a process in a folder of its own, with its home there."""

    def run(*arguments: str, env: Mapping[str, str] | None = None, timeout: float = 300) -> Done:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SRGHN_")}
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            cwd=tmp_path,
            env={**environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
