"""uvicorn's HTTP protocol with limits for each connection, and a fast way to answer.

There are limits on the time to send a request's head and body, on the head's size, and on its
number of headers. Above a number of connections, new ones are answered 503 with Retry-After before
anything is read from them. While a client does not take its answers, nothing more is read from it
and no further request of it is begun; if it takes too long, its connection is cut. What a client
asked for before it sent something wrong is answered first. If it may still be sending when its
connection ends, what it sends is read and ignored for a moment: the system resets a connection that
is closed with unread data, and the client could lose answers (RFC 9112, 9.6).

The fast way is an ASGI extension, `srghn.reply`. It sends a whole answer in one write and skips
uvicorn's checks of each header. It is only for answers whose headers this server wrote itself. Its
answers of one turn of the event loop are written together, after all of the turn's requests were
worked on: a write wakes a client up, and with 16 connections waking them one by one took a third of
the server's CPU time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serving.counts import Counts
from serving.eager import begin
from serving.limits import Limits

#: So many answers do not wait for further ones.
_TOGETHER = 32
#: So many requests that came in one piece are worked on in one turn of the event loop, then one in
#: each: a piece has room for 4,000, and the other connections would wait for all of them.
_AT_ONCE = 16

#: The extension's name in `scope["extensions"]`.
REPLY = "srghn.reply"
Reply = Callable[[int, bytes, bytes], None]

#: The part of a request that a connection has to send next.
_IDLE, _HEAD, _BODY = 0, 1, 2
_RETRY = b"retry-after: 1\r\n"
#: Bytes that a chunk of a body may have beside the body: its size in hexadecimal and two line ends.
_OF_A_CHUNK = 32
#: So long, and so much, what a client still sends is ignored before its connection is closed.
_IGNORED_SECONDS, _IGNORED_BYTES = 2.0, 2**24
#: A client that took so many bytes of its answers has its time for the rest anew.
_TAKEN = 65_536
_BROKEN = b'{"error":"request: expected HTTP/1.1, got something else"}'
_CUT = b'{"error":"request: expected a whole one, got its beginning"}'
_LATE = b'{"error":"request: expected to be sent in time, got too little of it"}'
_LONG = b'{"error":"headers: expected fewer or shorter ones, got too many"}'
_TUNNEL = b'{"error":"request: expected another method than CONNECT"}'
_BUSY = b'{"error":"connections: expected fewer at once; try again in a second"}'


class _Flow(FlowControl):
    """Reads nothing more while a request waits, or answers that the client does not take."""

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """uvicorn calls this for each request that begins, though others wait behind it."""
        if self.read_paused and not (self._pipeline or self.write_paused):
            super().resume_reading()


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `guarded` makes the class with a server's limits and counts."""

    limits: ClassVar[Limits]
    counts: ClassVar[Counts | None]
    waiting: ClassVar[list[GuardedProtocol]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._stage = _IDLE
        self._timer: asyncio.TimerHandle | None = None
        self._timed = _IDLE
        self._chunk = self._head_bytes = self._beside = 0
        self._reserved = False
        self._receiving, self._held = False, deque[tuple[RequestResponseCycle, Any]]()
        self._answer = b""  # that waits for the end of the loop's turn
        self._rested = 0.0  # loop time since when the connection is idle
        self._stalled = False  # the next request waits until the client has taken its answers
        self._taking: asyncio.TimerHandle | None = None
        self._left = 0  # bytes that the client had not taken when the timer began
        self._last = b""  # an answer after which the connection ends, when all others are written
        self._over = False  # all is written; what the client still sends is ignored
        self._ignored = 0  # bytes of that

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        limits, count = self.limits, len(self.connections)
        self._reserved = count > limits.connections
        if self._reserved and self.counts is not None:
            self.counts.add("refused_connections")
        if count > limits.connections + limits.reserved_connections:
            self._turn_away(503, _BUSY, _RETRY)
        else:
            self._stage = _HEAD
            self._time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stage = _IDLE
        self._time()
        self._forget_taking()
        super()._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._answer:
            self._flush()
        if self._last or self.is_closing():
            self._ignored += len(data)
            if self._over and self._ignored > _IGNORED_BYTES:
                self.transport.close()
            return
        self._receiving, self._chunk = True, len(data)
        if self._stage == _HEAD:
            self._head_bytes += len(data)
        elif self._stage == _BODY:
            self._beside += len(data)  # until `on_body` has told what of it is body
        self._parse(data)
        if self._stage == _HEAD and self._head_bytes > self.limits.head_bytes:
            self._turn_away(431, _LONG)
        if self._stage == _BODY and self._beside > self.limits.head_bytes:
            self._end(431, _LONG)
        self._beside = max(self._beside, 0)  # what one read left over allows nothing to the next
        begun = 0
        while self._held:
            begun += 1
            self._receiving = begun < _AT_ONCE
            self._begin(*self._held.popleft())
        self._receiving = False
        if self._stage != self._timed:
            self._time()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether to go on: a client that sends no more may wait for answers to whole requests."""
        self._flush()
        cycle = self.cycle
        if self.transport.can_write_eof():  # over TLS it has closed both ways
            if self._stage == _BODY and not cycle.response_started:
                self._turn_away(400, _CUT)
            waits = cycle is not None and not cycle.response_complete
            if not self._over and (self._last or waits):
                if not self._last:  # which ends the connection itself
                    cycle.keep_alive = False
                self._stage = _IDLE  # what it began to send ends here
                self._time()
                return True
        self._expect_taken()
        return False

    def _parse(self, data: bytes) -> None:
        """As uvicorn's, but nothing is logged: a client cannot fill the log."""
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserError:
                self._turn_away(400, _BROKEN)
                return

    def _without_upgrade(self, rest: bytes) -> bytes:
        """The request that was just read, without its wish for another protocol, and what follows.

        The parser takes all that follows such a head for that protocol's. Java's HTTP client and
        curl --http2 wish for HTTP/2 in requests that have a body.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._turn_away(405, _TUNNEL)
        if self._last or self.is_closing():
            return b""
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"".join([b"%b %b HTTP/%b\r\n" % (method, self.url, version), *lines, b"\r\n", rest])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._over:
            return  # what is ignored has no time limit of its own
        self._stage = _HEAD
        self._head_bytes = 0  # of the chunks after this one, which has its own end
        self._beside = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """uvicorn would add what follows a body in chunks to the headers, which nobody checks."""
        if self._stage == _HEAD:
            super().on_header(name, value)

    def on_chunk_header(self) -> None:
        self._beside -= _OF_A_CHUNK

    def on_headers_complete(self) -> None:
        if self._too_long():
            self._turn_away(431, _LONG)
        if self._reserved and b"/health/" not in self.url:
            self._turn_away(503, _BUSY, _RETRY)
        if not (self._last or self.is_closing() or self.parser.should_upgrade()):
            self._stage = _BODY
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside -= len(body)
        if not (self._last or self.is_closing()):
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not (self._last or self.is_closing() or self.parser.should_upgrade()):
            self._stage = _IDLE
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's, but its keep-alive timer runs on: a new one for each request costs."""
        self.server_state.total_requests += 1
        if self.is_closing():
            self._expect_taken()
        elif self.flow.write_paused:
            self._stalled = True
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Begin the next request, or wait for one."""
        waiting = self.pipeline.pop() if self.pipeline else None
        self.flow.resume_reading()
        if waiting is not None:
            self._start_asgi_task(*waiting)
            return
        if self._last:
            self._close_with(self._last)
            return
        self._rested = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._rest(self.timeout_keep_alive)

    def _rest(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn calls this for every request; here the timer looks what has happened."""

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._over or self._stage != _IDLE or self._stalled or not self.cycle.response_complete:
            return  # a request is under way; its answer starts the timer again
        left = self._rested + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._rest(left)
        else:
            super().timeout_keep_alive_handler()
            self._expect_taken()

    def pause_writing(self) -> None:
        """More is written than the client takes: until it has, nothing is read or begun."""
        super().pause_writing()
        self.flow.pause_reading()
        self._stalled = self.cycle is not None and self.cycle.response_complete
        self._expect_taken()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.transport.is_closing():
            return
        self._forget_taking()
        if self._stalled and not self._over:
            self._stalled = False
            self._go_on()
        else:
            self.flow.resume_reading()

    def _expect_taken(self) -> None:
        """Cut the connection unless the client takes what is left of its answers in time."""
        self._left = self.transport.get_write_buffer_size()
        if self._left and self._taking is None:
            self._taking = self.loop.call_later(self.limits.answer_seconds, self._untaken)

    def _untaken(self) -> None:
        self._taking = None
        if self._left - self.transport.get_write_buffer_size() >= _TAKEN:
            self._expect_taken()
        else:
            self.transport.abort()

    def _forget_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        extensions: dict[str, Any] = {REPLY: partial(self._reply, cycle)}
        cycle.scope["extensions"] = extensions
        cycle.transport = self  # type: ignore[assignment]  # of which it asks the next three
        if self._stalled:
            self.pipeline.append((cycle, app))  # the next to begin
        elif self._receiving:
            self._held.append((cycle, app))  # until its body has arrived, too
        else:
            super()._start_asgi_task(cycle, app)

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def is_closing(self) -> bool:
        return self._over or self.transport.is_closing()

    def close(self) -> None:
        """Close the connection; if the client may still be sending, not for reading at once."""
        sending = self._last or self._stage != _IDLE
        if not sending or self._reserved or self.is_closing():
            self.transport.close()
            return
        self._over, self._stage = True, _IDLE
        self._time()
        if self.transport.can_write_eof():  # over TLS it cannot
            self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(_IGNORED_SECONDS, self.transport.close)

    def _begin(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer a whole request without a task, unless the answer has to wait."""
        if cycle.more_body:
            super()._start_asgi_task(cycle, app)
            return
        task = begin(cycle.run_asgi(app))
        if task is not None:
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)

    def _reply(self, cycle: RequestResponseCycle, status: int, headers: bytes, body: bytes) -> None:
        """Answer a request. `headers` are complete header lines, each with its line end."""
        if cycle.disconnected or cycle.response_started:
            return
        cycle.response_started = cycle.response_complete = True
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        date = b"".join([b"%b: %b\r\n" % header for header in cycle.default_headers])
        answer = b"".join((STATUS_LINE[status], date, headers, end, body))
        if not cycle.keep_alive or self.pipeline or self._held:
            self.write(answer)  # the next answer of this connection must not overtake it
        else:
            self._answer = answer
            self._wait_for_others()
        del cycle.scope["extensions"]  # it refers to the cycle: else the collector has to free both
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.close()
        cycle.on_response()

    def _wait_for_others(self) -> None:
        waiting = self.waiting
        waiting.append(self)
        if len(waiting) == 1:
            self.loop.call_soon(_flush_all, waiting)
        elif len(waiting) == _TOGETHER:
            _flush_all(waiting)

    def _flush(self) -> None:
        answer, self._answer = self._answer, b""
        if answer and not self.transport.is_closing():
            self.transport.write(answer)

    def shutdown(self) -> None:
        self._flush()
        super().shutdown()
        if self.transport.is_closing():
            self._expect_taken()

    def _too_long(self) -> bool:
        """Whether a head exceeds a limit. Its bytes are added up only if the chunk is large."""
        limits, headers = self.limits, self.headers
        if len(headers) > limits.headers:
            return True
        if self._chunk + self._head_bytes <= limits.head_bytes:
            return False
        size = sum(len(name) + len(value) for name, value in headers)
        return len(self.url) + size > limits.head_bytes

    def _time(self) -> None:
        """Start the timer for the part that the connection has to send next, if any."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timed = self._stage
        if self._stage != _IDLE and not (self._last or self.is_closing()):
            limits = self.limits
            seconds = limits.head_seconds if self._stage == _HEAD else limits.body_seconds
            self._timer = self.loop.call_later(
                min(seconds, 1) if self._reserved else seconds, self._late
            )

    def _late(self) -> None:
        self._timer = None
        if self.flow.read_paused:
            self._time()  # it is the server that does not read
        else:
            self._end(408, _LATE)

    def _end(self, status: int, body: bytes) -> None:
        """Turn a client away that sends its request too slowly, or too much of it."""
        if self._stage == _BODY and self.cycle.response_started:
            self.transport.abort()  # it was answered but goes on sending
        else:
            self._turn_away(status, body)

    def _turn_away(self, status: int, body: bytes, headers: bytes = b"") -> None:
        """Answer and close, once earlier requests are answered; the rest of this is ignored."""
        if self._last or self.is_closing():
            return
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n"
        answer = STATUS_LINE[status] + headers + head % len(body) + b"\r\n" + body
        self._stage, behind = _IDLE, bool(self.pipeline)
        whole = self.cycle is not None and not self.cycle.response_complete
        if whole and self.cycle.more_body:  # it is this one, whose rest will not come
            whole, self.cycle.disconnected = False, True
            self.cycle.message_event.set()
            for waiting in (self.pipeline, self._held):
                with suppress(ValueError):
                    waiting.remove((self.cycle, self.app))
        if behind or whole or self._held:
            self._last = answer
            self.flow.pause_reading()
        else:
            self._close_with(answer)

    def _close_with(self, answer: bytes) -> None:
        self._flush()
        self._last = answer
        self.write(answer)
        self.close()
        self._expect_taken()


def _flush_all(waiting: list[GuardedProtocol]) -> None:
    for protocol in waiting:
        protocol._flush()
    waiting.clear()


def guarded(limits: Limits, counts: Counts | None) -> type[GuardedProtocol]:
    """The protocol class with these limits; refused connections are counted in `counts`."""
    return type("Guarded", (GuardedProtocol,), {"limits": limits, "counts": counts, "waiting": []})
