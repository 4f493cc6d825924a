"""Runs killed at a random moment, or in the middle of a write, which is left half done."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import Workspace
from serving.settings import Settings
from srghn.candidates.candidate import Candidate
from srghn.config import RunParams
from srghn.files import atomic_write
from tests.forks import forked

_fork = multiprocessing.get_context("fork")
Outcome = tuple[dict[str, bytes], str]


@dataclass(frozen=True)
class Yard:
    """Makes workspaces of one run, and kills and finishes what goes on in them."""

    folder: Path
    settings: Settings
    params: RunParams

    def workspace(self, name: str) -> Workspace:
        """A new one, its world pinned."""
        workspace = Workspace(self.folder / name)
        atomic_write(workspace.params_file, self.params.to_yaml())
        pinned = self.folder / "pinned.json"
        if not pinned.exists():
            STAGES["pin"](workspace, self.settings)
            shutil.copyfile(workspace.env_version, pinned)
        workspace.env_version.parent.mkdir(exist_ok=True)
        shutil.copyfile(pinned, workspace.env_version)
        return workspace

    def undisturbed(self) -> tuple[Outcome, float, int]:
        """What a run comes to, the seconds it takes, and the syncs and renames it makes."""
        self._warm_up()
        workspace, calls = self.workspace("undisturbed"), _fork.Value("i", 0)
        started = time.monotonic()
        self._child(lambda: _counting(calls, 0, lambda: self._finish(workspace)))
        return outcome(workspace), time.monotonic() - started, int(calls.value)

    def kill_after(self, workspace: Workspace, seconds: float) -> bool:
        """Begin or go on, and kill after so long; whether there was anything left to kill."""
        child = forked(self._finish, workspace)
        child.join(seconds)
        child.kill()
        child.join()
        return child.exitcode == -signal.SIGKILL

    def kill_in_write(self, workspace: Workspace, number: int) -> bool:
        """Begin or go on, and be killed in the n-th sync or rename, a file half written."""
        calls = _fork.Value("i", 0)
        code = self._child(lambda: _counting(calls, number, lambda: self._finish(workspace)))
        return code == -signal.SIGKILL

    def finish(self, workspace: Workspace) -> Outcome:
        """Go on to the end, in a process of its own."""
        code = self._child(lambda: _without_warnings(lambda: self._finish(workspace)))
        assert code == 0, f"a resumed run ended with {code}"
        return outcome(workspace)

    def _finish(self, workspace: Workspace) -> None:
        for stage in ("evolve", "evaluate"):
            STAGES[stage](workspace, self.settings)

    def _warm_up(self) -> None:
        """Compile and import here, once, what every forked process then has."""
        self._finish(self.workspace("warm-up"))

    def _child(self, work: Callable[[], None]) -> int | None:
        child = forked(work)
        child.join()
        return child.exitcode


def outcome(workspace: Workspace) -> Outcome:
    """Every file of the run but its lock, by path, and the candidate's digest."""
    files = {
        str(path.relative_to(workspace.run)): path.read_bytes()
        for path in sorted(workspace.run.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
    return files, Candidate.load(workspace.candidate).digest


def _without_warnings(work: Callable[[], None]) -> None:
    """Work in a child whose warnings, of checkpoints refused, nobody reads."""
    warnings.simplefilter("ignore")
    work()


def _counting(calls: Any, fatal: int, work: Callable[[], None]) -> None:
    """Work, counting syncs and renames; at number `fatal` tear the file in hand and die."""

    def counted(call: Callable[..., Any], tears: bool) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            calls.value += 1
            if calls.value == fatal:
                if tears and not os.path.isdir(f"/proc/self/fd/{arguments[0]}"):
                    os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return wrapped

    os.fsync = counted(os.fsync, tears=True)
    os.replace = counted(os.replace, tears=False)
    os.rename = counted(os.rename, tears=False)
    work()


def trial(yard: Yard, number: int, seconds: float, calls: int) -> tuple[bool, Outcome]:
    """One run, killed once: even numbers at a random moment, odd ones in a random write."""
    rng, workspace = np.random.default_rng(number), yard.workspace(f"trial-{number}")
    if number % 2:
        killed = yard.kill_in_write(workspace, int(rng.integers(1, calls + 1)))
    else:
        killed = yard.kill_after(workspace, float(rng.uniform(0.0, seconds)))
    found = yard.finish(workspace)
    shutil.rmtree(workspace.root)
    return killed, found
