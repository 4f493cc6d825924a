"""Signing in and deciding in the browser, by plain forms.

A form is bound to its session and to the state that the page showed. Another site cannot decide
anything: the cookie is SameSite=Strict, every form holds a proof of its session, and a request with
`Sec-Fetch-Site` must be from this site.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from serving.auth import Unauthorised
from serving.control.decisions import FIRST, STEPS, Seen, Step, hindrance
from serving.control.release import CANARY, canary_rules
from serving.pages.refusals import fail, refuse
from serving.pages.rendering import go, lacks, lawful, page, sign_in
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Version, Who
from serving.registry.texts import unix_lines
from serving.routes.home import summary_of
from serving.routes.versions import find_any
from serving.schemas import BadRequest, check_text
from serving.service import OF, Service, service_of
from serving.sessions import SECONDS, Session
from serving.trial.plan import plan
from srghn.errors import ArtefactError, LedgerError, StaleGeneration, TransitionRefused

logger = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)

_FORM = "application/x-www-form-urlencoded"


@router.get("/sign-in")
async def ask(request: Request) -> Response:
    """The sign-in page."""
    to = lawful(request.query_params.get("next", ""))
    return sign_in(request, service_of(request).sessions, 200, to=to or "/")


@router.post("/sign-in")
async def enter(request: Request) -> Response:
    """Begin a session with a token, or without one on this machine; then lead on."""
    sessions, form = service_of(request).sessions, await _form(request)
    to, reason = lawful(form.get("next", "")), form.get("reason", "")
    if form.get("here") == "yes" and sessions.here(request):
        return await _lead(request, sessions.begin_here(), to, reason)
    try:
        sealed = await sessions.begin(form.get("token", "").strip(), request)
    except Unauthorised as error:
        problem = "This token is unknown, revoked or expired."
        if error.status == 403:
            problem = "This token has no scope for these pages."
        return sign_in(request, sessions, error.status, problem, to or "/", reason=reason)
    return await _lead(request, sealed, to, reason)


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
    service, known = service_of(request), _known(step)
    session = await service.sessions.find(request)
    asked = Asked.of(step, dict(request.query_params))
    if session is None:
        return _not_allowed(request, service, None, known, asked)
    return await _consider(request, service, session, asked)


async def _consider(
    request: Request, service: Service, session: Session, asked: Asked, notice: str = ""
) -> Response:
    known = STEPS[asked.step]
    if not session.token.may(known.scope):
        return _not_allowed(request, service, session, known, asked)
    about = await asyncio.to_thread(_with_policy, service.ledger, asked)
    if not await _good_for(service, session, about):  # the answer does not name another policy
        return _not_allowed(request, service, session, known, asked)
    return await _show(request, service, session, about, notice=notice)


@router.post("/decide/{step}")
async def decide(request: Request, step: str) -> Response:
    """Take a step as the session's owner, for the state in the form."""
    service, form = service_of(request), await _form(request)
    known, session = _known(step), await service.sessions.find(request)
    about = Asked.of(step, {"policy": POLICY, **form})
    if session is None or not session.token.may(known.scope):
        return _not_allowed(request, service, session, known, about)
    service.find(about.policy, "policy")
    if not await _good_for(service, session, about):
        return _not_allowed(request, service, session, known, about)
    key = ""
    try:
        _ours(session, form)
        seen, who = _seen(form), _who(session, form)
        key = str(who.key)
        await asyncio.to_thread(known.take, service.ledger, service.store, seen, who)
    except (BadRequest, LedgerError, ArtefactError) as error:
        done = await asyncio.to_thread(_recorded, service.ledger, key) if key else 0
        try:
            return await _show(
                request, service, session, about, _status(error), str(error), done=done,
                stale=isinstance(error, TransitionRefused),
            )  # fmt: skip
        except BadRequest:  # a form that is not ours names no version, either
            raise error from None
    policy = service.find(about.policy, "policy")
    await asyncio.to_thread(policy.follower.poll)
    seq = await asyncio.to_thread(_recorded, service.ledger, key)
    return go(f"..{policy.page}?done={seq or 0}")


