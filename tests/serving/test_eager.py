"""A coroutine that never waits needs no task; one that does goes on in one, as if it always had."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from serving.eager import begin, in_task

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="outside")


def test_what_never_waits_is_done_at_once() -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def work() -> None:
            NAME.set("inside")
            seen.append("done")

        assert begin(work()) is None
        return [*seen, NAME.get()]

    assert asyncio.run(main()) == ["done", "outside"]


def test_what_waits_goes_on_in_a_task_with_its_context() -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []
        future = asyncio.get_running_loop().create_future()

        async def work() -> None:
            NAME.set("inside")
            seen.append(await future)
            await asyncio.sleep(0)
            async with asyncio.timeout(1):  # it has a current task by now
                await asyncio.sleep(0.001)
            seen.append(NAME.get())

        task = begin(work())
        assert task is not None
        assert not seen
        future.set_result(3)
        await task
        return seen

    assert asyncio.run(main()) == [3, "inside"]


def test_errors_and_cancellation_are_the_works_own() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        failed = asyncio.get_running_loop().create_future()

        async def catches() -> None:
            try:
                await failed
            except ValueError:
                seen.append("value")
            try:
                await asyncio.sleep(60)
            finally:
                seen.append("cancelled")

        async def fails() -> None:
            await asyncio.sleep(0)
            raise KeyError("x")

        task = begin(catches())
        assert task is not None
        failed.set_exception(ValueError())
        for _ in range(4):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        other = begin(fails())
        assert other is not None
        with pytest.raises(KeyError):
            await other
        return seen

    assert asyncio.run(main()) == ["value", "cancelled"]


def test_work_that_needs_a_task_gets_one() -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []

        async def current() -> object:
            return asyncio.current_task()

        async def work() -> None:
            seen.append(asyncio.current_task())
            seen.append(await in_task(current()))

        begun: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: begun.set_result(begin(work())))
        await (await begun)  # as a protocol begins it: in a callback, which is no task
        inside = await in_task(current())
        return [seen[0], seen[1] is not None, inside is asyncio.current_task()]

    assert asyncio.run(main()) == [None, True, True]
