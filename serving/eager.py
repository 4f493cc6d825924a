"""Runs a coroutine at once until it first waits; a coroutine that never waits needs no task.

A task costs as much as a small policy. Python 3.12 has eager tasks; 3.11 does not.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def begin(work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run `work` until it waits; returns the task that continues it, or None if it is done.

    Until then it has its own context and no current task, which `asyncio.timeout` and anyio need.
    Raises the error that `work` raises until then.
    """
    context = contextvars.copy_context()
    try:
        waits = context.run(work.send, None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(_go_on(work, waits), context=context)


async def in_task(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which needs a current task; one is made if there is none."""
    if asyncio.current_task() is not None:
        return await work
    context = contextvars.copy_context()
    try:
        return await asyncio.get_running_loop().create_task(work, context=context)
    finally:  # the server logs a failure with the request's id, which the work has set
        for variable, value in context.items():
            variable.set(value)


async def _go_on(work: Coroutine[Any, Any, None], waits: Any) -> None:
    await _Rest(work, waits)


class _Rest:
    """The rest of a waiting coroutine."""

    def __init__(self, work: Coroutine[Any, Any, None], waits: Any) -> None:
        self._work, self._waits = work, waits

    def __await__(self) -> Generator[Any, Any, None]:
        work, waits = self._work, self._waits
        step: Callable[[Any], Any]
        while True:
            try:
                given = yield waits
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 (a cancellation mostly: it is the work's)
                step, given = work.throw, error
            else:
                step = work.send
            try:
                waits = step(given)
            except StopIteration:
                return
