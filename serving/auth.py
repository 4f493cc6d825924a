"""Checks a request's token: the scope that the request needs, and the token that has it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from starlette.requests import Request
from starlette.routing import Match
from starlette.types import Scope

from serving.access import ADMIN, INFER, OPEN, OUTCOME, READ, SESSION, needed_by
from serving.http import path_of
from serving.schemas import BadRequest
from serving.tokens import Token, Tokens
from srghn.files import sha256_bytes

Closed = Literal["changes", "inference", "everything"]
#: A worker that has seen a token may accept it for this many seconds after it is revoked.
BELIEVED_SECONDS = 5.0
#: Delay of the answer to a wrong token: the first, doubled with each further one, up to the last.
SLOWED_SECONDS = (0.05, 2.0)
_FORGOTTEN_SECONDS = 60.0


class Unauthorised(BadRequest):
    """No known token (401), or one without the scope (403)."""

    def __init__(self, status: int, expected: str, got: str, needed: str) -> None:
        super().__init__(
            status, "Authorization", expected, got,
            hint="make a token with: srghn token add OWNER --scopes SCOPE",
        )  # fmt: skip
        self.needed = needed
        self.headers.append((b"www-authenticate", f'Bearer scope="{needed}"'.encode()))


class Keeper:
    """Knows the scope that a request needs, and checks tokens.

    `outcomes` says whether outcomes need a token. They do beyond loopback, if inference needs one,
    and as soon as a valid token has scope outcome. `decided` says whether decisions need one. They
    do beyond loopback, if inference needs one, and as soon as a valid token has scope review or
    admin. `look` updates both with each look at the ledger.
    """

    def __init__(self, tokens: Tokens, closed: Closed, public: bool) -> None:
        self._tokens, self._closed, self._public = tokens, closed, public
        self._believed: dict[str, tuple[float, Token]] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        self._wrong: dict[str, tuple[float, int]] = {}
        self.infer = closed != "changes"
        self.outcomes = self.infer or public
        self.decided = True

    def look(self) -> None:
        """Update `outcomes` and `decided` from the valid tokens. Blocks; raises `LedgerError`."""
        closed, now = self.infer or self._public, time.time()
        scopes = {s for token in self._tokens.list() if token.valid(now) for s in token.scopes}
        self.outcomes = closed or "outcome" in scopes
        self.decided = closed or not scopes.isdisjoint({"review", "admin"})

    def closed(self, scope: Scope) -> str | None:
        """The scope that a request needs; None if it is open to all."""
        needed = needed_by(scope["method"], path_of(scope))
        if needed in (OPEN, SESSION) or (needed is None and not _leads_anywhere(scope)):
            return None
        if needed == READ:
            return READ if self._closed == "everything" else None
        if needed == INFER:
            return INFER if self.infer else None
        if needed == OUTCOME:
            return OUTCOME if self.outcomes else None
        return needed or ADMIN

    async def admit(
        self, authorization: str | None, needed: str, caller: str, policy: str | None = None
    ) -> Token:
        """The token of an `Authorization` header; raises `Unauthorised` and `LedgerError`.

        `caller` is the caller's address; wrong tokens are counted for it. `policy` is the policy
        of the request; None: all policies.
        """
        token = await self.identify(authorization, needed, caller)
        check_policy(token, policy, needed)
        return token

    async def identify(self, authorization: str | None, needed: str, caller: str) -> Token:
        """As `admit`, without the check of the policy; the caller does that later."""
        kind, _, given = (authorization or "").partition(" ")
        expected = f"Bearer and a token with scope {needed!r}"
        if kind.lower() != "bearer" or not given:  # a token without "Bearer" is not repeated
            raise Unauthorised(401, expected, "something else" if kind else "nothing", needed)
        token = await self.known_by(sha256_bytes(given.strip().encode()))
        if token is None:
            await asyncio.sleep(self._slow(caller))
            raise Unauthorised(401, expected, "an unknown, revoked or expired token", needed)
        if not token.may(needed):
            raise Unauthorised(403, expected, f"one with {', '.join(sorted(token.scopes))}", needed)
        return token

    def _slow(self, caller: str) -> float:
        """Seconds that a caller waits for the answer to one more wrong token."""
        now = time.monotonic()
        last, count = self._wrong.get(caller, (now, 0))
        count = 1 if now - last > _FORGOTTEN_SECONDS else count + 1
        if len(self._wrong) > 10_000:
            self._wrong.clear()
        self._wrong[caller] = (now, count)
        first, most = SLOWED_SECONDS
        return float(min(most, first * 2 ** min(count - 1, 10)))

    async def known_by(self, digest: str) -> Token | None:
        """The token with this SHA-256, or None; raises `LedgerError`.

        It is remembered for `BELIEVED_SECONDS`, because inference cannot wait for the database.
        """
        known = self._believed.get(digest)
        if known is not None and time.monotonic() < known[0] and known[1].valid(time.time()):
            return known[1]
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._executor, self._tokens.known_by, digest)
        if len(self._believed) > 1000:
            self._believed.clear()
        if found is not None:
            self._believed[digest] = (time.monotonic() + BELIEVED_SECONDS, found)
        return found


def check_policy(token: Token, policy: str | None, needed: str) -> None:
    """Raise `Unauthorised` (403) if the request is about another policy than the token's own."""
    if not token.good_for(policy):
        expected = "a token for all policies" if policy is None else f"one for policy {policy!r}"
        raise Unauthorised(403, expected, f"one for policy {token.policy!r} alone", needed)


def require_policy(request: Request, policy: str | None) -> None:
    """`check_policy` of the token that a request was let in with, if it needed one."""
    token: Token | None = getattr(request.state, "token", None)
    if token is not None:
        check_policy(token, policy, READ)


def caller_of(scope: Scope) -> str:
    """A request's address, as the server sees it."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _leads_anywhere(scope: Scope) -> bool:
    """Whether the application has a route for a request; an unlisted route needs `admin`."""
    routes = scope["app"].router.routes
    return any(route.matches(scope)[0] is Match.FULL for route in routes)
