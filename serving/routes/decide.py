"""Signing in and deciding in the browser, by plain forms.

A form is bound to its session and to the state that the page showed. Another site cannot decide
anything: the cookie is SameSite=Strict, every form holds a proof of its session, and a request with
`Sec-Fetch-Site` must be from this site.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.auth import Unauthorised
from serving.control.decisions import STEPS, Seen, Step
from serving.control.release import CANARY, canary_rules
from serving.pages.rendering import go, lawful, page, sign_in
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Version, Who
from serving.routes.home import summary_of
from serving.routes.versions import find_any
from serving.schemas import BadRequest
from serving.service import Service, service_of
from serving.sessions import SECONDS, Session
from serving.trial.plan import plan
from srghn.errors import ArtefactError, StaleGeneration, TransitionRefused

router = APIRouter(include_in_schema=False)

_FORM = "application/x-www-form-urlencoded"


@router.get("/sign-in")
async def ask(request: Request) -> Response:
    """The sign-in page."""
    return sign_in(request, service_of(request).sessions, 200, to="/")


@router.post("/sign-in")
async def enter(request: Request) -> Response:
    """Begin a session with a token, or without one on this machine."""
    sessions, form = service_of(request).sessions, await _form(request)
    to = lawful(form.get("next", ""))
    if form.get("here") == "yes" and sessions.here(request):
        return go(f"./{to}", _cookie(request, sessions.cookie, sessions.begin_here()))
    try:
        sealed = await sessions.begin(form.get("token", "").strip(), request)
    except Unauthorised as error:
        problem = "This token is unknown, revoked or expired."
        if error.status == 403:
            problem = "This token has no scope for these pages."
        return sign_in(request, sessions, error.status, problem, to or "/")
    return go(f"./{to}", _cookie(request, sessions.cookie, sealed))


@router.post("/sign-out")
async def leave(request: Request) -> Response:
    """End the session in this browser."""
    sessions, form = service_of(request).sessions, await _form(request)
    session = await sessions.find(request)
    if session is not None:
        _ours(session, form)
    return go("./", f"{sessions.cookie}=; Max-Age=0; HttpOnly; SameSite=Strict")


@router.get("/decide/{step}")
async def consider(request: Request, step: str) -> Response:
    """The page that describes a step's effect, with the form that takes it."""
    service, asked = service_of(request), request.query_params
    known, session = _known(step), await service.sessions.find(request)
    if session is None or not session.token.may(known.scope):
        return _not_allowed(request, service, session, known)
    about = Asked(step, asked.get("version", ""), asked.get("policy", POLICY))
    if not await _good_for(service, session, about):
        return _not_allowed(request, service, session, known)
    return await _show(request, service, session, about)


@router.post("/decide/{step}")
async def decide(request: Request, step: str) -> Response:
    """Take a step as the session's owner, for the state in the form."""
    service, form = service_of(request), await _form(request)
    known, session = _known(step), await service.sessions.find(request)
    if session is None or not session.token.may(known.scope):
        return _not_allowed(request, service, session, known)
    _ours(session, form)
    service.find(form.get("policy", POLICY), "policy")
    about = Asked(step, form.get("version", ""), form.get("policy", POLICY), form.get("reason", ""))
    if not await _good_for(service, session, about):
        return _not_allowed(request, service, session, known)
    try:
        seen, who = _seen(form), _who(session, form)
        await asyncio.to_thread(known.take, service.ledger, service.store, seen, who)
    except StaleGeneration as error:
        return await _show(request, service, session, about, 412, str(error), stale=True)
    except TransitionRefused as error:
        return await _show(request, service, session, about, 409, str(error), stale=True)
    except ArtefactError as error:
        return await _show(request, service, session, about, 503, str(error))
    except BadRequest as error:
        problem = str(error.body["error"])
        return await _show(request, service, session, about, error.status, problem)
    policy = service.find(about.policy, "policy")
    await asyncio.to_thread(policy.follower.poll)
    seq = await asyncio.to_thread(_recorded, service.ledger, str(who.key))
    return go(f"..{policy.page}?done={seq}")


@dataclass(frozen=True)
class Asked:
    """The step that is shown, its version, and the reason that was written so far."""

    step: str
    version: str
    policy: str
    reason: str = ""


async def _good_for(service: Service, session: Session, asked: Asked) -> bool:
    """Whether the session's token is good for the policy, and for the one of the version, too."""
    token = session.token
    if token.policy is None or not token.good_for(asked.policy) or not asked.version:
        return token.good_for(asked.policy)
    found = await asyncio.to_thread(find_any, service.ledger, asked.version)
    return token.good_for(found.policy)


async def _show(
    request: Request,
    service: Service,
    session: Session,
    asked: Asked,
    status: int = 200,
    problem: str = "",
    stale: bool = False,
) -> Response:
    service.find(asked.policy, "policy")
    content = await asyncio.to_thread(_situation, service.ledger, asked)
    return page(
        request, "decide", status, session=session, problem=problem, stale=stale,
        key=secrets.token_hex(16), reason=asked.reason[:2000], **content,
    )  # fmt: skip


