"""Middleware that checks tokens before a request's body is read."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.access import about
from serving.auth import Keeper, Unauthorised, caller_of, check_policy
from serving.http import path_of
from serving.pages.refusals import fail, refuse
from serving.service import policy_of
from serving.sessions import Sessions
from serving.tokens import Token
from srghn.errors import LedgerError


class Auth:
    """ASGI: checks the scope that a path needs, and passes the token on as `request.state.token`.

    A browser that is signed in to the pages may use its session to read whatever its token may
    read. The session does not allow changes here. A browser that is not signed in gets the sign-in
    page, and so does one whose session is not enough, with the reason.
    """

    def __init__(self, app: ASGIApp, keeper: Keeper, sessions: Sessions) -> None:
        self._app, self._keeper, self._sessions = app, keeper, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needed = self._keeper.closed(scope) if scope["type"] == "http" else None
        if needed is not None:
            request = Request(scope)
            try:
                request.state.token = await self._admit(request, needed)
            except Unauthorised as error:
                await (await refuse(request, error, self._sessions))(scope, receive, send)
                return
            except LedgerError as error:
                await (await fail(request, 503, str(error), None))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, request: Request, needed: str) -> Token:
        token = await self._known(request, needed)
        later, policy = about(request.method, path_of(request.scope), policy_of(request).name)
        if not later:
            check_policy(token, policy, needed)
        return token

    async def _known(self, request: Request, needed: str) -> Token:
        given = request.headers.get("authorization")
        if given is None and request.method in ("GET", "HEAD"):
            session = await self._sessions.find(request)
            if session is not None and session.token.may(needed):
                return session.token
            if session is not None:
                got = f"a session with {', '.join(sorted(session.token.scopes))}"
                raise Unauthorised(403, f"a token with scope {needed!r}", got, needed)
        return await self._keeper.identify(given, needed, caller_of(request.scope))
