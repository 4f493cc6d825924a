"""A connection's cost is bounded: slow, endless and too many requests are turned away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.protocol import REPLY
from tests.serving.conftest import Home, maker, run_server
from tests.serving.test_serving_process import ready, wait_for
from tests.serving.wires import connector

pytestmark = pytest.mark.services

BODY = b'{"observation": [0, 0, 1, 0]}'
ASK = b"POST /v1/act HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
LIMITS = {
    "SRGHN_LIMIT_CONNECTIONS": "8",
    "SRGHN_LIMIT_RESERVED_CONNECTIONS": "2",
    "SRGHN_LIMIT_HEAD_SECONDS": "0.5",
    "SRGHN_LIMIT_BODY_SECONDS": "0.5",
    "SRGHN_LIMIT_HEADERS": "20",
    "SRGHN_LIMIT_HEAD_BYTES": "2000",
    "SRGHN_LIMIT_START_SECONDS": "20",  # a busy machine writes slowly
    "SRGHN_LIMIT_LOCK_SECONDS": "20",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A server with small limits."""
    folder = tmp_path_factory.mktemp("protocol")
    home = Home(folder / "home", maker(folder))
    home.first()
    with run_server(home, environment=LIMITS) as (url, _):
        wait_for(ready(url))
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)
    home.ledger.close()


def answer(address: tuple[str, int], *parts: bytes, pause: float = 0.0) -> bytes:
    """What a connection answers in all, until it is closed."""
    with socket.create_connection(address, timeout=10) as opened:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                opened.sendall(part)
                time.sleep(pause)
        found = b""
        with contextlib.suppress(ConnectionError):
            while chunk := opened.recv(65536):
                found += chunk
    return found


def ask(address: tuple[str, int], data: bytes = ASK) -> bytes:
    with socket.create_connection(address, timeout=10) as opened:
        opened.sendall(data)
        return opened.recv(65536)


def ask_in_parts(address: tuple[str, int], *parts: bytes) -> bytes:
    with socket.create_connection(address, timeout=10) as opened:
        for part in parts:
            opened.sendall(part)
            time.sleep(0.02)  # all of it well within the half second that a body may take
        return opened.recv(65536)


@pytest.mark.parametrize(
    "parts",
    [
        (b"",),
        (b"POST /v1/act HTTP/1.1\r\nHost",),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n", b"c: d\r\n", b"e: f\r\n", b"g: h\r\n", b"i: j\r\n"),
    ],
)
def test_a_head_that_is_late_ends_the_connection(
    address: tuple[str, int], parts: tuple[bytes, ...]
) -> None:
    begun = time.monotonic()
    assert answer(address, *parts, pause=0.2 if len(parts) > 1 else 0.0).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - begun < 3
    assert ask(address).startswith(b"HTTP/1.1 200")


def test_a_body_that_is_late_ends_the_connection(address: tuple[str, int]) -> None:
    assert answer(address, ASK[:-5]).startswith(b"HTTP/1.1 408")
    early = b"POST /v1/act HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
    assert answer(address, early).startswith(b"HTTP/1.1 413")  # answered, then it is waited for


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\n" + b"a: b\r\n" * 30,
        b"GET /health/live HTTP/1.1\r\nx: " + b"y" * 3000,
        b"GET /" + b"y" * 3000 + b" HTTP/1.1\r\n",
    ],
)
def test_a_head_that_is_too_long_is_refused(address: tuple[str, int], head: bytes) -> None:
    assert answer(address, head + b"\r\n\r\n").startswith(b"HTTP/1.1 431")


CHUNKS = b"POST /v1/act HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("trailer", [b"a: b\r\n" * 1000, b"a: " + b"b" * 5000])
def test_what_follows_a_body_in_chunks_is_bounded_too(
    address: tuple[str, int], trailer: bytes
) -> None:
    whole = CHUNKS + b"1d\r\n" + BODY + b"\r\n"
    ended = answer(address, whole, b"0\r\n", trailer, pause=0.02)
    assert ended.startswith(b"HTTP/1.1 431")
    chunks = [b"1\r\n \r\n" * 300] * 4
    ended = answer(address, CHUNKS, *chunks, b"0\r\n", trailer, pause=0.02)
    assert ended.startswith(b"HTTP/1.1 431")
    short = ask(address, whole + b"0\r\nx-request-id: late\r\n\r\n")
    assert short.startswith(b"HTTP/1.1 200")
    assert b"late" not in short  # it is no header


