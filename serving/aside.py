"""Long bodies: how many bytes of them a worker holds, and work on them beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serving.schemas import BadRequest

#: A longer body is unpacked and parsed in another thread: other requests are answered meanwhile.
LONG = 65_536

_working = ThreadPoolExecutor(1, thread_name_prefix="parsing")
T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """Do the work for a long body in the thread for it, one body after the other."""
    return await asyncio.get_running_loop().run_in_executor(_working, work)


class Room:
    """The bytes of long bodies that a worker may hold at once, over all connections."""

    def __init__(self, most: int) -> None:
        self.left = self._most = most

    def take(self, count: int) -> None:
        """Take room for so many bytes; raises `BadRequest` (503) if there is not enough."""
        if count > self.left:
            expected = f"bodies of at most {self._most} bytes in all at once"
            error = BadRequest(503, "body", expected, "more", hint="try again in a second")
            error.headers.append((b"retry-after", b"1"))
            raise error
        self.left -= count

    def give(self, count: int) -> None:
        self.left += count
