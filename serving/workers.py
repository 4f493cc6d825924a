"""Workers: processes that share one socket, are restarted, and stop with their parent."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from srghn.parents import PARENT, die_with_parent, mark

logger = logging.getLogger(__name__)

#: Delay before a worker is restarted, so that one that cannot start does not use all CPU.
_PAUSE_SECONDS = 0.5


def supervise(work: Callable[[], None], count: int, drain_seconds: float) -> None:
    """Run `work` in `count` child processes until SIGTERM or SIGINT, which is passed on to them.

    They are forked, so they share the parent's memory; the parent must have no other thread.
    A child that has not ended 5 s after `drain_seconds` is killed.
    """
    stopping = threading.Event()

    def stop(sig: int, frame: FrameType | None) -> None:
        stopping.set()

    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, stop)
    os.environ[PARENT] = mark()
    children = {_begin(work) for _ in range(count)}
    while not stopping.wait(0.1):
        for pid in _ended(children):
            logger.warning("worker %s ended; starting another", pid)
            stopping.wait(_PAUSE_SECONDS)
            if not stopping.is_set():
                children.add(_begin(work))
    _end(children, drain_seconds)


def _begin(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        die_with_parent()
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, signal.default_int_handler)  # until uvicorn takes over
        work()
        code = 0
    except KeyboardInterrupt:
        code = 0
    except Exception:
        logger.exception("a worker failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ended(children: set[int]) -> list[int]:
    """Remove the children that ended, and return them."""
    found = [pid for pid in list(children) if os.waitpid(pid, os.WNOHANG)[0]]
    children.difference_update(found)
    return found


def _end(children: set[int], drain_seconds: float) -> None:
    """Tell all to stop; kill those that take 5 s longer than `drain_seconds`."""
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + drain_seconds + 5
    while children and time.monotonic() < deadline:
        _ended(children)
        time.sleep(0.05)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
