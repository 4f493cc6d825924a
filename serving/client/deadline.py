"""One deadline for a whole call of `httpx.Client`.

httpx's timeouts are for each operation: a server that sends a byte now and then never meets them.
Here every operation of a call gets only what is left until its deadline. That needs no thread, and
costs a few microseconds.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import httpx

#: Bytes that are written at once; a server may take them as slowly as it sends.
_CHUNK = 65_536


class Deadline(threading.local):
    """When the call of this thread must be over, by `time.monotonic`."""

    until = math.inf

    def left(self, timeout: float | None, late: type[httpx.TimeoutException]) -> float:
        """Seconds for one operation; raises `late` if none is left."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise late("the deadline has passed")
        return left if timeout is None else min(timeout, left)


def bound(http: httpx.Client, deadline: Deadline) -> None:
    """Have every operation of a client's connections end at the deadline.

    httpx has no public way to its connections. If a later version keeps them elsewhere, its own
    timeouts remain.
    """
    for transport in (http._transport, *http._mounts.values()):
        pool: Any = getattr(transport, "_pool", None)
        if hasattr(pool, "_network_backend"):
            pool._network_backend = _Network(pool._network_backend, deadline)


class _Network:
    """Makes connections, as `httpcore.NetworkBackend` does; `Client` has none but TCP."""

    def __init__(self, inner: Any, deadline: Deadline) -> None:
        self._inner, self._deadline, self.sleep = inner, deadline, inner.sleep

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, **more: Any
    ) -> _Stream:
        left = self._deadline.left(timeout, httpx.ConnectTimeout)
        made = self._inner.connect_tcp(host, port, timeout=left, **more)
        return _Stream(made, self._deadline)


class _Stream:
    """A connection, as `httpcore.NetworkStream` is one."""

    def __init__(self, inner: Any, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline
        self.close, self.get_extra_info = inner.close, inner.get_extra_info

    def read(self, max_bytes: int, timeout: float | None = None) -> Any:
        left = self._deadline.left(timeout, httpx.ReadTimeout)
        return self._inner.read(max_bytes, timeout=left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _CHUNK):
            left = self._deadline.left(timeout, httpx.WriteTimeout)
            self._inner.write(buffer[start : start + _CHUNK], timeout=left)

    def start_tls(self, *given: Any, timeout: float | None = None, **more: Any) -> _Stream:
        left = self._deadline.left(timeout, httpx.ConnectTimeout)
        return _Stream(self._inner.start_tls(*given, timeout=left, **more), self._deadline)