def _situation(ledger: Ledger, asked: Asked) -> dict[str, Any]:
    """The ledger's present state of everything that a step is about."""
    step = STEPS[asked.step]
    champion, canary = ledger.served(asked.policy)
    former = ledger.former(asked.policy, most=20)
    wanted = asked.version
    if step.about == "trial" and canary is not None:
        wanted = str(canary.version)
    if step.about == "former" and former and wanted not in map(str, former):
        wanted = str(former[0])
    version = find_any(ledger, wanted)
    return {
        "step": step,
        "of": asked.step,
        "title": step.title.format(version=version.version),
        "policy": asked.policy,
        "champion": champion,
        "canary": canary,
        "former": former,
        "version": version,
        "summary": summary_of(ledger, version) if step.about == "named" else "",
        "plan": _planned(ledger, version)
        if champion and asked.step in ("approve", "start")
        else "",
    }


def _planned(ledger: Ledger, version: Version) -> str:
    """The expected length of the trial after an approval, as text."""
    if CANARY not in version.manifest:
        return "unknown: it was registered before 0.3, so only its run has the trial's parameters"
    return plan(ledger.propose_trial(version.version, canary_rules(version))).said


def _recorded(ledger: Ledger, key: str) -> int:
    """The number of the event that records a decision; 0 if newer events hide it."""
    events = ledger.events(newest=True, limit=50)
    found = (e.seq for e in events if e.idempotency_key and e.idempotency_key.startswith(key))
    return next(found, 0)


def _known(name: str) -> Step:
    if name not in STEPS:
        raise BadRequest(404, "step", ", ".join(STEPS), repr(name[:80]))
    return STEPS[name]


def _not_allowed(
    request: Request, service: Service, session: Session | None, step: Step
) -> Response:
    problem, status = "", 401
    if session is not None:
        status = 403
        problem = (
            f"The token of {session.owner} has scope {', '.join(sorted(session.token.scopes))}"
            f"{' for policy ' + session.token.policy + ' alone' if session.token.policy else ''}; "
            f"this step needs {step.scope}."
        )
    back = "/" if request.method == "POST" else ""
    return sign_in(request, service.sessions, status, problem, back)


async def _form(request: Request) -> dict[str, str]:
    """A form's fields; raises `BadRequest` for any other body, and for a form of another site."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none"):
        raise BadRequest(403, "Sec-Fetch-Site", "a form of this server", repr(site[:40]))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise BadRequest(415, "Content-Type", _FORM, repr(kind[:80]))
    body = await _body(request)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError as error:
        raise BadRequest(400, "body", "a form's fields in UTF-8", str(error)[:80]) from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadRequest(400, "body", "each field once", "one of them twice")
    return fields


async def _body(request: Request) -> bytes:
    limit, body = service_of(request).limits.small_body, b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BadRequest(413, "body", f"at most {limit} bytes", f"at least {len(body)}")
    return body


def _ours(session: Session, form: dict[str, str]) -> None:
    """Raise `BadRequest` unless a form was made for this session."""
    if not secrets.compare_digest(form.get("form", "").encode(), session.form.encode()):
        raise BadRequest(
            403, "form", "one that was made for this session", "another",
            hint="go back, load the page again, and decide there",
        )  # fmt: skip


def _seen(form: dict[str, str]) -> Seen:
    if form.get("read") != "yes" and "report" in form:
        raise BadRequest(422, "report", "to have been read", "no tick")
    weight = _share(form["weight"]) if "weight" in form else None
    return Seen(
        _number(form, "version"), form.get("report", ""), weight, form.get("policy", POLICY)
    )


def _share(said: str) -> float:
    try:
        weight = float(said)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < 1:
        raise BadRequest(422, "weight", "a share from 0 to 0.99", repr(said[:40]))
    return weight


def _who(session: Session, form: dict[str, str]) -> Who:
    reason, key = form.get("reason", "").strip(), form.get("key", "")
    if not 0 < len(reason) <= 2000:
        raise BadRequest(422, "reason", "1 to 2000 characters", f"{len(reason)}")
    if not 0 < len(key) <= 200:
        raise BadRequest(422, "key", "the one of the form", repr(key[:40]))
    owner = session.owner
    return Who(owner, reason, f"page:{owner}:{key}", _number(form, "generation"))


def _number(form: dict[str, str], name: str) -> int:
    said = form.get(name, "")
    if not (said.isascii() and said.isdigit() and len(said) < 10):
        raise BadRequest(422, name, "a number", repr(said[:40]))
    return int(said)


def _cookie(request: Request, name: str, sealed: str) -> str:
    """A session's cookie. It has no path, so it fits these pages behind any proxy's prefix."""
    secure = "; Secure" if request.url.scheme == "https" else ""
    return f"{name}={sealed}; Max-Age={SECONDS}; HttpOnly; SameSite=Strict{secure}"
