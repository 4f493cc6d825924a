"""The answers to refused requests: a page for a person's browser, JSON for all others."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from serving.auth import Unauthorised
from serving.http import answer, refusal
from serving.pages import rendering
from serving.pages.rendering import browses, lacks, sign_in
from serving.schemas import BadRequest
from serving.sessions import Session, Sessions
from srghn.errors import LedgerError


async def refuse(request: Request, error: BadRequest, sessions: Sessions) -> Response:
    """The answer to a refused request.

    A browser that is not signed in gets the sign-in page; one whose session is not enough is told
    why, and may sign in with another token.
    """
    if not browses(request):
        return refusal(error, request)
    session, known = await _session(request, sessions)
    if isinstance(error, Unauthorised):
        own = session is not None and "authorization" not in request.headers
        problem = lacks(session, error.needed, "page") if session and own else ""
        return sign_in(request, sessions, error.status, problem, session=session)
    said = str(error)
    response = rendering.refused(request, error.status, said, session=session, known=known)
    response.raw_headers.extend(error.headers)
    return response


async def fail(
    request: Request,
    status: int,
    said: str,
    sessions: Sessions | None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The answer to a request that no route took, or whose answer failed.

    Without `sessions`, nobody looks for the session: what failed may be just that.
    """
    if not browses(request):
        return answer({"error": said}, status, headers)
    session, known = (None, False) if sessions is None else await _session(request, sessions)
    response = rendering.refused(request, status, said, session=session, known=known)
    response.headers.update(headers or {})
    return response


async def _session(request: Request, sessions: Sessions) -> tuple[Session | None, bool]:
    """A request's session, and whether it could be looked for."""
    try:
        return await sessions.find(request), True
    except LedgerError:
        return None, False
