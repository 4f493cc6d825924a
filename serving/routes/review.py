"""Decisions of people: approve, reject, abort the canary, roll back.

Each needs a token with the scope, a reason in the body, an `Idempotency-Key`, and `If-Match` with
the champion's generation for which the decision was made. The actor is the token's owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec
from fastapi import APIRouter
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from serving.control import release
from serving.explain import parse
from serving.http import answer, read_body
from serving.registry.records import Who
from serving.registry.texts import unix_lines
from serving.routes.act import body_of
from serving.routes.versions import find, summary
from serving.schemas import BadRequest, Body, check_text
from serving.service import policy_of, service_of
from serving.tokens import Token
from srghn.errors import ConfigError, StaleGeneration, TransitionRefused

router = APIRouter(tags=["review"])

Reason = Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"\S")]
T = TypeVar("T", bound=Body)


class _Step(Protocol):
    def __call__(self, version: int, /, *, who: Who) -> None: ...


class Decision(Body, frozen=True):
    """Why."""

    reason: Reason


class Approval(Decision, frozen=True):
    """The reason, and the digest of the report that was read."""

    report_digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Rollback(Decision, frozen=True):
    """The reason, and the version to bring back; default: the last not rolled back before."""

    to_version: Annotated[int, Meta(ge=1, lt=2**31)] | UnsetType | None = UNSET


class OfTrial(Decision, frozen=True, kw_only=True):
    """The reason, and the version seen on trial; refused if another is on trial now."""

    version: Annotated[int, Meta(ge=1, lt=2**31)] | UnsetType | None = UNSET


class Weight(OfTrial, frozen=True, kw_only=True):
    """The reason, and the canary's share of new episodes."""

    weight: Annotated[float, Meta(ge=0, lt=1)]


class Status(OfTrial, frozen=True, kw_only=True):
    """The reason, and the trial's new status."""

    status: Literal["running", "paused", "held"]


class Mode(Decision, frozen=True):
    """The reason, and the environment's present mode."""

    mode: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]


@router.post("/v1/versions/{version}/approve", openapi_extra=body_of(Approval))
async def approve(request: Request, version: str) -> Response:
    """Approve a version that passed (scope review): the first champion, or its trial begins."""
    service, said = service_of(request), await _read(request, Approval)
    found = await asyncio.to_thread(find, request, version)

    def step(who: Who) -> None:
        release.approve(
            service.ledger,
            service.store,
            found.version,
            release.canary_rules(found),
            report_digest=said.report_digest,
            who=who,
        )

    return await _decide(request, said, step, found.version)


@router.post("/v1/versions/{version}/reject", openapi_extra=body_of(Decision))
async def reject(request: Request, version: str) -> Response:
    """Reject a version for good (scope review)."""
    return await _of_version(request, version, service_of(request).ledger.reject)


@router.post("/v1/versions/{version}/stale", openapi_extra=body_of(Decision))
async def stale(request: Request, version: str) -> Response:
    """Mark a pass as no longer valid (scope review); the version's trial ends."""
    return await _of_version(request, version, service_of(request).ledger.mark_stale)


@router.post("/v1/versions/{version}/revoke", openapi_extra=body_of(Decision))
async def revoke(request: Request, version: str) -> Response:
    """Take a version out of service for good; a champion is rolled back (scope admin)."""
    return await _of_version(request, version, service_of(request).ledger.revoke)


@router.post("/v1/versions/{version}/shadow", openapi_extra=body_of(Decision))
async def shadow(request: Request, version: str) -> Response:
    """Make an approved version the shadow: it answers a copy of the traffic (scope admin)."""
    service = service_of(request)
    start = partial(release.start_shadow, service.ledger, service.store)
    return await _of_version(request, version, start)


@router.post("/v1/versions/{version}/shadow/stop", openapi_extra=body_of(Decision))
async def stop_shadow(request: Request, version: str) -> Response:
    """End a shadow; the version is approved as before (scope admin)."""
    return await _of_version(request, version, service_of(request).ledger.stop_shadow)


@router.post("/v1/holdback/stop", openapi_extra=body_of(Decision))
async def stop_holdback(request: Request) -> Response:
    """End the window of a fresh champion; it stays champion (scope admin)."""
    service, said = service_of(request), await _read(request, Decision)
    return await _decide(
        request,
        said,
        lambda who: service.ledger.end_holdback(who=who, policy=policy_of(request).name),
    )


@router.post("/v1/canary/weight", openapi_extra=body_of(Weight))
async def weight(request: Request) -> Response:
    """Set the canary's share of new episodes (scope admin)."""
    service, said = service_of(request), await _read(request, Weight)
    return await _decide(
        request,
        said,
        lambda who: service.ledger.set_canary_weight(
            said.weight, who=who, version=said.version or None, policy=policy_of(request).name
        ),
    )