def test_a_body_in_chunks_of_one_byte_is_taken(address: tuple[str, int]) -> None:
    longer = BODY[:-1] + b" " * 900 + b"}"
    parts = [b"1\r\n%c\r\n" % byte for byte in longer]
    assert ask(address, CHUNKS + b"".join(parts) + b"0\r\n\r\n").startswith(b"HTTP/1.1 200")
    slow = [b"".join(parts[i : i + 300]) for i in range(0, len(parts), 300)]
    assert ask_in_parts(address, CHUNKS, *slow, b"0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_too_many_connections_are_turned_away_and_health_still_answers(
    address: tuple[str, int],
) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(8)]
        for opened in idle:
            opened.sendall(ASK)
            assert opened.recv(4096).startswith(b"HTTP/1.1 200")
        refused = ask(address)
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in refused
        live = ask(address, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert live.startswith(b"HTTP/1.1 200")
        more = [stack.enter_context(socket.create_connection(address)) for _ in range(2)]
        assert more
        assert ask(address).startswith(b"HTTP/1.1 503")
    wait_for(lambda: ask(address).startswith(b"HTTP/1.1 200"))
    metrics = httpx.get(f"http://{address[0]}:{address[1]}/metrics").text
    assert "srghn_refused_connections_total 0.0" not in metrics


def test_pipelined_requests_are_answered_in_their_order(address: tuple[str, int]) -> None:
    left = BODY.replace(b"1, 0", b"-1,0")
    with socket.create_connection(address, timeout=10) as opened:
        opened.sendall(ASK + ASK.replace(BODY, left) + ASK)
        found = b""
        while found.count(b'"action"') < 3:
            found += opened.recv(65536)
    actions = [part[:2] for part in found.split(b'"action":')[1:]]
    assert actions == [b"1,", b"0,", b"1,"]


#: What no request may be: bytes, the status of the answer to them.
WRONG = {
    "no HTTP": (b"no HTTP\r\n\r\n", b"400"),
    "a tunnel": (b"CONNECT x:80 HTTP/1.1\r\n\r\n", b"405"),
    "many headers": (b"GET / HTTP/1.1\r\n%b\r\n" % (b"a: b\r\n" * 30), b"431"),
    "a slow head": (b"GET / HTTP/1.1\r\n", b"408"),
    "a slow body": (ASK[:-3], b"408"),
    "a bad chunk": (
        b"POST /v1/act HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\nx\r\n",
        b"400",
    ),
}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_came_before_a_wrong_request_is_answered_first(
    address: tuple[str, int], wrong: str, more: int, apart: bool
) -> None:
    """Its refusal was taken for the answer to the first, which was worked on and got none."""
    body = b'{"observation":[0,0,1,0],"episode_id":"%b"}' % os.urandom(8).hex().encode()
    waits = b"POST /v1/act HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    data, status = WRONG[wrong]
    first = waits + ASK * more  # the first is answered once it is in the ledger
    found = answer(address, first, data) if apart else answer(address, first + data)
    codes = [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]]
    assert codes == [b"200"] * (1 + more) + [status]
    assert found.count(b'"action":1') == 1 + more
    assert found.count(b'"token"') == 1


LONG = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (ASK + ASK + b"no HTTP\r\n\r\n", [b"200", b"200", b"400"]),
        (b"POST /v1/act" + LONG, [b"413"]),
        (b"POST /nowhere" + LONG, [b"404"]),
    ],
)
def test_a_client_that_goes_on_sending_reads_its_answers(
    address: tuple[str, int], data: bytes, statuses: list[bytes]
) -> None:
    """The system reset its connection, and threw away what it had not read."""
    with socket.create_connection(address, timeout=10) as opened:
        opened.sendall(data)
        time.sleep(0.2)
        for _ in range(5):
            opened.sendall(b"x" * 50_000)
            time.sleep(0.02)
        found = b""
        while chunk := opened.recv(65536):
            found += chunk
    assert [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]] == statuses


