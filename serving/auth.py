"""Who may ask: bearer tokens checked before a request is read."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http import answer, refusal
from serving.schemas import BadRequest
from serving.tokens import Token, Tokens
from srghn.errors import LedgerError

Closed = Literal["changes", "inference", "everything"]
#: A revoked token may be believed for so many seconds more by a worker that saw it.
BELIEVED_SECONDS = 5.0
_CHANGES = ("/approve", "/reject", "/abort", "/rollback")


class Unauthorised(BadRequest):
    """No token that is known (401), or one without the scope (403)."""

    def __init__(self, status: int, expected: str, got: str, needed: str) -> None:
        super().__init__(
            status, "Authorization", expected, got,
            hint="make a token with: python -m serving.tokens add OWNER --scopes SCOPE",
        )  # fmt: skip
        self.headers.append((b"www-authenticate", f'Bearer scope="{needed}"'.encode()))


class Keeper:
    """Knows which scope a request needs, and whose token has it."""

    def __init__(self, tokens: Tokens, closed: Closed) -> None:
        self._tokens, self._closed = tokens, closed
        self._believed: dict[str, tuple[float, Token]] = {}

    def closed(self, method: str, path: str) -> str | None:
        """The scope that a request needs; None where it is open to all."""
        return scope_of(method, path, self._closed)

    async def admit(self, authorization: str | None, needed: str) -> Token:
        """The token of an `Authorization` header; raises `Unauthorised` and `LedgerError`."""
        kind, _, given = (authorization or "").partition(" ")
        expected = f"Bearer and a token with scope {needed!r}"
        if kind.lower() != "bearer" or not given:
            raise Unauthorised(401, expected, kind or "nothing", needed)
        token = await self._find(given.strip())
        if token is None:
            raise Unauthorised(401, expected, "an unknown or revoked token", needed)
        if not token.may(needed):
            raise Unauthorised(403, expected, f"one with {', '.join(sorted(token.scopes))}", needed)
        return token

    async def _find(self, given: str) -> Token | None:
        """The token, from memory for a few seconds: inference cannot wait for the database."""
        known = self._believed.get(given)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        found = await asyncio.to_thread(self._tokens.find, given)
        if len(self._believed) > 1000:
            self._believed.clear()
        if found is not None:
            self._believed[given] = (time.monotonic() + BELIEVED_SECONDS, found)
        return found


class Auth:
    """ASGI: asks for the scope a path needs, and hands the token on as `request.state.token`."""

    def __init__(self, app: ASGIApp, keeper: Keeper) -> None:
        self._app, self._keeper = app, keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            needed = self._keeper.closed(scope["method"], scope["path"])
            if needed is not None:
                request = Request(scope)
                try:
                    request.state.token = await self._keeper.admit(
                        request.headers.get("authorization"), needed
                    )
                except Unauthorised as error:
                    await refusal(error, request)(scope, receive, send)
                    return
                except LedgerError as error:
                    await answer({"error": str(error)}, 503)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def scope_of(method: str, path: str, closed: Closed) -> str | None:
    """The scope that a request needs; None where it is open to all."""
    if method == "POST" and path.endswith(_CHANGES):
        return "review" if path.endswith(("/approve", "/reject")) else "admin"
    if closed == "everything" or (closed == "inference" and method == "POST"):
        return "infer"
    return None
