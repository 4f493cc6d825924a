"""Pages as answers: one style, relative links, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from serving.registry.schema import POLICY
from serving.registry.states import State

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
#: Pages to which a person may return after signing in.
_NEXT = re.compile(r"(?:decide|versions|episode|compare|history)(?:/\w+)*(?:\?[\w=&-]*)?")


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
_templates.filters["number"] = lambda value: "–" if value is None else f"{value:.4g}"


def page(
    request: Request, name: str, status: int = 200, *, session: Session | None, **content: Any
) -> Response:
    """An answer from the template `name`; `session` None means that nobody is signed in."""
    text = _templates.get_template(f"{name}.html.j2").render(
        root=root(request),
        session=session,
        signing=name == "sign_in",
        **{"policy": POLICY, **content},
    )
    return Response(text, status, HEADERS, "text/html")


def root(request: Request) -> str:
    """The relative path from a request's page to `/`, independent of a proxy's prefix."""
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return "../" * (path.count("/") - 1) or "./"


def go(to: str, cookie: str | None = None) -> Response:
    """Redirect a browser after a form, to a relative address."""
    headers = {**HEADERS, "Location": to}
    return Response(None, 303, headers if cookie is None else {**headers, "Set-Cookie": cookie})


def browses(request: Request) -> bool:
    """Whether a person's browser asks for a page."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def sign_in(
    request: Request, sessions: Sessions, status: int = 401, problem: str = "", to: str = ""
) -> Response:
    """The sign-in page; it leads to `to` afterwards, by default back to this page."""
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    query = request.url.query
    back = to or path.lstrip("/") + (f"?{query}" if query else "")
    return page(
        request, "sign_in", status, session=None, problem=problem, here=sessions.here(request),
        next=lawful(back), user=sessions.user,
    )  # fmt: skip


def lawful(to: str) -> str:
    """`to` if it is one of our pages, else `/` (an empty string)."""
    return to if _NEXT.fullmatch(to) else ""
