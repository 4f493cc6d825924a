"""Is it alive, is it ready, and what does it count."""

from __future__ import annotations

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
    """200 if the committed champion is loaded, verified and answering; else 503 and why."""
    service = service_of(request)
    problem, served = service.problem(), service.follower.served
    if problem is not None or served.champion is None:
        return answer({"ready": False, "reason": problem}, 503)
    content = {
        "ready": True,
        "version": served.champion.version,
        "generation": served.generation,
        "digest": served.champion.digest,
    }
    return answer(content)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
