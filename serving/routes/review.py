"""Decisions of people: approve, reject, abort the canary, roll back.

Each needs a token with the scope, a reason in the body, an `Idempotency-Key`, and `If-Match` with
the champion generation that the decision was made on. The actor is the token's owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from serving.explain import parse
from serving.http import answer, read_body
from serving.registry.records import Who
from serving.routes.act import body_of
from serving.routes.versions import find, summary
from serving.schemas import BadRequest, Body
from serving.service import Service, service_of
from serving.tokens import Token
from srghn.errors import StaleGeneration, TransitionRefused

router = APIRouter(tags=["review"])

Reason = Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"\S")]
T = TypeVar("T", bound=Body)


class Decision(Body, frozen=True):
    """Why."""

    reason: Reason


class Approval(Decision, frozen=True):
    """Why, and the digest of the report that was read."""

    report_digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Rollback(Decision, frozen=True):
    """Why, and to which version; without one, to the last champion not rolled back before."""

    to_version: Annotated[int, Meta(ge=1, lt=2**31)] | UnsetType | None = UNSET


@router.post("/v1/versions/{version}/approve", openapi_extra=body_of(Approval))
async def approve(request: Request, version: str) -> Response:
    """Approve a version that passed (scope review)."""
    service, said = service_of(request), await _read(request, Approval)
    found = await asyncio.to_thread(find, service.ledger, version)
    return await _decide(
        request,
        said,
        lambda who, generation: service.ledger.approve(
            found.version,
            report_digest=said.report_digest,
            who=who,
            expected_generation=generation,
        ),
        found.version,
    )


@router.post("/v1/versions/{version}/reject", openapi_extra=body_of(Decision))
async def reject(request: Request, version: str) -> Response:
    """Turn a version down, for good (scope review)."""
    service, said = service_of(request), await _read(request, Decision)
    found = await asyncio.to_thread(find, service.ledger, version)
    return await _decide(
        request,
        said,
        lambda who, generation: service.ledger.reject(
            found.version, who=who, expected_generation=generation
        ),
        found.version,
    )


@router.post("/v1/canary/abort", openapi_extra=body_of(Decision))
async def abort(request: Request) -> Response:
    """End the trial; its digest is quarantined (scope admin)."""
    service, said = service_of(request), await _read(request, Decision)
    return await _decide(
        request,
        said,
        lambda who, generation: service.ledger.abort_canary(
            who=who, expected_generation=generation
        ),
    )


@router.post("/v1/rollback", openapi_extra=body_of(Rollback))
async def rollback(request: Request) -> Response:
    """Bring a retired champion back (scope admin)."""
    service, said = service_of(request), await _read(request, Rollback)
    return await _decide(
        request,
        said,
        lambda who, generation: (
            service.ledger.rollback(
                who=who, to_version=said.to_version or None, expected_generation=generation
            ).version
        ),
    )


async def _read(request: Request, model: type[T]) -> T:
    body = await read_body(request, service_of(request).limits.small_body)
    return parse(msgspec.json.Decoder(model), body)


async def _decide(
    request: Request,
    said: Decision,
    step: Callable[[Who, int], int | None],
    version: int | None = None,
) -> Response:
    """Take a step as the token's owner; answers with what is served after it, read back."""
    service, (who, generation) = service_of(request), _who(request, said.reason)
    try:
        moved = await asyncio.to_thread(step, who, generation)
    except StaleGeneration as error:
        raise _refused(412, "If-Match", error) from error
    except TransitionRefused as error:
        raise _refused(409, "version", error) from error
    await asyncio.to_thread(service.follower.poll)
    return answer(await asyncio.to_thread(_after, service, version or moved))


def _after(service: Service, version: int | None) -> dict[str, Any]:
    champion, served = service.ledger.champion(), service.follower.served
    return {
        "version": summary(service.ledger.version(version)) if version else None,
        "champion": asdict(champion) if champion else None,
        "served": {
            "version": served.champion.version if served.champion else None,
            "generation": served.generation,
        },
    }


def _who(request: Request, reason: str) -> tuple[Who, int]:
    """Who decides and on which generation, from the token and the headers."""
    token: Token = request.state.token
    key, match = request.headers.get("idempotency-key"), request.headers.get("if-match")
    if not key or len(key) > 200:
        raise BadRequest(428, "Idempotency-Key", "1 to 200 characters of your own", repr(key))
    generation = (match or "").strip('"')
    if not (generation.isascii() and generation.isdigit() and len(generation) < 10):
        raise BadRequest(
            428, "If-Match", "the champion's generation", repr(match), hint="see /v1/champion"
        )
    return Who(token.owner, reason, f"http:{token.owner}:{key}"), int(generation)


def _refused(status: int, field: str, error: TransitionRefused) -> BadRequest:
    return BadRequest(status, field, "a step the ledger allows now", str(error))
