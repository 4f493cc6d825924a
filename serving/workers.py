"""Workers: processes that share one socket, are restarted, and stop with their parent."""

from __future__ import annotations

import logging
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from srghn.parents import PARENT, die_with_parent, mark

logger = logging.getLogger(__name__)

#: Delay before a worker is restarted, so that one that cannot start does not use all CPU.
_PAUSE_SECONDS = 0.5
#: Time between two looks at the workers.
_LOOK_SECONDS = 0.1
_STOPS = (signal.SIGTERM, signal.SIGINT)

Beat = Callable[[], None]


@dataclass
class _Worker:
    """A child process; it counts its signs of life in memory that it shares with its parent."""

    beats: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 1))
    pid: int = -1  # 0 in itself
    seen: int = 0
    silent: float = 0.0  # seconds, of those in which the parent itself ran

    def beat(self) -> None:
        self.beats[0] = self.beats[0] % 255 + 1  # 0: not yet begun

    def look(self) -> None:
        now = self.beats[0]
        self.silent = self.silent + _LOOK_SECONDS if now == self.seen != 0 else 0.0
        self.seen = now


def supervise(
    work: Callable[[Beat], None], count: int, drain_seconds: float, stuck_seconds: float
) -> None:
    """Run `work` in `count` child processes until SIGTERM or SIGINT, which is passed on to them.

    They are forked, so they share the parent's memory; the parent must have no other thread.
    A child that has not ended 5 s after `drain_seconds` is killed. `work` gets a function that it
    calls several times a second from when it has started: a child that does not for
    `stuck_seconds` is killed, because its connections would wait for ever, and replaced.
    """
    stopping = threading.Event()

    def stop(sig: int, frame: FrameType | None) -> None:
        stopping.set()

    for sig in _STOPS:
        signal.signal(sig, stop)
    os.environ[PARENT] = mark()
    workers = [_begin(work) for _ in range(count)]
    while not stopping.wait(_LOOK_SECONDS):
        for worker in _ended(workers):
            logger.warning("worker %s ended; starting another", worker.pid)
        if len(workers) < count and not stopping.wait(_PAUSE_SECONDS):
            try:
                workers.append(_begin(work))
            except OSError as error:  # the machine is short of memory or processes
                logger.error("no worker can be started now: %s; trying again", error)
        for worker in workers:
            worker.look()
            if worker.silent >= stuck_seconds:
                said = "worker %s showed no sign of life for %g s and is killed"
                logger.error(said, worker.pid, stuck_seconds)
                os.kill(worker.pid, signal.SIGKILL)
                worker.silent = 0.0
    _end(workers, drain_seconds)


def _begin(work: Callable[[Beat], None]) -> _Worker:
    worker = _Worker()
    # a child that still had its parent's handler would not stop when it is told to
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        worker.pid = os.fork()
    finally:
        if worker.pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    if worker.pid:
        return worker
    code = 1
    try:
        die_with_parent()
        for sig in _STOPS:
            signal.signal(sig, signal.default_int_handler)  # until uvicorn takes over
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        work(worker.beat)
        code = 0
    except KeyboardInterrupt:
        code = 0
    except Exception:
        logger.exception("a worker failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ended(workers: list[_Worker]) -> list[_Worker]:
    """Remove the workers that ended, and return them."""
    found = [worker for worker in workers if os.waitpid(worker.pid, os.WNOHANG)[0]]
    for worker in found:
        workers.remove(worker)
        worker.beats.close()
    return found


def _end(workers: list[_Worker], drain_seconds: float) -> None:
    """Tell all to stop; kill those that take 5 s longer than `drain_seconds`."""
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
    deadline = time.monotonic() + drain_seconds + 5
    while workers and time.monotonic() < deadline:
        _ended(workers)
        time.sleep(0.05)
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
        os.waitpid(worker.pid, 0)
