"""The answers of one turn of the event loop are written together, and never out of order."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

from serving.protocol import REPLY
from tests.serving.wires import ASK, Connect, connector


def played(scene: Callable[[list[str], Connect], None], turns: int = 2) -> list[str]:
    """What happened in a scene, and until the loop had its turns."""
    notes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path: str = scope["path"]
        if path == "/99":  # answered the usual way
            notes.append("worked 99")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"/99"})
            return
        notes.append(f"worked {path[1:]}")
        scope["extensions"][REPLY](200, b"", path.encode())

    async def play() -> None:
        scene(notes, connector(app, notes))
        notes.append("end of the turn")
        for _ in range(turns):
            await asyncio.sleep(0)

    asyncio.run(play())
    return notes


def test_answers_of_one_turn_are_written_after_all_its_requests() -> None:
    def scene(notes: list[str], connect: Connect) -> None:
        for number, connection in enumerate([connect(), connect()]):
            connection.data_received(ASK % number)

    assert played(scene) == ["worked 0", "worked 1", "end of the turn", "wrote 0", "wrote 1"]


def test_an_answer_is_not_overtaken_by_the_next_one_of_its_connection() -> None:
    def scene(notes: list[str], connect: Connect) -> None:
        connection = connect()
        connection.data_received(ASK % 1)
        connection.data_received(ASK % 2 + ASK % 99 + ASK % 3)

    written = [note for note in played(scene) if note.startswith("wrote")]
    assert written == ["wrote 1", "wrote 2", "wrote 99", "wrote 3"]


def test_many_requests_of_one_connection_leave_turns_to_the_others() -> None:
    def scene(notes: list[str], connect: Connect) -> None:
        connect().data_received(b"".join([ASK % number for number in range(60)]))

    notes = played(scene, turns=100)
    assert notes.index("end of the turn") < 2 * 20
    written = [note for note in notes if note.startswith("wrote")]
    assert written == [f"wrote {number}" for number in range(60)]


def test_a_server_that_ends_sends_what_it_has_answered() -> None:
    def scene(notes: list[str], connect: Connect) -> None:
        connection = connect()
        connection.data_received(ASK % 1)
        connection.shutdown()

    assert played(scene) == ["worked 1", "wrote 1", "end of the turn"]


def test_many_answers_do_not_wait_for_one_another() -> None:
    def scene(notes: list[str], connect: Connect) -> None:
        for number in range(40):
            connect().data_received(ASK % number)

    notes = played(scene)
    assert notes.index("wrote 0") == 32  # after the 32nd request
    assert notes.count("wrote 39") == 1
    assert len(notes) == 81


def test_an_answered_request_leaves_nothing_for_the_garbage_collector() -> None:
    def scene(notes: list[str], connect: Connect) -> None:
        connection = connect()
        connection.data_received(ASK % 1)
        while gc.collect():  # of tests before: what one collection closes is left to the next
            pass
        gc.disable()
        try:
            connection.data_received(ASK % 2)
            connection.data_received(ASK % 3)
            notes.append(f"garbage {gc.collect()}")
        finally:
            gc.enable()

    assert "garbage 0" in played(scene)
