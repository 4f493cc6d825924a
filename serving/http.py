"""Bodies, answers and the request's name: what every route needs of HTTP."""

from __future__ import annotations

import re
import secrets
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.schemas import BadRequest

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@=+/-]{1,128}")


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON, as bytes, at once."""
    return Response(orjson.dumps(content), status, headers, "application/json")


def refusal(error: BadRequest, request: Request) -> Response:
    """A refusal in words; clients of the Open Inference Protocol (/v2) want `error` alone."""
    alone = request.url.path.startswith("/v2")
    return answer({"error": error.body["error"]} if alone else error.body, error.status)


async def read_body(request: Request, limit: int) -> bytes:
    """The body, whatever its content type; raises `BadRequest` (413) past `limit` bytes."""
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said) > limit:
        raise _too_big(limit, said)
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise _too_big(limit, f"at least {size}")
            chunks.append(chunk)
    except ClientDisconnect:
        raise BadRequest(400, "body", "to be sent whole", "a closed connection") from None
    return b"".join(chunks)


def _too_big(limit: int, came: str) -> BadRequest:
    return BadRequest(413, "body", f"at most {limit} bytes", came, hint="send smaller batches")


class RequestIds:
    """Gives every answer an `X-Request-Id`: the caller's own if it is a decent one, else new."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"")
        name = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16).encode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", name)]
            await send(message)

        await self._app(scope, receive, named)
