"""Routes for actions (one, or a batch) and for outcomes of episodes."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from serving.http import answer
from serving.schemas import ActRequest, BadRequest, BatchRequest, OutcomeRequest
from serving.service import policy_of, service_of

router = APIRouter(tags=["inference"])


def body_of(model: type[Struct]) -> dict[str, Any]:
    """A body's schema for /openapi.json. The framework does not parse the body."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("/v1/act", openapi_extra=body_of(ActRequest))
async def act(request: Request) -> Response:
    """The champion's (or the canary's) action for one observation."""
    raise AssertionError("answered on the hot path")


@router.post("/v1/act/batch", openapi_extra=body_of(BatchRequest))
async def act_batch(request: Request) -> Response:
    """Actions for many observations, all of one version."""
    raise AssertionError("answered on the hot path")


@router.get("/v1/episodes/{episode_id}")
async def episode(request: Request, episode_id: str) -> Response:
    """The ledger's record of an episode, with its arm (scope review)."""
    ledger, policy = service_of(request).ledger, policy_of(request).name
    found = await asyncio.to_thread(ledger.find_episode, episode_id, policy)
    if found is None:
        raise BadRequest(404, "episode_id", "an episode of the ledger", repr(episode_id[:80]))
    content = asdict(found)
    content["return"] = content.pop("return_")
    return answer(content)


@router.post("/v1/episodes/{episode_id}/outcome", openapi_extra=body_of(OutcomeRequest))
async def outcome(request: Request, episode_id: str) -> Response:
    """Record how an episode ended, with the token of its last answer. An outcome counts once."""
    raise AssertionError("answered on the hot path")