def _status(error: Exception) -> int:
    """The status of the answer to a decision that was refused or failed."""
    if isinstance(error, BadRequest):
        return error.status
    if isinstance(error, TransitionRefused):
        return 412 if isinstance(error, StaleGeneration) else 409
    return 503


@dataclass(frozen=True)
class Asked:
    """The step that is shown, its version, and what was written so far: reason and share.

    Policy "" is that of the version.
    """

    step: str
    version: str
    policy: str = ""
    reason: str = ""
    weight: str = ""

    @classmethod
    def of(cls, step: str, said: Mapping[str, str]) -> Asked:
        """What a query or a form says."""
        names = ("version", "policy", "reason", "weight")
        return cls(step, *(said.get(name, "") for name in names))

    @property
    def address(self) -> str:
        """The address of the step's page, without the reason; empty if it is none of ours."""
        said = {"version": self.version, "policy": self.policy, "weight": self.weight}
        query = urlencode({name: value for name, value in said.items() if value})
        return lawful(f"decide/{self.step}" + (f"?{query}" if query else ""))


def _with_policy(ledger: Ledger, asked: Asked) -> Asked:
    """With the policy: where none is named, the one of a named version."""
    if asked.policy:
        return asked
    named = STEPS[asked.step].about == "named"
    return replace(asked, policy=find_any(ledger, asked.version).policy if named else POLICY)


async def _good_for(service: Service, session: Session, asked: Asked) -> bool:
    """Whether the session's token is good for the policy, and for the one of the version, too."""
    token = session.token
    if token.policy is None or not token.good_for(asked.policy) or not asked.version:
        return token.good_for(asked.policy)
    found = await asyncio.to_thread(find_any, service.ledger, asked.version)
    return token.good_for(found.policy)


async def _lead(request: Request, sealed: str, to: str, reason: str) -> Response:
    """The answer to a person who has signed in, who stays so if the wanted page is refused."""
    sessions = service_of(request).sessions
    request.cookies[sessions.cookie] = sealed  # a page of a refusal is one of this session
    try:
        response = await _wanted(request, sealed, to, reason)
    except BadRequest as error:
        response = await refuse(request, error, sessions)
    except LedgerError as error:
        logger.error("%s %s: %s", request.method, request.url.path, error)
        response = await fail(request, 503, f"the ledger cannot be used now: {error}", sessions)
    response.headers["Set-Cookie"] = _cookie(request, sessions.cookie, sealed)
    return response


async def _wanted(request: Request, sealed: str, to: str, reason: str) -> Response:
    """The page that a person wanted before signing in, or that of the token's policy.

    The page of a step comes with the reason that was written before the last session ended.
    """
    service = service_of(request)
    session = await service.sessions.of(sealed, request)
    if session is None:  # it was revoked just now; the next page says so
        return go(f"./{to}")
    path, _, query = to.partition("?")
    step = path.removeprefix("decide/")
    if reason and step != path and step in STEPS:
        asked = replace(Asked.of(step, dict(parse_qsl(query))), reason=reason)
        notice = "You are signed in again. Nothing was changed yet: read this page, then decide."
        return await _consider(request, service, session, asked, notice)
    own = session.token.policy
    if own is not None and not await asyncio.to_thread(_is_about, request, to, own):
        to = service.find(own, "policy").page[1:]
    return go(f"./{to}")


def _is_about(request: Request, to: str, policy: str) -> bool:
    """Whether a page of ours is open to a token of this policy alone: it is about it, or to all."""
    path, _, query = to.partition("?")
    parts, asked = path.split("/"), dict(parse_qsl(query))
    service = service_of(request)
    scope: Scope = {**request.scope, "method": "GET", "path": f"/{path}", "root_path": ""}
    try:
        scope = service.direct(scope)
        if parts[0] not in ("", "decide", "episode") and service.keeper.closed(scope) is None:
            return True
        of = scope.get(OF)
        if of is not None:  # the path of one of its routes
            return bool(of.name == policy)
        if parts[0] == "policies":
            return parts[-1] == policy
        if "policy" in asked:
            return asked["policy"] == policy
        named = [parts[1]] if parts[0] == "versions" and len(parts) > 1 else []
        named += [asked[name] for name in ("version", "a", "b") if name in asked]
        found = {find_any(service.ledger, number).policy for number in named}
    except BadRequest:
        return False
    return found == {policy} or parts[0] == "episode"


