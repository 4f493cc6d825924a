"""An idle connection is closed after its time, counted from its last answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serving.protocol import REPLY
from tests.serving.wires import ASK, connector, run


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/5":
        await asyncio.sleep(0.5)
    scope["extensions"][REPLY](200, b"", scope["path"].encode())


def closed_after(*asked: tuple[float, int]) -> float:
    """Seconds until a connection is closed that may be idle for 0.3 s and asks at these times."""

    async def play() -> float:
        loop = asyncio.get_running_loop()
        connection = connector(app, [], timeout_keep_alive=0.3)()
        begun = loop.time()
        for moment, number in asked:
            await asyncio.sleep(begun + moment - loop.time())
            assert not connection.transport.is_closing(), f"at {moment}"
            connection.data_received(ASK % number)
        while not connection.transport.is_closing():
            await asyncio.sleep(0.005)
        found = loop.time() - begun
        connection.connection_lost(None)
        assert connection.timeout_keep_alive_task is None
        return found

    return run(play())


def test_the_time_is_counted_from_the_last_answer() -> None:
    assert closed_after((0.0, 1)) == pytest.approx(0.3, abs=0.01)
    assert closed_after((0.0, 1), (0.1, 1), (0.2, 1)) == pytest.approx(0.5, abs=0.01)


def test_a_request_that_takes_longer_is_answered_first() -> None:
    assert closed_after((0.0, 1), (0.1, 5)) == pytest.approx(0.9, abs=0.01)
