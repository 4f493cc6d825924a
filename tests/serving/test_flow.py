"""A client that does not take its answers costs a bounded memory for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.limits import Limits
from serving.protocol import REPLY, GuardedProtocol
from tests.serving.conftest import Home, maker, run_server
from tests.serving.test_serving_process import ready, wait_for
from tests.serving.wires import ASK, Wire, connector, run

BODY = b'{"observation": [0, 0, 1, 0]}'
ACT = b"POST /v1/act HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    scope["extensions"][REPLY](200, b"", scope["path"].encode())


def played(play: Callable[[GuardedProtocol, Wire, list[str]], Any], **options: Any) -> list[str]:
    """What is noted of one connection, which has 0.2 s to take its answers."""

    async def work() -> list[str]:
        notes: list[str] = []
        made = connector(app, notes, Limits(answer_seconds=0.2), **options)()
        assert isinstance(made.transport, Wire)
        await play(made, made.transport, notes)
        made.connection_lost(None)
        assert made._taking is None
        return notes

    return run(work())


def test_what_was_pipelined_waits_until_the_answers_are_taken() -> None:
    async def play(made: GuardedProtocol, wire: Wire, notes: list[str]) -> None:
        made.data_received(ASK % 1)
        await asyncio.sleep(0.01)
        wire.left = 100
        made.pause_writing()
        assert made.flow.read_paused
        made.data_received(ASK % 2 + ASK % 3 + ASK % 4)  # was read before the pause
        await asyncio.sleep(0.05)
        assert notes == ["wrote 1"]
        wire.left = 0
        made.resume_writing()
        await asyncio.sleep(0.05)
        assert not made.flow.read_paused
        made.data_received(ASK % 5)
        await asyncio.sleep(0.3)  # the time of before has no effect any more

    assert played(play) == [f"wrote {number}" for number in (1, 2, 3, 4, 5)]


def test_a_pause_between_two_pipelined_requests_keeps_the_second() -> None:
    async def play(made: GuardedProtocol, wire: Wire, notes: list[str]) -> None:
        write = wire.write

        def full(data: Any) -> None:
            write(data)
            if not made.flow.write_paused:
                wire.left = 100
                made.pause_writing()

        wire.write = full  # type: ignore[method-assign]
        made.data_received(ASK % 1 + ASK % 2 + ASK % 3)
        for count in (1, 2, 3):
            await asyncio.sleep(0.02)
            assert len(notes) == count
            assert made.flow.read_paused
            wire.left = 0
            made.resume_writing()

    assert played(play) == ["wrote 1", "wrote 2", "wrote 3"]


@pytest.mark.parametrize("how", ["paused", "idle", "shutdown", "turned away", "ended"])
def test_a_client_that_takes_nothing_is_cut(how: str) -> None:
    async def play(made: GuardedProtocol, wire: Wire, notes: list[str]) -> None:
        made.data_received(ASK % 1)
        await asyncio.sleep(0.01)
        wire.left = 100
        if how == "paused":
            made.pause_writing()
        elif how == "shutdown":
            made.shutdown()
        elif how == "turned away":
            made.data_received(b"no HTTP\r\n\r\n")
        elif how == "ended":
            assert not made.eof_received()
        await asyncio.sleep(0.15)
        assert "cut" not in notes
        await asyncio.sleep(0.3)
        assert notes[-1] == "cut"

    played(play, timeout_keep_alive=0.05 if how == "idle" else 5)


@pytest.mark.parametrize("how", ["time", "bytes"])
def test_what_comes_after_the_last_answer_is_ignored_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("serving.protocol._IGNORED_SECONDS", 0.05 if how == "time" else 60)
    monkeypatch.setattr("serving.protocol._IGNORED_BYTES", 1000)

    async def play(made: GuardedProtocol, wire: Wire, notes: list[str]) -> None:
        made.data_received(ASK % 1)
        await asyncio.sleep(0.01)
        made.data_received(b"no HTTP\r\n\r\n")
        assert wire.ended
        for _ in range(10):
            assert not wire.is_closing()
            made.data_received((ASK % 2).ljust(100, b"x"))
        if how == "time":
            await asyncio.sleep(0.3)
        else:
            made.data_received(b"x")
        assert wire.is_closing()
        assert notes == ["wrote 1"]

    played(play)


def test_what_is_ignored_has_one_time_limit() -> None:
    """A request behind the refused one, in the same piece, took it away, for good."""

    async def play(made: GuardedProtocol, wire: Wire, notes: list[str]) -> None:
        made.data_received(ASK % 1)
        await asyncio.sleep(4.9)
        many = b"GET /2 HTTP/1.1\r\n" + b"a: b\r\n" * (made.limits.headers + 1) + b"\r\n"
        made.data_received(many + ASK % 3)
        assert wire.ended
        await asyncio.sleep(1.9)
        assert not wire.is_closing()  # though it would have been closed as idle before
        await asyncio.sleep(0.2)
        assert wire.is_closing()
        assert notes == ["wrote 1"]

    played(play)


def test_what_was_asked_for_before_a_request_that_is_cut_off_is_answered() -> None:
    async def later(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(1)
        scope["extensions"][REPLY](200, b"", scope["path"].encode())

    async def play() -> None:
        for rest in (b"POST /2 HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf", b"POST /2 HT"):
            notes: list[str] = []
            made = connector(later, notes)()
            made.data_received(ASK % 1 + rest)
            assert made.eof_received()
            await asyncio.sleep(4)
            assert notes == ["wrote 1"]
            assert made.transport.is_closing()
            made.connection_lost(None)

    run(play())


def test_a_client_that_takes_much_slowly_is_not_cut() -> None:
    async def play(made: GuardedProtocol, wire: Wire, notes: list[str]) -> None:
        made.data_received(ASK % 1)
        await asyncio.sleep(0.01)
        wire.left = 300_000
        made.pause_writing()
        for _ in range(4):
            await asyncio.sleep(0.12)
            wire.left -= 70_000
        assert "cut" not in notes
        await asyncio.sleep(0.5)
        assert "cut" in notes

    played(play)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("flow")
    made = Home(folder / "home", maker(folder))
    made.first()
    yield made
    made.ledger.close()


@contextlib.contextmanager
def serving(home: Home, seconds: float) -> Iterator[tuple[tuple[str, int], Any]]:
    with run_server(home, environment={"SRGHN_LIMIT_ANSWER_SECONDS": str(seconds)}) as (url, made):
        wait_for(ready(url))
        host, port = url.removeprefix("http://").split(":")
        yield (host, int(port)), made


def memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return float(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


@pytest.mark.services
def test_a_client_that_never_reads_does_not_fill_the_server(home: Home) -> None:
    with serving(home, 2.0) as (address, process):
        before, sent = memory(process.pid), 0
        with socket.create_connection(address, timeout=30) as opened:
            until = time.monotonic() + 25
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < until:
                    sent += opened.send(ACT * 100)
            assert time.monotonic() < until, "it was not cut"
        assert memory(process.pid) - before < 60
        assert sent < 30_000_000
        live = httpx.get(f"http://{address[0]}:{address[1]}/health/live", timeout=5)
        assert live.status_code == 200


@pytest.mark.services
def test_the_server_stops_though_a_client_never_reads(home: Home) -> None:
    with serving(home, 2.0) as (address, process), socket.create_connection(address) as opened:
        opened.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while True:
                opened.sendall(ACT * 100)
        process.terminate()
        assert process.wait(15) == 0


@pytest.mark.services
def test_a_client_that_reads_late_gets_every_answer_in_order(home: Home) -> None:
    left = ACT.replace(b"1, 0", b"-1,0")
    count = 20_000
    with serving(home, 10.0) as (address, _), socket.create_connection(address) as opened:
        opened.settimeout(60)
        writing = threading.Thread(target=opened.sendall, args=((ACT + left) * (count // 2),))
        writing.start()
        time.sleep(1)
        found, tail = [], b""
        while len(found) < count:
            chunk = opened.recv(1 << 20)
            assert chunk
            parts = (tail + chunk).split(b'"action":')
            found += [part[:1] for part in parts[1:] if part]
            tail = parts[-1][-20:] if b'"action":' not in parts[-1] else b""
            if not parts[-1]:
                tail = b'"action":'
        writing.join()
    assert found == [b"1", b"0"] * (count // 2)
