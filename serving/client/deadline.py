"""One deadline for a whole call of `httpx.Client`.

httpx's timeouts are for each operation: a server that sends a byte now and then never meets them,
and no timeout ends a lookup of the server's name. Here every operation of a call gets only what is
left until its deadline, which costs a few microseconds. A name is looked up in a thread, because
nothing can interrupt that; a call leaves it behind at its deadline.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from serving.client.rules import Answer

#: Bytes that are written at once; a server may take them as slowly as it sends.
_CHUNK = 65_536
#: httpx's own limits: connections, idle ones among them, and seconds that one may be idle.
_CONNECTIONS, _IDLE, _IDLE_SECONDS = 100, 20, 5.0
_FAILURES = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
)


class Deadline(threading.local):
    """When the call of this thread must be over, by `time.monotonic`."""

    until = math.inf

    def left(self, timeout: float | None, late: type[httpcore.TimeoutException]) -> float:
        """Seconds for one operation; raises `late` if none is left."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise late("the deadline has passed")
        return left if timeout is None else min(timeout, left)


class Transport(httpx.BaseTransport):
    """Sends the requests of an `httpx.Client` to one server; every operation ends at the deadline.

    Otherwise as httpx's own, which takes no network of ours: the environment's proxies and
    certificates, and connections that are kept.
    """

    def __init__(self, url: httpx.URL, deadline: Deadline) -> None:
        proxy = _proxy(url)
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            proxy=None if proxy is None else httpcore.Proxy(_core(proxy.url), proxy.raw_auth),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_IDLE,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=_Network(deadline),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            with self._pool.stream(
                request.method,
                _core(request.url),
                headers=request.headers.raw,
                content=request.read(),
                extensions=request.extensions,
            ) as found:
                answer = Answer(found.status, {})
                for part in found.iter_stream():
                    answer.add(part)
        except _FAILURES as error:  # httpx has each under the same name
            raise getattr(httpx, type(error).__name__)(str(error)) from error
        # httpx would decompress what comes with this header
        headers = [pair for pair in found.headers if pair[0].lower() != b"content-encoding"]
        return httpx.Response(
            answer.status,
            headers=headers,
            content=bytes(answer.content),
            extensions=found.extensions,
        )

    def close(self) -> None:
        self._pool.close()


def _core(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def _proxy(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy that the environment names for a URL; raises `ImportError` as httpx does."""
    named = getproxies()
    said = named.get(url.scheme) or named.get("all")
    if not said or proxy_bypass(url.host) or proxy_bypass(url.netloc.decode()):
        return None
    proxy = httpx.Proxy(said if "://" in said else f"http://{said}")
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ImportError(f"the proxy {proxy.url.host} needs socksio: pip install 'httpx[socks]'")
    return proxy


class _Network(httpcore.NetworkBackend):
    """Makes connections that observe a deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._inner, self._deadline = httpcore.SyncBackend(), deadline
        self._lock = threading.Lock()
        self._lookups: dict[tuple[str, int], Future[list[str]]] = {}

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._find(host, port, timeout)
        for others in reversed(range(len(addresses))):  # each gets its share of the time
            left = self._deadline.left(timeout, httpcore.ConnectTimeout) / (others + 1)
            try:
                made = self._inner.connect_tcp(
                    addresses[-1 - others], port, left, local_address, socket_options
                )
                return _Stream(made, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not others:
                    raise
        raise httpcore.ConnectError(f"{host} has no address")

    def _find(self, host: str, port: int, timeout: float | None) -> list[str]:
        """The addresses of a host; of one that is an address, itself."""
        try:
            ip_address(host)
        except ValueError:
            pass
        else:
            return [host]
        with self._lock:  # calls that come while a name is looked up wait for the same lookup
            found = self._lookups.get((host, port))
            if found is None or found.done():
                found = self._lookups[host, port] = _aside(lambda: _look_up(host, port))
        try:
            return found.result(self._deadline.left(timeout, httpcore.ConnectTimeout))
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"no address of {host} was found in time") from None
        except (OSError, UnicodeError) as error:  # the latter: a name with parts that are too long
            raise httpcore.ConnectError(str(error)) from error


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [_address(*where) for *_, where in found]


def _address(address: str, port: int, flow: int = 0, scope: int = 0) -> str:
    """An address as text; one of a single link has its number."""
    return f"{address}%{scope}" if scope else address


def _aside(work: Callable[[], list[str]]) -> Future[list[str]]:
    """Run it in a thread that does not keep the program from ending."""
    future: Future[list[str]] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 (whoever waits gets it)
            future.set_exception(error)

    threading.Thread(target=run, name="lookup", daemon=True).start()
    return future


class _Stream(httpcore.NetworkStream):
    """A connection that observes a deadline."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._deadline.left(timeout, httpcore.ReadTimeout)
        return self._inner.read(max_bytes, timeout=left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _CHUNK):
            left = self._deadline.left(timeout, httpcore.WriteTimeout)
            self._inner.write(buffer[start : start + _CHUNK], timeout=left)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout, httpcore.ConnectTimeout)
        made = self._inner.start_tls(ssl_context, server_hostname, left)
        return _Stream(made, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
