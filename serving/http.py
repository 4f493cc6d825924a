"""HTTP for the routes outside the hot path: bodies, answers and the request's id."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.calls import Call, request_id, trace_of, traced
from serving.logs import REQUEST
from serving.schemas import BadRequest


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer, encoded here."""
    return Response(orjson.dumps(content), status, headers, "application/json")


def refusal(error: BadRequest, request: Request) -> Response:
    """The answer to a refused request; clients of the Open Inference Protocol get only `error`."""
    alone = request.url.path.startswith("/v2")
    response = answer({"error": error.body["error"]} if alone else error.body, error.status)
    response.raw_headers.extend(error.headers)
    return response


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of type JSON or of no stated type; raises `BadRequest` (413, 415, 400)."""

    async def nowhere(message: Message) -> None:
        raise AssertionError("a body is read, not answered")

    return await Call(request.scope, request.receive, nowhere, request.url.path).body(limit)


class RequestIds:
    """ASGI: adds an `X-Request-Id`, the caller's own or a new one, and a trace context."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        name = request_id(headers.get(b"x-request-id"))
        REQUEST.set((name.decode(), trace_of(headers.get(b"traceparent"))))
        more = [(b"x-request-id", name)]
        trace = traced(headers.get(b"traceparent"))
        if trace is not None:
            more.append(trace)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self._app(scope, receive, named)


def host_header(scope: Scope) -> bytes:
    """The header Host of a request; empty without one in HTTP/1.0.

    Raises `BadRequest` (400) for none in HTTP/1.1, and for several: a proxy may have looked at
    another one (RFC 9112, 3.2).
    """
    found: list[bytes] = [value for name, value in scope["headers"] if name == b"host"]
    if len(found) == 1:
        return found[0]
    if found or scope["http_version"] != "1.0":
        raise BadRequest(400, "Host", "one such header", str(len(found) or "none"))
    return b""


def path_of(scope: Scope) -> str:
    """The path of a request, without the prefix that a proxy strips."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def host_of(scope: Scope) -> str:
    """The host name that a request was sent to, without its port and a last dot."""
    name = host_header(scope).decode("latin-1").strip().lower()
    if name.startswith("["):
        return name.partition("]")[0].lstrip("[")
    return name.partition(":")[0].removesuffix(".")


def without_body(send: Send) -> Send:
    """Answers HEAD: sends the headers that GET would have, and no body."""

    async def headers_alone(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return headers_alone
