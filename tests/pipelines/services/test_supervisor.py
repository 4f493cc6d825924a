"""What dies is started again, later each time, and nothing else is touched: with real processes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from pipelines.services import supervisor, up
from pipelines.services.supervisor import FIRST_SECONDS, GOOD_SECONDS, Part, Supervisor, is_up
from tests.pipelines.conftest import home_at


class Stage:
    """A supervisor of processes that sleep, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.note = folder / "services.json"
        self.parts = Supervisor(self.note, self.said.append)
        self.before: list[str] = []

    def add(self, name: str, code: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-S", "-c", code])

        def before() -> None:
            self.before.append(name)

        return self.parts.add(Part(name, start, Path("a.log"), before))

    def pid(self, name: str) -> int:
        return int(json.loads(self.note.read_text())[name].partition(":")[0])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.parts.stop()


def test_what_is_killed_is_started_again_and_said(stage: Stage) -> None:
    worker, server = stage.add("worker"), stage.add("server")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert not is_up(stage.note, "worker")
    now = time.monotonic()
    stage.parts.watch(now)
    assert stage.said == ["the worker was killed by SIGKILL; it restarts in 1 s (log: a.log)"]
    stage.parts.watch(now + FIRST_SECONDS / 2)
    assert not is_up(stage.note, "worker")
    stage.parts.watch(now + FIRST_SECONDS)
    assert stage.said[-1] == "the worker is started again"
    assert stage.before == ["worker"]
    assert is_up(stage.note, "worker")
    assert stage.pid("worker") != worker.pid
    assert stage.pid("server") == server.pid
    assert server.poll() is None


def test_a_log_does_not_grow_without_end(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.add("server")
    log = stage.parts.parts[0].log = tmp_path / "serve.log"
    monkeypatch.setattr(supervisor, "LOG_BYTES", 10)
    with log.open("ab", buffering=0) as output:
        for text in (b"ten bytes.", b"one more.", b"the end"):
            stage.parts.watch()
            output.write(text)
    assert (tmp_path / "serve.log.1").read_bytes() == b"ten bytes.one more."
    assert log.read_bytes() == b"the end"


def test_what_ends_again_and_again_waits_longer(stage: Stage) -> None:
    process, now, pauses = stage.add("worker", "raise SystemExit(7)"), time.monotonic(), []
    for _ in range(8):
        process.wait()
        part = stage.parts.parts[0]
        stage.parts.watch(part.since + 1)
        assert part.due is not None
        pauses.append(part.due - part.since - 1)
        stage.parts.watch(part.due)
        assert part.process is not None
        process = part.process
    assert [round(pause) for pause in pauses] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert "ended with 7" in stage.said[0]
    part.since = now - GOOD_SECONDS  # it was up for long: it begins anew
    process.wait()
    stage.parts.watch(now + 1)
    assert "restarts in 1 s" in stage.said[-1]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_cannot_be_started_is_tried_again_and_stops_nothing(stage: Stage) -> None:
    worker, server = stage.add("worker"), stage.add("server")
    part = stage.parts.parts[0]
    start, part.start = part.start, full  # type: ignore[assignment]
    worker.kill()
    worker.wait()
    now, pauses = part.since, []
    for _ in range(3):
        stage.parts.watch(now)
        assert part.due is not None
        pauses.append(part.due - now)
        now = part.due
    assert pauses == pytest.approx([1, 2, 4])
    assert "could not be started: [Errno 28] No space left on device; it restarts" in stage.said[-1]
    assert server.poll() is None
    part.start = start
    stage.parts.watch(now)
    assert stage.said[-1] == "the worker is started again"
    assert is_up(stage.note, "worker")


def test_what_comes_before_a_restart_keeps_no_other_part_waiting(stage: Stage) -> None:
    """As a Prefect server that hangs, while the runs of a worker are looked after."""
    worker, server = stage.add("worker"), stage.add("server")
    ends, part = threading.Event(), stage.parts.parts[0]
    part.before = lambda: ends.wait(20) and None
    for process in (worker, server):
        process.kill()
        process.wait()
    now = time.monotonic()
    stage.parts.watch(now)
    stage.parts.watch(now + FIRST_SECONDS)
    assert stage.said[2:] == ["the server is started again"]
    ends.set()
    stage.parts.watch(now + FIRST_SECONDS)
    assert stage.said[3:] == ["the worker is started again"]


def test_a_server_that_hangs_at_the_first_look_keeps_no_other_part_waiting(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The HTTP server is up by then; no worker starts before runs were looked after."""
    server, ends = stage.add("server"), threading.Event()
    server.kill()
    server.wait()
    sleeper = stage.parts.parts[0].start
    monkeypatch.setattr(up, "_look_after_runs", lambda settings: ends.wait(20) and None)
    monkeypatch.setattr(up, "_start_worker", lambda *_: sleeper())
    monkeypatch.setattr(up, "_again", lambda *_: None)
    watch, told = stage.parts.watch, []

    def looks() -> None:
        watch(time.monotonic() + FIRST_SECONDS)
        told.append((stage.said[1:], is_up(stage.note, up.WORK)))
        if told[-1][1]:
            raise KeyboardInterrupt
        if stage.said[1:]:
            ends.set()

    monkeypatch.setattr(stage.parts, "watch", looks)
    with pytest.raises(KeyboardInterrupt):
        up._keep_working(home_at(tmp_path / "home"), stage.parts, "", None)
    again = ["the server is started again"]
    assert (again, False) in told
    assert told[-1] == (again, True)


def test_what_cannot_be_prepared_to_start_is_tried_again(stage: Stage) -> None:
    """`subprocess` says so by an error that is no `OSError`."""
    stage.add("worker")
    part, now = stage.parts.parts[0], time.monotonic()
    worker, part.due = part.process, now

    def refuse() -> NoReturn:
        raise subprocess.SubprocessError("Exception occurred in preexec_fn.")

    part.start = refuse
    stage.parts.watch(now)
    assert "could not be started: Exception occurred in preexec_fn.; it" in stage.said[-1]
    assert worker is not None
    worker.kill()
    worker.wait()


def test_what_dies_for_days_is_started_again(stage: Stage) -> None:
    stage.add("worker")
    part, now = stage.parts.parts[0], time.monotonic()
    part.start, part.due = full, now  # type: ignore[assignment]
    for _ in range(1100):
        assert part.due is not None
        stage.parts.watch(part.due)
    assert "restarts in 60 s" in stage.said[-1]


def test_a_note_that_could_not_be_written_is_written_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "atomic_write", full)
        worker = stage.add("worker")
        stage.parts.watch()
    assert (worker.poll(), is_up(stage.note, "worker")) == (None, False)
    stage.parts.watch()
    assert is_up(stage.note, "worker")


def test_a_prefect_server_that_no_command_would_find_is_stopped(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would hold the port that it is to be started on again."""
    made: list[subprocess.Popen[bytes]] = []

    def start_service(*_: object) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]))
        return made[-1]

    monkeypatch.setattr(up, "start_service", start_service)
    monkeypatch.setattr(up, "use_server", lambda *_: None)
    monkeypatch.setattr(up, "note_server", full)
    with pytest.raises(OSError, match="No space left"):
        up._prefect_part(home_at(tmp_path / "home"), stage.parts)
    assert made[0].poll() is not None


def test_what_cannot_be_said_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up.console, "print", lambda *_, **__: full())
    up._say("the worker is started again")


def test_stopping_stops_all(stage: Stage) -> None:
    made = [stage.add("a"), stage.add("b")]
    stage.parts.stop()
    assert [process.poll() is None for process in made] == [False, False]
    assert not stage.note.exists()


def test_a_pid_that_is_used_again_is_not_the_part(tmp_path: Path) -> None:
    note = tmp_path / "services.json"
    note.write_text(json.dumps({"worker": f"{os.getpid()}:1"}))
    assert not is_up(note, "worker")
    assert not is_up(note, "server")
    assert not is_up(tmp_path / "none.json", "worker")
