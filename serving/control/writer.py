"""Writes starts and outcomes of episodes in groups: those that arrive together share a commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Entry = tuple[Item, asyncio.Future[Result]]
#: Most items of one transaction, so that a commit stays short for the next group.
MOST = 256
#: Seconds until the next group begins, after one of several items: a commit costs as much for one
#: item as for ten.
APART = 0.003


class Late(LedgerError):
    """The ledger took longer than the request may wait, in seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the ledger took longer than {seconds:g} s: another process may hold it (locked)"
        )


class GroupWriter(Generic[Item, Result]):
    """Passes items to `write`, one group at a time, in a separate thread.

    While one group is being written, the next one collects. So the load decides the size of a
    group. An item that comes alone never waits for others; where several come at once, groups begin
    a little apart (as PostgreSQL's `commit_delay` does). Used from one event loop.
    """

    def __init__(
        self, write: Callable[[Sequence[Item]], Sequence[Result | Exception]], name: str
    ) -> None:
        self._write = write
        self._waiting: list[Entry[Item, Result]] = []
        self._busy = False
        # An executor's future costs as much as a write, so the thread gets lists instead.
        self._groups: SimpleQueue[tuple[asyncio.AbstractEventLoop, list[Any]] | None] = (
            SimpleQueue()
        )
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def put(self, item: Item, seconds: float) -> Result:
        """The result for one item. Raises its error from `write`, or `Late` after `seconds`."""
        future = self.post(item)
        entry = (item, future)
        timer = future.get_loop().call_later(seconds, self._give_up, entry, seconds)
        try:
            return await future
        finally:
            timer.cancel()

    def post(self, item: Item) -> asyncio.Future[Result]:
        """Give an item to the next group, for a caller that does not wait; returns its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if not self._busy:
            self._begin(loop)
        return future

    def close(self) -> None:
        """Wait for the group that is being written; items of later groups are not written."""
        self._groups.put(None)
        self._thread.join()

    def _give_up(self, entry: Entry[Item, Result], seconds: float) -> None:
        if entry in self._waiting:
            self._waiting.remove(entry)
        if not entry[1].done():
            entry[1].set_exception(Late(seconds))

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        self._busy = True
        self._groups.put((loop, group))

    def _work(self) -> None:
        while (given := self._groups.get()) is not None:
            loop, group = given
            results = self._try([item for item, _ in group])
            with contextlib.suppress(RuntimeError):  # the loop has ended, so nobody waits
                loop.call_soon_threadsafe(self._end, loop, group, results)

    def _try(self, items: list[Item]) -> Sequence[Result | Exception]:
        try:
            return self._write(items)
        except Exception as error:
            if not isinstance(error, LedgerError):
                logger.exception("a group of %s was not written", len(items))
            return [error] * len(items)

    def _end(
        self,
        loop: asyncio.AbstractEventLoop,
        group: list[Entry[Item, Result]],
        results: Sequence[Result | Exception],
    ) -> None:
        for (_, future), result in zip(group, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        if len(group) > 1:
            loop.call_later(APART, self._next, loop)
        else:
            self._next(loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._busy = False
        if self._waiting:
            self._begin(loop)