@router.post("/v1/canary/status", openapi_extra=body_of(Status))
async def status(request: Request) -> Response:
    """Run, pause (no new episode) or hold (no decision) the trial (scope admin)."""
    service, said = service_of(request), await _read(request, Status)
    return await _decide(
        request,
        said,
        lambda who: service.ledger.set_trial_status(
            said.status, who=who, version=said.version or None, policy=policy_of(request).name
        ),
    )


@router.post("/v1/mode", openapi_extra=body_of(Mode))
async def mode(request: Request) -> Response:
    """Set the environment's present mode; later evaluations use it (scope admin)."""
    service, said = service_of(request), await _read(request, Mode)
    ledger, store, name = service.ledger, service.store, policy_of(request).name
    check_text("mode", said.mode)

    def step(who: Who) -> None:
        try:
            release.set_mode(ledger, store, name, said.mode, who=who)
        except ConfigError as error:
            expected = "a mode of the champion's environment"
            raise BadRequest(422, "mode", expected, str(error)) from error

    return await _decide(request, said, step)


@router.post("/v1/canary/abort", openapi_extra=body_of(OfTrial))
async def abort(request: Request) -> Response:
    """End the trial and quarantine the version (scope admin)."""
    service, said = service_of(request), await _read(request, OfTrial)
    return await _decide(
        request,
        said,
        lambda who: service.ledger.abort_canary(
            who=who, version=said.version or None, policy=policy_of(request).name
        ),
    )


@router.post("/v1/rollback", openapi_extra=body_of(Rollback))
async def rollback(request: Request) -> Response:
    """Bring a retired champion back (scope admin)."""
    service, said = service_of(request), await _read(request, Rollback)
    return await _decide(
        request,
        said,
        lambda who: (
            service.ledger.rollback(
                who=who,
                to_version=said.to_version or None,
                expected_generation=who.generation,  # part of the request with this key
                policy=policy_of(request).name,
            ).version
        ),
    )


@router.post("/v1/sync", openapi_extra=body_of(Decision))
async def sync(request: Request) -> Response:
    """Let `srghn up` write every version and alias to MLflow again (scope admin)."""
    service, said = service_of(request), await _read(request, Decision)
    return await _decide(request, said, lambda who: service.ledger.redeliver(who=who))


async def _read(request: Request, model: type[T]) -> T:
    body = await read_body(request, service_of(request).limits.small_body)
    return parse(msgspec.json.Decoder(model), body)


async def _of_version(request: Request, version: str, step: _Step) -> Response:
    """Take a step of the version in the path, with the reason in the body."""
    said = await _read(request, Decision)
    found = await asyncio.to_thread(find, request, version)
    return await _decide(request, said, lambda who: step(found.version, who=who), found.version)


async def _decide(
    request: Request,
    said: Decision,
    step: Callable[[Who], int | None],
    version: int | None = None,
) -> Response:
    """Take a step as the token's owner; the answer has the served versions after it."""
    who = _who(request, said.reason)
    try:
        moved = await asyncio.to_thread(step, who)
    except StaleGeneration as error:
        raise _refused(412, "If-Match", error) from error
    except TransitionRefused as error:
        raise _refused(409, "version", error) from error
    await asyncio.to_thread(policy_of(request).follower.poll)
    return answer(await asyncio.to_thread(_after, request, version or moved))


def _after(request: Request, version: int | None) -> dict[str, Any]:
    ledger, policy = service_of(request).ledger, policy_of(request)
    champion, served = ledger.champion(policy.name), policy.follower.served
    return {
        "version": summary(ledger.version(version)) if version else None,
        "champion": asdict(champion) if champion else None,
        "served": {
            "version": served.champion.version if served.champion else None,
            "generation": served.generation,
        },
    }


def _who(request: Request, reason: str) -> Who:
    """The actor, reason, key and generation, from the token and the headers.

    Raises `BadRequest` (422, 428).
    """
    reason = unix_lines(reason)
    check_text("reason", reason)
    token: Token = request.state.token
    key, match = request.headers.get("idempotency-key"), request.headers.get("if-match")
    if not key or len(key) > 200:
        raise BadRequest(428, "Idempotency-Key", "1 to 200 characters of your own", repr(key))
    generation = (match or "").strip('"')
    if not (generation.isascii() and generation.isdigit() and len(generation) < 10):
        raise BadRequest(
            428, "If-Match", "the champion's generation", repr(match), hint="see /v1/champion"
        )
    return Who(token.owner, reason, f"http:{token.owner}:{key}", int(generation))


def _refused(status: int, field: str, error: TransitionRefused) -> BadRequest:
    return BadRequest(status, field, "a step the ledger allows now", str(error))
