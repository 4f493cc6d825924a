"""A connection of the server's protocol without a socket: what it writes is noted.

Its event loop has a clock of its own, so that a busy machine is late for nothing.
"""

from __future__ import annotations

import asyncio
import re
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvicorn
from uvicorn.server import ServerState

from serving.limits import Limits
from serving.protocol import GuardedProtocol, guarded

ASK = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
Connect = Callable[[], GuardedProtocol]
T = TypeVar("T")


class Wire(asyncio.Transport):
    """A transport that notes what is written, and nothing after it is closed."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self._notes, self._closed, self.ended = notes, False, False
        self.left = 0  # bytes that the client has not taken

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return self._closed

    def write(self, data: Any) -> None:
        assert not self._closed
        assert not self.ended
        found = re.search(rb"(?<!HTTP)/(\d+)", bytes(data))  # a body; else it is a head
        if found:
            self._notes.append(f"wrote {found[1].decode()}")

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self._closed = True

    def abort(self) -> None:
        self._closed = True
        self._notes.append("cut")

    def get_write_buffer_size(self) -> int:
        return self.left

    def pause_reading(self) -> None:
        """Told so while pipelined requests wait."""

    def resume_reading(self) -> None:
        """Told so after the last of them."""


def connector(app: Any, notes: list[str], limits: Limits | None = None, **options: Any) -> Connect:
    """A function that opens a connection to an application; `options` are uvicorn's."""
    config = uvicorn.Config(app, lifespan="off", access_log=False, **options)
    config.load()
    protocol = guarded(limits or Limits(), None)

    def connect() -> GuardedProtocol:
        made = protocol(config=config, server_state=ServerState(), app_state={})
        made.connection_made(Wire(notes))
        return made

    return connect


class _Jumps(selectors.DefaultSelector):
    """Does not wait: its clock jumps to the moment until which it was to wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(None if timeout is None else 0)
        if timeout and not found:
            self.now += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now


def run(work: Coroutine[Any, Any, T]) -> T:
    """What `asyncio.run` returns, without waiting: its sleeps and timers take no time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
