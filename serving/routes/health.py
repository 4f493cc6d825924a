"""Health and metrics: whether the server is alive and ready, and its counts."""

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
    """200 while the event loop runs."""
    return answer({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """200 if the committed champion is loaded, verified and answering; else 503 and why.

    This is about the default policy. If that policy has no champion, one other ready policy is
    enough. `/v2/models/NAME/ready` is about one policy.
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
