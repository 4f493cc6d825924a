"""Children that end when any process they work for is gone, however it ended.

A process killed with SIGKILL can tell its children nothing, and an orphan would hold a port, or
write a run beside the one that was started again. So each child looks up, twice a second.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

#: Which process a child works for, as `mark` writes it: its id and when it started.
PARENT = "SRGHN_PARENT_PID"
SECONDS = 0.5
_PROC = Path("/proc")


def mark(pid: int | None = None) -> str:
    """A process by its id and start, which a later process of the same id does not share."""
    pid = os.getpid() if pid is None else pid
    return f"{pid}:{(_stat(pid) or ('', 0, ''))[2]}"


def alive(marked: str) -> bool:
    """Whether the marked process still runs; a zombie, which only waits to be counted, does not."""
    text, _, started = marked.partition(":")
    if not text.isdecimal() or int(text) == 0:
        return False
    if not _PROC.is_dir():
        return _answers(int(text))
    found = _stat(int(text))
    return found is not None and found[0] not in "ZX" and (not started or started == found[2])


def die_with_parent() -> None:
    """End this process when the one that `PARENT` names is gone, or any between that and this.

    A shell or DVC may be in between. Nothing happens in a process that srghn did not start.
    """
    parent = os.environ.get(PARENT, "")
    if not parent or parent.partition(":")[0] == str(os.getpid()):
        return
    watched = [parent, *_between(int(parent.partition(":")[0]))]
    threading.Thread(
        target=_watch, args=(watched, os.getppid()), daemon=True, name="parent-watch"
    ).start()


def _watch(watched: list[str], parent: int, end: Callable[[int], None] = os._exit) -> None:
    while os.getppid() == parent and all(alive(each) for each in watched):
        time.sleep(SECONDS)
    end(3)


def _between(ancestor: int) -> list[str]:
    """Marks of the processes between this one and an ancestor; none if it is no ancestor."""
    found, pid = [], os.getppid()
    while pid > 1 and pid != ancestor:
        stat = _stat(pid)
        if stat is None:
            return []
        found.append(f"{pid}:{stat[2]}")
        pid = stat[1]
    return found if pid == ancestor else []


def _stat(pid: int) -> tuple[str, int, str] | None:
    """State, parent and start of a process, from Linux's /proc; None where there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[1]), fields[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
