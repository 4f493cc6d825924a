"""Actions: one, a batch, and how an episode ended."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.control.routing import Served
from serving.http import answer, read_body, refusal
from serving.predictor import Predictor
from serving.registry.episodes import UnknownEpisode
from serving.registry.ledger import POLICY
from serving.schemas import (
    EPISODE_PATTERN,
    ActRequest,
    BadRequest,
    BatchRequest,
    Body,
    OutcomeRequest,
    observations,
    parse,
)
from serving.service import Service, service_of
from srghn.errors import TransitionRefused

router = APIRouter(tags=["inference"])


@dataclass(frozen=True)
class Answer:
    """Content, and the version that gave it."""

    content: dict[str, Any]
    served: Served
    predictor: Predictor

    def headers(self) -> dict[str, str]:
        return {
            "X-Model-Version": str(self.predictor.version),
            "X-Champion-Generation": str(self.served.generation),
            "X-Route": self.served.route_of(self.predictor),
            "X-Env-Fingerprint": self.predictor.env_fingerprint,
        }


Handler = Callable[[Service, Request], Awaitable[Answer]]


async def measured(handler: Handler, request: Request) -> Response:
    """Run an inference handler: counted, timed, and refused in words."""
    service = service_of(request)
    metrics, route, status = service.metrics, "none", 500
    metrics.inflight.inc()
    start = time.perf_counter()
    try:
        given = await handler(service, request)
        route, status = given.served.route_of(given.predictor), 200
        return answer(given.content, 200, given.headers())
    except BadRequest as error:
        status = error.status
        return refusal(error, request)
    finally:
        metrics.seconds.observe(time.perf_counter() - start)
        metrics.requests.labels(route, str(status)).inc()
        metrics.inflight.dec()


def body_of(model: type[Body]) -> dict[str, Any]:
    """The body's schema for /openapi.json; it is parsed from its bytes, not by the framework."""
    schema = model.model_json_schema(by_alias=True)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("/v1/act", openapi_extra=body_of(ActRequest))
async def act(request: Request) -> Response:
    """The champion's (or the canary's) action for one observation."""
    return await measured(_act, request)


@router.post("/v1/act/batch", openapi_extra=body_of(BatchRequest))
async def act_batch(request: Request) -> Response:
    """Actions for many observations, all of one version."""
    return await measured(_act_batch, request)


@router.post("/v1/episodes/{episode_id}/outcome", openapi_extra=body_of(OutcomeRequest))
async def outcome(request: Request, episode_id: str) -> Response:
    """How an episode ended: the evidence a canary is judged by. Counts once."""
    service = service_of(request)
    said = parse(OutcomeRequest, await read_body(request, service.limits.body_bytes))
    if not re.match(EPISODE_PATTERN, episode_id):
        raise _bad_episode("episode_id", episode_id)
    try:
        stored = await asyncio.to_thread(
            service.ledger.record_outcome,
            POLICY,
            episode_id,
            said.return_,
            said.length,
            said.terminated,
        )
    except UnknownEpisode as error:
        raise BadRequest(404, "episode_id", "an episode of this server", str(error)) from error
    except TransitionRefused as error:
        raise BadRequest(409, "episode_id", "one outcome an episode", str(error)) from error
    service.pins.forget(episode_id)
    return answer(
        {
            "episode_id": stored.episode_id,
            "version": stored.version,
            "route": stored.route,
            "counted": stored.counted,
        }
    )


#: The same endpoints without the framework's own handling, which takes longer than the policy.
FAST = [
    Route("/v1/act", act, methods=["POST"]),
    Route("/v1/act/batch", act_batch, methods=["POST"]),
]


async def _act(service: Service, request: Request) -> Answer:
    said = parse(ActRequest, await read_body(request, service.limits.body_bytes))
    episode = episode_of(said.episode_id, request.headers.get("x-episode-id"))
    if episode is not None:
        served, predictor = await service.pins.choose(episode)
    else:
        served, predictor = service.choose(request.headers.get("x-client-key"))
    array = observations([said.observation], predictor.observation_size, 1, "observation")
    predictor, actions = service.predict(served, predictor, array)
    return _answered({"action": actions[0]}, served, predictor)


async def _act_batch(service: Service, request: Request) -> Answer:
    said = parse(BatchRequest, await read_body(request, service.limits.body_bytes))
    served, predictor = service.choose(request.headers.get("x-client-key"))
    array = observations(
        said.observations, predictor.observation_size, service.limits.batch, "observations[{}]"
    )
    predictor, actions = service.predict(served, predictor, array)
    return _answered({"actions": actions}, served, predictor)


def _answered(content: dict[str, Any], served: Served, predictor: Predictor) -> Answer:
    content |= {
        "version": predictor.version,
        "generation": served.generation,
        "route": served.route_of(predictor),
    }
    return Answer(content, served, predictor)


def episode_of(in_body: str | None, in_header: str | None) -> str | None:
    """The episode a request belongs to; raises `BadRequest` if header and body differ."""
    if in_header is None:
        return in_body
    if not re.match(EPISODE_PATTERN, in_header):
        raise _bad_episode("X-Episode-Id", in_header)
    if in_body not in (None, in_header):
        raise BadRequest(422, "X-Episode-Id", f"the body's {in_body!r}", repr(in_header))
    return in_header


def _bad_episode(field: str, came: str) -> BadRequest:
    return BadRequest(
        422, field, "1 to 200 of the characters A-Z a-z 0-9 . _ : @ = + -", repr(came[:80])
    )
