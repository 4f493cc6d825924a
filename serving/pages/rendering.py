"""Pages as answers: one style, relative links, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from serving.registry.names import page_of
from serving.registry.schema import POLICY
from serving.registry.states import State
from serving.service import ASKED

if TYPE_CHECKING:
    from serving.sessions import Session, Sessions

#: No loads, no scripts, forms only to this server, and no frames by other pages.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_TONES = {
    **dict.fromkeys([State.PASSED, State.APPROVED, State.CHAMPION], "good"),
    **dict.fromkeys([State.FAILED, State.ERROR, State.ABORTED, State.REVOKED], "bad"),
    **dict.fromkeys([State.INCONCLUSIVE, State.STALE, State.CANARY, State.EVALUATING], "wait"),
    State.REJECTED: "bad",
}
#: Pages to which a person may return after signing in: a path below ours without empty parts or
#: parts that begin with a dot, so that it leads nowhere else, and a query that ends no header.
_NEXT = re.compile(
    r"(?:(?:decide|versions|episode|compare|history|policies|v1|v2)(?:/\w[\w.~:@+=-]*)*"
    r"|docs|metrics|openapi\.json)(?:\?[\w.~:@!$'()*+,;=&%/?-]*)?",
    re.ASCII,
)
#: What the page of a refusal is called; the others have HTTP's own name.
_TITLES = {403: "Not allowed", 404: "Not found", 413: "Too long", 422: "Not understood"}
_TITLES |= {500: "An error of the server", 503: "Not now"}
#: Addresses that take a browser's forms.
_FORMS = re.compile(r"/(?:sign-in|sign-out|decide/[^/]*)")


def base_of(policy: str) -> str:
    """The path prefix of a policy's routes, without the leading slash."""
    return "v1" if policy == POLICY else f"v1/policies/{policy}"


_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters["moment"] = lambda at: at[:16].replace("T", " ")
_templates.filters["tone"] = lambda state: _TONES.get(State(state), "")
_templates.filters["api"] = base_of
_templates.filters["outcome"] = lambda check: (
    check["outcome"] if check.get("binding", True) else "reported"
)
_templates.filters["percent"] = lambda share: f"{100 * share:g}"
_templates.filters["number"] = lambda value: "–" if value is None else f"{value:.4g}"


def page(
    request: Request, name: str, status: int = 200, *, session: Session | None, **content: Any
) -> Response:
    """An answer from the template `name`; `session` None means that nobody is signed in.

    `policy` is the one that the page is about; without it, the one of the session's token.
    """
    own = (session and session.token.policy) or POLICY
    content = {"policy": own, "signing": name == "sign_in", **content}
    text = _templates.get_template(f"{name}.html.j2").render(
        root=root(request),
        session=session,
        home=page_of(own)[1:],
        came=lawful(here(request)),
        of="" if content["policy"] == POLICY else f"?policy={content['policy']}",
        **content,
    )
    return Response(text, status, HEADERS, "text/html")


def refused(
    request: Request, status: int, said: str, *, session: Session | None, known: bool = True
) -> Response:
    """The page of a refusal, with a way back and what the person had written.

    `known` False: whether a person is signed in cannot be found out now.
    """
    title = _TITLES.get(status, HTTPStatus(status).phrase)
    wrote = getattr(request.state, "wrote", "")
    return page(
        request, "refused", status, session=session, signing=not known, title=title, said=said,
        wrote=wrote, unchanged=request.method == "POST" and status < 500,
    )  # fmt: skip


def root(request: Request) -> str:
    """The relative path from a request's page to `/`, independent of a proxy's prefix."""
    return "../" * (_path(request).count("/") - 1) or "./"


def _path(request: Request) -> str:
    """The path that the caller wrote, without a proxy's prefix."""
    asked: str = request.scope.get(ASKED, request.scope["path"])
    return asked.removeprefix(request.scope.get("root_path", ""))


def here(request: Request) -> str:
    """The address of a request's page, relative to `/`."""
    query = request.url.query
    return _path(request).lstrip("/") + (f"?{query}" if query else "")


def go(to: str, cookie: str | None = None) -> Response:
    """Redirect a browser after a form, to a relative address."""
    headers = {**HEADERS, "Location": to}
    return Response(None, 303, headers if cookie is None else {**headers, "Set-Cookie": cookie})


def browses(request: Request) -> bool:
    """Whether a person's browser asks for a page, or sends a form of ours."""
    form = request.method == "POST" and _FORMS.fullmatch(_path(request)) is not None
    page = form or request.method in ("GET", "HEAD")
    return page and "text/html" in request.headers.get("accept", "")


def sign_in(
    request: Request,
    sessions: Sessions,
    status: int = 401,
    problem: str = "",
    to: str = "",
    *,
    session: Session | None = None,
    reason: str = "",
) -> Response:
    """The sign-in page; it leads to `to` afterwards, by default back to this page.

    `session` is the present one, if it is not enough. `reason` was written for a step, and comes
    back with the step's page.
    """
    return page(
        request, "sign_in", status, session=session, problem=problem, here=sessions.here(request),
        next=lawful(to or here(request)), user=sessions.user, reason=reason,
    )  # fmt: skip


def lacks(session: Session, needed: str, what: str) -> str:
    """Why a session may not have a page or take a step (`what`) that needs this scope."""
    token = session.token
    if token.may(needed):
        return (
            f"The token of {session.owner} is good for policy {token.policy} alone, "
            f"and this {what} is about another policy, or about all."
        )
    alone = f" for policy {token.policy} alone" if token.policy else ""
    return (
        f"The token of {session.owner} has scope {', '.join(sorted(token.scopes))}{alone}; "
        f"this {what} needs {needed}."
    )


def lawful(to: str) -> str:
    """`to` if it is one of our pages, else `/` (an empty string)."""
    return to if _NEXT.fullmatch(to) else ""
