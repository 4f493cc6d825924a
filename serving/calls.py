"""One request on the hot path: its headers, its body, its answer.

The framework's request object, middleware and routing cost more than a small policy. So inference
is answered without them, by these few lines of ASGI.
"""

from __future__ import annotations

import itertools
import re
import secrets
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from starlette.types import Receive, Scope, Send

from serving.aside import LONG, Room, aside
from serving.protocol import REPLY, Reply
from serving.schemas import BadRequest

if TYPE_CHECKING:
    from serving.tokens import Token

Header = tuple[bytes, bytes]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@=+/-]{1,128}")
_TRACE = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
JSON = b"content-type: application/json\r\n"
#: A longer packed body is unpacked in another thread: one made for it takes .15 ms for each KB.
_QUICK = 8192
_TYPES = (b"application/json", b"application/octet-stream")

_prefix = secrets.token_hex(8)
_counter = itertools.count()


def new_id() -> bytes:
    """A unique request id: a random half and a count."""
    return b"%b%016x" % (_prefix.encode(), next(_counter))


def request_id(given: bytes | None) -> bytes:
    """The caller's request id if it is valid, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else new_id()


class OwnTrace(bytes):
    """A trace context whose span this server has already made."""


def traced(given: bytes | None) -> Header | None:
    """The W3C trace context of the answer: the caller's trace with a new span of this server."""
    if isinstance(given, OwnTrace):
        return b"traceparent", bytes(given)
    match = _TRACE.fullmatch(given) if given else None
    if match is None:
        return None
    return b"traceparent", b"00-%b-%b-%b" % (match[1], secrets.token_hex(8).encode(), match[2])


def trace_of(given: bytes | None) -> str:
    """A request's trace id; empty without a valid context."""
    match = _TRACE.fullmatch(given) if given else None
    return match[1].decode() if match else ""


def _smaller() -> str:
    return "send smaller batches"


class Call:
    """A request and the way to answer it.

    Its body, if it is long, takes of the worker's `room` until `release`.
    """

    __slots__ = (
        "_hint", "_receive", "_room", "_send", "_short", "headers", "held", "id", "path", "token",
    )  # fmt: skip

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, path: str, room: Room | None = None
    ) -> None:
        self._receive, self._send, self.path = receive, send, path
        self._room, self.held = room, 0
        self._short: Reply | None = scope.get("extensions", {}).get(REPLY)
        self.token: Token | None = None
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id")
        self.id = new_id() if given is None else request_id(given)

    @property
    def owner(self) -> str | None:
        """The owner of the token that it came with; None without one."""
        return None if self.token is None else self.token.owner

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def body(self, limit: int, hint: Callable[[], str] = _smaller) -> bytes:
        """The body, decompressed; raises `BadRequest` (413 beyond `limit` bytes, 415, 400, 503).

        `hint` says what to do about one that is too long.
        """
        self._hint = hint
        body = await self._read(limit)
        encoding = self.headers.get(b"content-encoding")
        if encoding is None:
            return body
        return await self._unpacked(body, encoding.decode("latin-1"), limit)

    def release(self) -> None:
        """Give the body's room back."""
        if self._room is not None:
            self._room.give(self.held)
        self.held = 0

    def _hold(self, count: int) -> None:
        if self._room is not None:
            self._room.take(count)
            self.held += count

    async def _unpacked(self, body: bytes, encoding: str, limit: int) -> bytes:
        quick = len(body) <= _QUICK
        plain = unpack(body, encoding, min(limit, LONG)) if quick else None
        if plain is None and (limit > LONG or not quick):
            plain = await aside(partial(unpack, body, encoding, limit))
        if plain is None:
            raise self._too_big(limit, f"more than {limit} unpacked")
        if len(plain) > LONG:
            self._hold(len(plain))
        return plain

    async def _read(self, limit: int) -> bytes:
        self._check_kind(limit)
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message.get("body", b"")
            if len(body) > limit:
                raise self._too_big(limit, str(len(body)))
            if len(body) > LONG:
                self._hold(len(body))
            return body
        return await self._rest(message, limit)

    async def _rest(self, message: Any, limit: int) -> bytes:
        chunks, size = [], 0
        while True:
            if message["type"] != "http.request":
                raise BadRequest(400, "body", "to be sent whole", "a closed connection")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > limit:
                raise self._too_big(limit, f"at least {size}")
            self._hold(len(chunks[-1]))
            if not message.get("more_body"):
                return b"".join(chunks)
            message = await self._receive()

    def _check_kind(self, limit: int) -> None:
        said = self.headers.get(b"content-length")
        if said is not None and said.isdigit() and (len(said) > 15 or int(said) > limit):
            raise self._too_big(limit, said[:20].decode())
        kind = self.headers.get(b"content-type")
        if kind not in _TYPES:
            check_type(None if kind is None else kind.decode("latin-1"), b"origin" in self.headers)

    def _too_big(self, limit: int, got: str) -> BadRequest:
        return BadRequest(413, "body", f"at most {limit} bytes", got, hint=self._hint())

    async def reply(self, status: int, body: bytes, lines: bytes) -> None:
        """Send an answer. `lines` are complete header lines; length and ids are added."""
        lines = b"%bcontent-length: %d\r\nx-request-id: %b\r\n" % (lines, len(body), self.id)
        trace = traced(self.headers.get(b"traceparent"))
        if trace is not None:
            lines += b"%b: %b\r\n" % trace
        if self._short is not None:
            self._short(status, lines, body)
            return
        headers = [tuple(line.split(b": ", 1)) for line in lines.split(b"\r\n")[:-1]]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, error: BadRequest) -> None:
        """Answer with a refusal; clients of the Open Inference Protocol get only `error`."""
        alone = self.path.startswith("/v2")
        content = {"error": error.body["error"]} if alone else error.body
        lines = JSON + b"".join([b"%b: %b\r\n" % header for header in error.headers])
        await self.reply(error.status, orjson.dumps(content), lines)


def check_type(kind: str | None, page: bool) -> None:
    """Raise `BadRequest` (415) for a content type other than JSON; `page`: a web page sends it.

    So a page of another site can send no body: forms, plain text and data without a type are all
    that a browser sends there without a CORS preflight, which is not answered here.
    """
    if kind is None:
        if page:
            raise BadRequest(415, "Content-Type", "application/json from a web page", "none")
        return
    name = kind.partition(";")[0].strip().lower()
    if name.encode() in _TYPES or name.endswith("+json"):
        return
    raise BadRequest(
        415, "Content-Type", "application/json or none", repr(kind[:80]),
        hint="with curl: --json instead of --data",
    )  # fmt: skip


def unpack(body: bytes, encoding: str, limit: int) -> bytes | None:
    """A body, decompressed; None if that is more than `limit` bytes. Raises `BadRequest`."""
    name = encoding.strip().lower()
    if name == "identity":
        return body
    if name not in ("gzip", "deflate"):
        raise BadRequest(415, "Content-Encoding", "gzip, deflate or none", repr(encoding[:80]))
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: a header of gzip or of zlib
    try:
        plain = unpacking.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(400, "body", f"{name} data", str(error)) from None
    if len(plain) > limit:
        return None
    if not unpacking.eof or unpacking.unused_data:
        raise BadRequest(400, "body", f"{name} data", "truncated data, or further bytes after it")
    return plain
