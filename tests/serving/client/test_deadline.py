"""The network of the sync client: lookups end at the deadline, all else is as httpx has it."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import serving.client
from serving.client import AsyncClient, Client, NotAnswered, Refused
from serving.client.deadline import _address
from tests.serving.test_transport import certificate


def once(attempt: int, last: Any) -> float:
    """No second attempt: the deadline could cut it off, and its error would be told."""
    return 60.0


class Server(ThreadingHTTPServer):
    """Answers everything with an action, also as a proxy; notes connections and targets."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.connections = 0
        self.seen: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def encrypt(self, folder: Path) -> Path:
        """Speak TLS from now on; returns the certificate to trust."""
        trusted, key = certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(trusted, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        return trusted

    def get_request(self) -> Any:
        found = super().get_request()
        self.connections += 1
        return found

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none."""


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(self.path)
        content = json.dumps({"action": 1}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_CONNECT(self) -> None:
        self.server.seen.append(self.path)
        self.send_error(403)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with Server() as made:
        yield made
        made.shutdown()


class Names:
    """`socket.getaddrinfo`: names have these addresses, and are looked up when `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.asked, self.go = 0, threading.Event()
        self._real, self._addresses = socket.getaddrinfo, addresses
        monkeypatch.setattr(socket, "getaddrinfo", self._find)

    def _find(self, host: Any, port: Any, *given: Any, **more: Any) -> Any:
        if host != "server.test":
            return self._real(host, port, *given, **more)
        self.asked += 1
        self.go.wait(20)
        return [found for one in self._addresses for found in self._real(one, port, type=1)]


def test_a_deadline_ends_a_lookup_and_later_calls_wait_for_the_same_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, "127.0.0.1")
    begun = time.monotonic()
    with Client(f"http://server.test:{server.port}", deadline=0.1) as client:
        for _ in range(5):
            with pytest.raises(NotAnswered, match=r"within 0\.1 s; ConnectTimeout: no address of "):
                client.act([0.0])
        assert time.monotonic() - begun < 3.0
        assert names.asked == 1
        names.go.set()
        assert client.act([0.0], deadline=20) == 1
        assert client.act([0.0], deadline=20) == 1
    assert server.connections == 1


def test_a_name_that_is_not_found_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", find)
    monkeypatch.setattr("serving.client.http.pause", once)
    with (
        Client("http://server.test") as client,
        pytest.raises(NotAnswered, match=r"ConnectError: .*Name or service not known"),
    ):
        client.act([0.0], deadline=1.0)


@pytest.mark.parametrize("silent", [False, True])
def test_a_dead_address_leaves_time_for_the_next(
    server: Server, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    with closing(socket.socket()) as dead, closing(socket.socket()) as first:
        if silent:  # its queue is full, so that it takes no connection and refuses none
            dead.bind(("127.0.0.2", server.port))
            dead.listen(0)
            first.connect(dead.getsockname())
        Names(monkeypatch, "127.0.0.2", "127.0.0.1").go.set()
        with Client(f"http://server.test:{server.port}") as client:
            assert client.act([0.0], deadline=4) == 1


def test_an_address_of_one_link_keeps_its_link() -> None:
    assert _address("fe80::1", 80, 0, 3) == "fe80::1%3"
    assert _address("::1", 80, 0, 0) == "::1"
    assert _address("127.0.0.1", 80) == "127.0.0.1"


def test_connections_are_kept_over_tls_and_its_name_is_the_url_s(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(server.encrypt(tmp_path)))
    with Client(f"https://localhost:{server.port}", deadline=20) as client:
        assert [client.act([0.0]) for _ in range(3)] == [1, 1, 1]
    assert server.connections == 1
    Names(monkeypatch, "127.0.0.1").go.set()
    monkeypatch.setattr("serving.client.http.pause", once)
    with (
        Client(f"https://server.test:{server.port}") as client,
        pytest.raises(NotAnswered, match="certificate is not valid for"),
    ):
        client.act([0.0], deadline=1.0)


def test_the_environment_s_proxies_are_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = f"127.0.0.1:{server.port}"
    monkeypatch.setenv("http_proxy", f"http://me:secret@{there}")
    monkeypatch.setenv("all_proxy", there)
    with Client("http://server.test:81", deadline=20) as client:
        assert client.act([0.0]) == 1
    with monkeypatch.context() as here:
        here.setattr("serving.client.http.pause", once)
        with Client("https://server.test") as asks, pytest.raises(NotAnswered, match="ProxyError"):
            asks.act([0.0], deadline=1.0)
    assert server.seen == ["http://server.test:81/v1/act", "server.test:443"]
    for bypassed in ("server.test", f"127.0.0.1, server.test:{server.port}", ".test", "*"):
        monkeypatch.setenv("no_proxy", bypassed)
        with monkeypatch.context() as here:
            Names(here, "127.0.0.1").go.set()
            with Client(f"http://server.test:{server.port}", deadline=20) as client:
                assert client.act([0.0]) == 1
        assert server.seen[-1] == "/v1/act"


def test_a_socks_proxy_without_its_package_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    monkeypatch.setattr("serving.client.deadline.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install 'httpx"):
        Client("http://server.test")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", "http://\x00", ""])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_url_that_no_request_can_be_sent_to_is_refused_at_once(kind: Any, url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        kind(url)


def test_the_client_has_only_what_httpx_and_httpcore_publish() -> None:
    for path in Path(serving.client.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
                assert ast.unparse(node.value) == "self"


def test_an_odd_retry_after_is_no_failure() -> None:
    """A superscript is a digit to Python, but no number."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for status in (b"503 Busy", b"422 Wrong"):
                line, _ = listening.accept()
                with suppress(OSError), line:
                    line.recv(65_536)
                    head = b"HTTP/1.1 %b\r\nretry-after: \xb2\r\nconnection: close\r\n" % status
                    line.sendall(head + b"content-length: 2\r\n\r\n{}")

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with Client(url, deadline=20) as client, pytest.raises(Refused):
            client.act([0.0])
