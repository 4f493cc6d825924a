"""Is it alive, is it ready, and what does it count."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from serving.http import answer
from serving.service import service_of

router = APIRouter(tags=["health"])


@router.get("/health/live")
async def live() -> Response:
    """200 while the event loop turns."""
    return answer({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """200 if the committed champion is loaded, verified and answering; else 503 and why.

    Asked is the default policy, or without a champion of it any other; `/v2/models/NAME/ready` asks
    one by its name.
    """
    service = service_of(request)
    problem, served = service.problem(), service.follower.served
    if problem is not None:
        return answer({"ready": False, "reason": problem}, 503)
    content: dict[str, Any] = {"ready": True}
    if served.champion is not None:
        content |= {
            "version": served.champion.version,
            "generation": served.generation,
            "digest": served.champion.digest,
        }
    if len(service.policies) > 1:
        content["policies"] = {name: p.problem is None for name, p in service.policies.items()}
    return answer(content)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(service_of(request).exposition(), media_type=CONTENT_TYPE_LATEST)
