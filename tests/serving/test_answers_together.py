"""The answers of one turn of the event loop are written together, and never out of order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from serving.limits import Limits
from serving.protocol import REPLY, GuardedProtocol, guarded

ASK = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that notes what is written, and nothing after it is closed."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self._notes, self._closed = notes, False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return self._closed

    def write(self, data: Any) -> None:
        assert not self._closed
        found = re.search(rb"(?<!HTTP)/(\d+)", bytes(data))  # a body; else it is a head
        if found:
            self._notes.append(f"wrote {found[1].decode()}")

    def close(self) -> None:
        self._closed = True

    def pause_reading(self) -> None:
        """Told so while pipelined requests wait."""

    def resume_reading(self) -> None:
        """Told so after the last of them."""


def played(scene: Callable[[list[str], Callable[[], GuardedProtocol]], None]) -> list[str]:
    """What happened in a scene, and until the loop had its turn."""
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
        config = uvicorn.Config(app, lifespan="off", access_log=False)
        config.load()
        protocol = guarded(Limits(), None)

        def connect() -> GuardedProtocol:
            made = protocol(config=config, server_state=ServerState(), app_state={})
            made.connection_made(Wire(notes))
            return made

        scene(notes, connect)
        notes.append("end of the turn")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(play())
    return notes


def test_answers_of_one_turn_are_written_after_all_its_requests() -> None:
    def scene(notes: list[str], connect: Callable[[], GuardedProtocol]) -> None:
        for number, connection in enumerate([connect(), connect()]):
            connection.data_received(ASK % number)

    assert played(scene) == ["worked 0", "worked 1", "end of the turn", "wrote 0", "wrote 1"]


def test_an_answer_is_not_overtaken_by_the_next_one_of_its_connection() -> None:
    def scene(notes: list[str], connect: Callable[[], GuardedProtocol]) -> None:
        connection = connect()
        connection.data_received(ASK % 1)
        connection.data_received(ASK % 2 + ASK % 99 + ASK % 3)

    written = [note for note in played(scene) if note.startswith("wrote")]
    assert written == ["wrote 1", "wrote 2", "wrote 99", "wrote 3"]


def test_a_server_that_ends_sends_what_it_has_answered() -> None:
    def scene(notes: list[str], connect: Callable[[], GuardedProtocol]) -> None:
        connection = connect()
        connection.data_received(ASK % 1)
        connection.shutdown()

    assert played(scene) == ["worked 1", "wrote 1", "end of the turn"]


def test_many_answers_do_not_wait_for_one_another() -> None:
    def scene(notes: list[str], connect: Callable[[], GuardedProtocol]) -> None:
        for number in range(40):
            connect().data_received(ASK % number)

    notes = played(scene)
    assert notes.index("wrote 0") == 32  # after the 32nd request
    assert notes.count("wrote 39") == 1
    assert len(notes) == 81
