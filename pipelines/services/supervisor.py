"""Keeps processes up: each that dies is started again by itself, and none stops another.

Call everything here from the main thread: on Linux the kernel ends a child with the thread that
started it. What comes before a start may wait for a server, and has a thread of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.services.processes import stop_service
from srghn.files import atomic_write
from srghn.parents import alive, mark

#: Pause before a restart, doubled with each failure up to the second figure; a part that was up
#: for so long as the third begins anew.
FIRST_SECONDS, MOST_SECONDS, GOOD_SECONDS = 1.0, 60.0, 60.0
LOOK_SECONDS = 0.5
#: A longer log is begun anew; what it was is kept once, as NAME.1.
LOG_BYTES = 32 * 2**20
Say = Callable[[str], None]


@dataclass
class Part:
    """One process to be kept up. `before` is called before `watch` starts it, while none is up.

    The part is started when it has ended, however. `log` is where its output goes, for people.
    """

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    log: Path
    before: Callable[[], None] | None = None
    process: subprocess.Popen[bytes] | None = None
    since: float = 0.0
    pause: float = 0.0
    due: float | None = field(default=None)
    waits: threading.Thread | None = None


class Supervisor:
    """Parts that are kept up until `stop`. Their pids are in `note`, for other commands."""

    def __init__(self, note: Path, say: Say) -> None:
        self.parts: list[Part] = []
        self._note, self._say = note, say
        self._noted = False

    def add(self, part: Part) -> subprocess.Popen[bytes]:
        """Start a part and keep it up from now on."""
        self.parts.append(part)
        return self._start(part)

    def add_due(self, part: Part) -> None:
        """Keep a part up from now on; `watch` starts it, after what comes before."""
        part.due = 0.0
        self.parts.append(part)

    def watch(self, moment: float | None = None) -> None:
        """Look at every part once; start again what is due."""
        now = time.monotonic() if moment is None else moment
        for part in self.parts:
            if part.due is None:
                self._look(part, now)
            elif now >= part.due:
                self._restart(part, now)
            _shorten(part.log)
        if not self._noted:
            self._write_note()

    def stop(self) -> None:
        """Stop every part, the last that was added first."""
        for part in reversed(self.parts):
            if part.process is not None:
                stop_service(part.process)
        self._note.unlink(missing_ok=True)

    def _look(self, part: Part, now: float) -> None:
        assert part.process is not None
        code = part.process.poll()
        if code is None:
            return
        if now - part.since >= GOOD_SECONDS:
            part.pause = 0.0
        how = f"was killed by {_signal(-code)}" if code < 0 else f"ended with {code}"
        self._put_off(part, now, how)

    def _put_off(self, part: Part, now: float, how: str) -> None:
        part.pause = min(2 * part.pause or FIRST_SECONDS, MOST_SECONDS)
        part.due = now + part.pause
        self._say(f"the {part.name} {how}; it restarts in {part.pause:.0f} s (log: {part.log})")

    def _restart(self, part: Part, now: float) -> None:
        try:
            if not _ready(part):
                return
            self._start(part)
        # a full disk, or no process or thread to be had: the other parts go on
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            self._put_off(part, now, f"could not be started: {error}")
            return
        part.due = None
        if part.pause:  # else this is its first start
            self._say(f"the {part.name} is started again")

    def _start(self, part: Part) -> subprocess.Popen[bytes]:
        part.process, part.since = part.start(), time.monotonic()
        self._write_note()
        return part.process

    def _write_note(self) -> None:
        """Tell other commands what is up; where the disk is full, `watch` tries again."""
        noted = {p.name: mark(p.process.pid) for p in self.parts if p.process is not None}
        self._noted = False
        with suppress(OSError):
            atomic_write(self._note, json.dumps(noted))
            self._noted = True


def _ready(part: Part) -> bool:
    """Whether what comes before a start is done; begins it, and waits a moment for it."""
    if part.before is None:
        return True
    if part.waits is None:
        waits = threading.Thread(target=part.before, daemon=True, name=f"before {part.name}")
        waits.start()
        part.waits = waits
    part.waits.join(LOOK_SECONDS)
    if part.waits.is_alive():
        return False
    part.waits = None
    return True


def _shorten(log: Path) -> None:
    """Begin a long log anew. Its processes append to it, so they need not be told."""
    with suppress(OSError):
        if log.stat().st_size > LOG_BYTES:
            with suppress(OSError):  # on a full disk a long log is not worth its room
                shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def is_up(note: Path, name: str) -> bool:
    """Whether a part that a supervisor noted is up now."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return alive(str(json.loads(note.read_text(encoding="utf-8"))[name]))
    return False


def _signal(number: int) -> str:
    names: Iterable[signal.Signals] = signal.Signals
    return next((each.name for each in names if each == number), f"signal {number}")
