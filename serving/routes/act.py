"""Actions: one, a batch, and how an episode ended."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.explain import parse
from serving.hot import bad_episode
from serving.http import answer, read_body
from serving.registry.episodes import UnknownEpisode
from serving.registry.ledger import POLICY
from serving.schemas import EPISODE_PATTERN, ActRequest, BadRequest, BatchRequest, OutcomeRequest
from serving.service import service_of
from srghn.errors import TransitionRefused

router = APIRouter(tags=["inference"])

_OUTCOME = msgspec.json.Decoder(OutcomeRequest)


def body_of(model: Any) -> dict[str, Any]:
    """The body's schema for /openapi.json; it is parsed from its bytes, not by the framework."""
    found, parts = msgspec.json.schema_components([model], ref_template="#/$defs/{name}")
    schema = parts[found[0]["$ref"].rpartition("/")[2]]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("/v1/act", openapi_extra=body_of(ActRequest))
async def act(request: Request) -> Response:
    """The champion's (or the canary's) action for one observation."""
    raise AssertionError("answered on the hot path")


@router.post("/v1/act/batch", openapi_extra=body_of(BatchRequest))
async def act_batch(request: Request) -> Response:
    """Actions for many observations, all of one version."""
    raise AssertionError("answered on the hot path")


@router.post("/v1/episodes/{episode_id}/outcome", openapi_extra=body_of(OutcomeRequest))
async def outcome(request: Request, episode_id: str) -> Response:
    """How an episode ended: the evidence a canary is judged by. Counts once."""
    service = service_of(request)
    said = parse(_OUTCOME, await read_body(request, service.limits.small_body))
    if not re.match(EPISODE_PATTERN, episode_id):
        raise bad_episode("episode_id", episode_id)
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
