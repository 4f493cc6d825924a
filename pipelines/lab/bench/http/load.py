"""A load generator: connections that send a request, wait for the answer, and repeat.

It counts answers and the CPU time of the server's processes, so the ratio of two servers is valid
on a busy machine too. A client is a function from the last answer's body to the next request.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

Client = Callable[[bytes], bytes]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Rate:
    """The result of one load."""

    requests: int
    cpu_seconds: float
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_cpu_second(self) -> float:
        return self.requests / max(self.cpu_seconds, 1e-9)


class Refused(RuntimeError):
    """The server answered with another status than 200, so the figures would be meaningless."""


def load(url: str, pids: list[int], clients: list[Client], seconds: float) -> Rate:
    """Let each client send requests over its own connection for `seconds` seconds."""
    host, _, port = url.removeprefix("http://").partition(":")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_load(host, int(port), pids, clients, seconds))


async def _load(
    host: str, port: int, pids: list[int], clients: list[Client], seconds: float
) -> Rate:
    loop = asyncio.get_running_loop()
    connections = []
    for client in clients:
        _, protocol = await loop.create_connection(lambda c=client: _Connection(c), host, port)  # type: ignore[misc]
        connections.append(protocol)
    await asyncio.sleep(seconds * 0.15)  # warm
    for connection in connections:
        connection.times.clear()
    begun, used = time.perf_counter(), cpu_seconds(pids)
    await asyncio.sleep(seconds)
    took, used = time.perf_counter() - begun, cpu_seconds(pids) - used
    times = sorted(taken for connection in connections for taken in connection.times)
    for connection in connections:
        connection.close()
    failed = next((c.failure for c in connections if c.failure), None)
    if failed is not None or not times:
        raise Refused(f"{host}:{port} answered: {failed or 'nothing'}")
    return Rate(
        len(times),
        used,
        took,
        1e3 * times[len(times) // 2],
        1e3 * times[min(len(times) - 1, int(len(times) * 0.99))],
    )


class _Connection(asyncio.Protocol):
    """One keep-alive connection; answers have a Content-Length."""

    def __init__(self, client: Client) -> None:
        self.times: list[float] = []
        self.failure: str | None = None
        self._client, self._buffer, self._closed = client, b"", False
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask(b"")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lowered = head.lower()
        start = lowered.index(b"content-length:") + 15
        length = int(lowered[start:].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self._buffer = b""
        self.times.append(time.perf_counter() - self._sent)
        if not head.startswith(b"HTTP/1.1 200"):
            self.failure = (head[:40] + b" " + rest[:200]).decode("latin-1")
            self.close()
            return
        self._ask(rest)

    def close(self) -> None:
        self._closed = True
        assert self._transport is not None
        self._transport.close()

    def _ask(self, answer: bytes) -> None:
        assert self._transport is not None
        if not self._closed:
            request = self._client(answer)
            self._sent = time.perf_counter()
            self._transport.write(request)


def cpu_seconds(pids: list[int]) -> float:
    """CPU seconds (user and system) that processes have used, over all their threads."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def children_of(pid: int) -> list[int]:
    """A process's children: a server's workers."""
    return [
        int(child)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    ]
