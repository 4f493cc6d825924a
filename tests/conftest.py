"""What all tests share: quiet tools, and homes of their own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest

from srghn.quiet import be_quiet

be_quiet()
# A build repeats what it did; a developer's run goes on looking for what nobody thought of.
hypothesis.settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


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
