"""A helper process of a worker: started when it is needed, and restarted after it ended."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence

from srghn.parents import PARENT, mark

#: First and longest pause before a restart, in seconds; it doubles each time.
PAUSES = (0.5, 10.0)


class Helper:
    """A process that reads and writes lines. For one thread; `kill` may be called by any.

    After it ended, the next `begin` after `pause` seconds restarts it; `well` resets the pause.
    """

    def __init__(self, command: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._command, self._clock = list(command), clock
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""
        self._ended, self._not_before = 0, 0.0

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def pause(self) -> float:
        """Seconds before a restart if it ended now."""
        first, last = PAUSES
        return float(min(last, first * 2 ** min(self._ended, 32)))

    def begin(self) -> bool:
        """Start it if it does not run and its pause is over; returns whether it runs."""
        if self._process is None and self._clock() >= self._not_before:
            self._read = b""
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, PARENT: mark(), "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C goes to the server, which ends this process
            )
        return self._process is not None

    def well(self) -> None:
        self._ended = 0

    def send(self, line: bytes) -> bool:
        """Write a line; False if the process is gone."""
        process = self._process
        if process is None or process.stdin is None:
            return False
        try:
            view = memoryview(line + b"\n")
            while view:
                view = view[process.stdin.write(view) or 0 :]
        except (OSError, ValueError):  # it ended, or was stopped
            return False
        return True

    def receive(self, seconds: float) -> bytes | None:
        """The next line; None if the process ended or wrote nothing for `seconds`."""
        process, until = self._process, self._clock() + seconds
        while b"\n" not in self._read:
            left = until - self._clock()
            if process is None or process.stdout is None or left <= 0:
                return None
            try:
                ready, _, _ = select.select([process.stdout], [], [], left)
                found = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            except (OSError, ValueError):  # it was stopped
                return None
            if not found:
                return None
            self._read += found
        line, _, self._read = self._read.partition(b"\n")
        return line

    def fail(self) -> None:
        """End it after a failure; it may be restarted after `pause` seconds."""
        self._not_before = self._clock() + self.pause
        self._ended += 1
        self.stop()

    def kill(self) -> None:
        """End it from another thread; the thread that waits for it then calls `stop` or `fail`."""
        process = self._process
        if process is not None:
            process.kill()

    def stop(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
