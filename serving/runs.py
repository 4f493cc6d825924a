"""The state of each run, as small files in the home folder that the server can show.

The process that works on a run writes `runs/RUN_ID.json` when it begins and when it ends. If the
file says running and the process is gone, the process was killed.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from srghn.files import atomic_write, is_locked
from srghn.parents import alive, mark

#: States a run ends in; `running` is the only other one.
ENDED = ("finished", "nothing new", "failed", "cancelled", "crashed")
#: A firing is prepared for so long before its run has a workspace, and a lock to be seen by.
PREPARES_SECONDS = 180.0
#: States that need a person's attention.
TROUBLE = ("failed", "crashed", "stopped")


@dataclass(frozen=True)
class RunTrace:
    """One run. `resumed` counts the restarts after its process had died.

    `state` is running, finished, nothing new, failed, cancelled or crashed. When a file that says
    running is read and its process is gone, the state is stopped.
    """

    run_id: str
    state: str
    at: str
    message: str = ""
    schedule: str | None = None
    version: int | None = None
    resumed: int = 0
    host: str = ""
    process: str = ""

    @property
    def over(self) -> bool:
        return self.state in ENDED

    @property
    def alive(self) -> bool:
        """Whether its process exists; under another host's name, what `find` said of it."""
        if self.state != "running":
            return False
        return self.host != socket.gethostname() or alive(self.process)

    @property
    def ending(self) -> bool:
        """Whether it is over, and its process still exists here: it has a few things to tell."""
        return self.over and self.host == socket.gethostname() and alive(self.process)


def begun(run_id: str, *, schedule: str | None = None, resumed: int = 0) -> RunTrace:
    """The trace of a run that this process starts to work on."""
    here = socket.gethostname()
    return RunTrace(
        run_id, "running", _now(), schedule=schedule, resumed=resumed, host=here, process=mark()
    )


def ended(trace: RunTrace, state: str, message: str = "", version: int | None = None) -> RunTrace:
    return replace(trace, state=state, message=message, version=version, at=_now())


def write(home: Path, trace: RunTrace) -> None:
    atomic_write(home / "runs" / f"{trace.run_id}.json", json.dumps(asdict(trace), indent=1))


def find(home: Path, run_id: str) -> RunTrace | None:
    """The trace of one run; None if it is missing or unreadable."""
    try:
        text = (home / "runs" / f"{run_id}.json").read_text(encoding="utf-8")
        trace = RunTrace(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return None
    if not trace.over and not _at_work(home, trace):
        why = f"its process is gone; resume it with: srghn run --resume {run_id}"
        return replace(trace, state="stopped", message=why)
    return trace


def _at_work(home: Path, trace: RunTrace) -> bool:
    """Whether its process exists, by its id; under another host's name, by the workspace's lock.

    A home is of one host, but that may have been renamed, or be several containers. While there is
    no lock yet, a trace that was just written counts.
    """
    if trace.host == socket.gethostname():
        return trace.alive
    try:
        return is_locked(home / "workspaces" / trace.run_id / ".lock")
    except FileNotFoundError:
        age = time.time() - _written(home / "runs" / f"{trace.run_id}.json")
        return abs(age) < PREPARES_SECONDS  # a clock may have been put back since
    except OSError:  # it cannot be looked at
        return True


def recent(home: Path, most: int = 50) -> list[RunTrace]:
    """The latest `most` runs, latest first; older files are not read."""
    written = [(_written(path), path.stem) for path in (home / "runs").glob("*.json")]
    traces = (find(home, name) for _, name in sorted(written, reverse=True))
    found = list(islice((trace for trace in traces if trace is not None), most))
    return sorted(found, key=lambda trace: trace.at, reverse=True)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