async def _show(
    request: Request,
    service: Service,
    session: Session,
    asked: Asked,
    status: int = 200,
    problem: str = "",
    *,
    stale: bool = False,
    done: int | None = 0,
    notice: str = "",
) -> Response:
    """The page of a step; `done` is the event of a part that was recorded, None if unknown."""
    policy = service.find(asked.policy, "policy")
    content = await asyncio.to_thread(_situation, service.ledger, asked)
    if content["version"] is None and status == 200:  # nothing is named, and there is nothing
        status = 422
    return page(
        request, "decide", status, session=session, problem=problem, stale=stale, done=done,
        key=secrets.token_hex(16), reason=asked.reason, share=asked.weight, notice=notice,
        back=policy.page[1:], **content,
    )  # fmt: skip


def _situation(ledger: Ledger, asked: Asked) -> dict[str, Any]:
    """The ledger's present state of everything that a step is about."""
    step, wanted, policy = STEPS[asked.step], asked.version, asked.policy
    if step.about == "named":  # its champion is the one that counts, whatever the address says
        policy = find_any(ledger, wanted).policy
    champion, canary = ledger.served(policy)
    former = ledger.former(policy, most=20)
    if step.about == "trial" and canary is not None:
        wanted = str(canary.version)
    if step.about == "former" and former and wanted not in map(str, former):
        wanted = str(former[0])
    version = find_any(ledger, wanted) if wanted or step.about == "named" else None
    hindered = hindrance(asked.step, version, champion, canary, former)
    if asked.step == "start" and champion is None:
        step = FIRST
    shown = champion and not hindered and asked.step in ("approve", "start")
    return {
        "step": step,
        "of_step": asked.step,
        "title": step.title.format(version=version.version) if version else step.button,
        "hindrance": hindered,
        "policy": policy,
        "champion": champion,
        "canary": canary,
        "former": former,
        "version": version,
        "summary": summary_of(ledger, version) if version and step.about == "named" else "",
        "plan": _planned(ledger, version) if version and shown else "",
    }


def _planned(ledger: Ledger, version: Version) -> str:
    """The expected length of the trial after an approval, as text."""
    if CANARY not in version.manifest:
        return "unknown: it was registered before 0.3, so only its run has the trial's parameters"
    return plan(ledger.propose_trial(version.version, canary_rules(version))).said


def _recorded(ledger: Ledger, key: str) -> int | None:
    """The number of the event that records a decision; 0 if there is none, or newer ones hide it.

    None if the ledger cannot be read now.
    """
    try:
        events = ledger.events(newest=True, limit=50)
    except LedgerError:
        return None
    found = (e.seq for e in events if e.idempotency_key and e.idempotency_key.startswith(key))
    return next(found, 0)


def _known(name: str) -> Step:
    if name not in STEPS:
        raise BadRequest(404, "step", ", ".join(STEPS), repr(name[:80]))
    return STEPS[name]


def _not_allowed(
    request: Request, service: Service, session: Session | None, step: Step, asked: Asked
) -> Response:
    """The sign-in page, which leads back to the step; the reason is kept."""
    problem, status = "", 401
    if session is not None:
        problem, status = lacks(session, step.scope, "step"), 403
    elif request.method == "POST":
        problem = "Your session ended, and nothing was changed. Sign in to decide again."
    to = asked.address or "/"
    return sign_in(
        request, service.sessions, status, problem, to, session=session, reason=asked.reason
    )


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
    # a form sends each line break as two characters, which the browser counts as one
    fields = {name: unix_lines(value) for name, value in fields.items()}
    request.state.wrote = fields.get("reason", "")
    return fields


async def _body(request: Request) -> bytes:
    limit, body = service_of(request).limits.small_body, b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise BadRequest(413, "body", f"at most {limit} bytes", f"at least {len(body)}")
    except ClientDisconnect:
        raise BadRequest(400, "body", "to be sent whole", "a closed connection") from None
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
    check_text("reason", reason)
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