@pytest.mark.parametrize("last", [b"", ASK, b"no HTTP\r\n\r\n", ASK[:-3], ASK[:20]])
def test_a_client_that_sends_no_more_gets_its_answers(
    address: tuple[str, int], last: bytes
) -> None:
    """An episode was begun and its first answer was not sent."""
    body = b'{"observation":[0,0,1,0],"episode_id":"%b"}' % os.urandom(8).hex().encode()
    head = b"POST /v1/act HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(address, timeout=10) as opened:
        opened.sendall(head + body + last)
        opened.shutdown(socket.SHUT_WR)
        found = b""
        while chunk := opened.recv(65536):
            found += chunk
    statuses = [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]]
    refused = last.startswith(b"no") or last == ASK[:-3]
    assert statuses == [b"200"] + [b"200"] * (last == ASK) + [b"400"] * refused
    assert b'"token"' in found


def test_a_connection_that_asks_to_be_closed_is(address: tuple[str, int]) -> None:
    close = ASK.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
    found = answer(address, close)
    assert found.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in found


def test_workers_go_with_a_parent_that_is_killed_and_are_begun_again(home: Any) -> None:
    home.first()
    with run_server(home, "--workers", "2") as (url, process):
        wait_for(ready(url))
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        first = [int(pid) for pid in listed.read_text().split()]
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        wait_for(
            lambda: len(listed.read_text().split()) == 2 and str(first[0]) not in listed.read_text()
        )
        workers = [int(pid) for pid in listed.read_text().split()]
        process.kill()
        process.wait(10)
        wait_for(lambda: not any(_runs(pid) for pid in workers))
        host, port = url.removeprefix("http://").split(":")
        wait_for(lambda: not _listens(host, int(port)))


def _listens(host: str, port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex((host, port)) == 0


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("kind", [b"websocket", b"h2c"])
def test_a_request_to_upgrade_is_answered_as_any_other(
    address: tuple[str, int], kind: bytes
) -> None:
    head = b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + kind
    head += b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    for path, status in ((b"/health/live", b"200"), (b"/v1/act", b"405"), (b"/ws", b"404")):
        found = ask(address, b"GET " + path + head)
        assert found.startswith(b"HTTP/1.1 " + status)
        assert b"content-type: application/json" in found


def wishing(body: bytes, lines: bytes = b"") -> bytes:
    """As curl --http2 and Java's HTTP client send a request to a server that they do not know."""
    head = b"POST /v1/act HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    head += b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    return head + (lines or b"Content-Length: %d\r\n" % len(body)) + b"\r\n" + body


def test_a_wish_for_http_2_loses_no_body_and_no_later_request(address: tuple[str, int]) -> None:
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    whole = wishing(BODY)
    for parts in (
        [whole],
        [whole[: -len(BODY)], BODY],
        [whole[:70], whole[70:-5], whole[-5:]],
        [wishing(chunked, b"Transfer-Encoding: chunked\r\n")],
        [whole * 500],
    ):
        with socket.create_connection(address, timeout=10) as opened:
            for part in parts:
                opened.sendall(part)
                time.sleep(0.05)
            opened.sendall(ASK)
            wanted, found = b"".join(parts).count(b"POST") + 1, b""
            while found.count(b'"action":1') < wanted:
                more = opened.recv(65536)
                assert more, found
                found += more
        assert found.count(b"HTTP/1.1 200") == wanted
        assert found.count(b"HTTP/1.1 ") == wanted


def test_a_tunnel_is_refused(address: tuple[str, int]) -> None:
    for target in (b"x:80", b"/v1/act"):
        found = answer(address, b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n" + ASK)
        assert found.startswith(b"HTTP/1.1 405")
        assert found.count(b"HTTP/1.1") == 1


def test_what_is_no_http_is_refused_in_json(address: tuple[str, int]) -> None:
    found = answer(address, b"no HTTP\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 400")
    assert found.endswith(b'{"error":"request: expected HTTP/1.1, got something else"}')


def test_a_client_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][REPLY](200, b"", b"")

    async def send() -> None:
        connect = connector(app, [], log_config=None)  # as the server has it
        for data in (
            b"no HTTP\r\n\r\n",
            b"\x16\x03\x01",
            wishing(b""),
            b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        ):
            connect().data_received(data)

    asyncio.run(send())
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
