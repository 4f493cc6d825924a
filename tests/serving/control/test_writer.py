"""Writes in groups: none lost, each with its own result, nobody waits longer than said."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from serving.control.writer import GroupWriter, Late
from srghn.errors import LedgerError


def test_what_gathers_while_one_group_is_written_is_the_next_group() -> None:
    groups: list[int] = []

    def write(items: Sequence[int]) -> list[int | Exception]:
        groups.append(len(items))
        time.sleep(0.05)
        return [item * 2 if item != 7 else LedgerError("seven") for item in items]

    async def run() -> None:
        writer: GroupWriter[int, int] = GroupWriter(write, "test")
        results = await asyncio.gather(
            *(writer.put(n, 5.0) for n in range(20)), return_exceptions=True
        )
        assert isinstance(results[7], LedgerError)
        assert [r for n, r in enumerate(results) if n != 7] == [2 * n for n in range(20) if n != 7]
        writer.close()

    asyncio.run(run())
    assert groups == [1, 19]


def test_nobody_waits_longer_than_said_and_the_next_group_is_written() -> None:
    held, written = threading.Event(), []

    def write(items: Sequence[int]) -> list[int | Exception]:
        written.append(list(items))
        held.wait(5)
        return list(items)

    async def run() -> None:
        writer: GroupWriter[int, int] = GroupWriter(write, "test")
        first = asyncio.create_task(writer.put(1, 0.1))
        await asyncio.sleep(0.02)
        begun = time.monotonic()
        with pytest.raises(Late, match=r"longer than 0.1 s: another process may .* \(locked\)"):
            await writer.put(2, 0.1)
        with pytest.raises(Late):
            await first
        assert time.monotonic() - begun < 1
        held.set()
        assert await writer.put(3, 5.0) == 3
        writer.close()

    asyncio.run(run())
    assert written == [[1], [3]]  # the second gave up before its turn


def test_a_failure_is_everybodys_and_the_writer_goes_on() -> None:
    failures = [LedgerError("full"), ValueError("a bug")]

    def write(items: Sequence[int]) -> list[int | Exception]:
        if failures:
            raise failures.pop(0)
        return list(items)

    async def run() -> None:
        writer: GroupWriter[int, int] = GroupWriter(write, "test")
        for kind in (LedgerError, ValueError):
            with pytest.raises(kind):
                await writer.put(1, 5.0)
        assert await writer.put(2, 5.0) == 2
        writer.close()

    asyncio.run(run())


def test_after_a_group_of_several_the_next_one_gathers_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups: list[int] = []
    monkeypatch.setattr("serving.control.writer.APART", 0.2)

    def write(items: Sequence[int]) -> list[int | Exception]:
        groups.append(len(items))
        time.sleep(0.02)
        return list(items)

    async def run() -> None:
        writer: GroupWriter[int, int] = GroupWriter(write, "test")
        await asyncio.gather(*(writer.put(n, 5.0) for n in range(6)))
        later = [asyncio.create_task(writer.put(6, 5.0))]
        for _ in range(5):
            await asyncio.sleep(0)
        later.append(asyncio.create_task(writer.put(7, 5.0)))
        await asyncio.gather(*later)
        monkeypatch.setattr("serving.control.writer.APART", 60)
        await writer.put(8, 5.0)  # alone: neither the next one waits nor the one after it
        await writer.put(9, 5.0)
        await writer.put(10, 5.0)
        writer.close()

    asyncio.run(run())
    assert groups == [1, 5, 2, 1, 1, 1]
