"""Writes of running episodes, in groups: what arrives together shares a commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
#: Items of one transaction: a group's commit must stay short for those who wait for the next.
MOST = 256


class Late(LedgerError):
    """The ledger took longer than anybody waits for it."""


class GroupWriter(Generic[Item, Result]):
    """Hands items to `write`, a group at a time, in one thread of its own.

    While a group is being written the next one gathers, so that a group is as large as the load
    makes it and nobody waits for a group to fill. Used from one event loop.
    """

    def __init__(
        self, write: Callable[[Sequence[Item]], Sequence[Result | Exception]], name: str
    ) -> None:
        self._write = write
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._busy = False

    async def put(self, item: Item, seconds: float) -> Result:
        """The result for one item. Raises what `write` gave for it, or `Late` after `seconds`."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        entry = (item, future)
        self._waiting.append(entry)
        if not self._busy:
            self._begin()
        done, _ = await asyncio.wait([future], timeout=seconds)
        if not done:
            future.cancel()
            if entry in self._waiting:
                self._waiting.remove(entry)
            raise Late(f"the ledger took longer than {seconds:g} s")
        return future.result()

    def close(self) -> None:
        self._executor.shutdown(wait=True)

    def _begin(self) -> None:
        group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        self._busy = True
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._executor, self._try, [item for item, _ in group])
        running.add_done_callback(lambda done: self._end(group, done.result()))

    def _try(self, items: list[Item]) -> Sequence[Result | Exception]:
        try:
            return self._write(items)
        except Exception as error:
            if not isinstance(error, LedgerError):
                logger.exception("a group of %s was not written", len(items))
            return [error] * len(items)

    def _end(
        self,
        group: list[tuple[Item, asyncio.Future[Result]]],
        results: Sequence[Result | Exception],
    ) -> None:
        for (_, future), result in zip(group, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._busy = False
        if self._waiting:
            self._begin()
