"""Routes that list the policies of this server."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.auth import require_policy
from serving.http import answer
from serving.policy import PolicyService
from serving.service import Service, service_of

router = APIRouter(tags=["review"])


@router.get("/v1/policies")
async def policies(request: Request) -> Response:
    """Every policy: its served versions, and the paths of its routes and its page."""
    found = await asyncio.to_thread(listed, service_of(request))
    return answer({"policies": found})


@router.get("/v1/policies/{policy}")
async def policy(request: Request, policy: str) -> Response:
    """One policy. Under this path it has all routes of /v1."""
    service = service_of(request)
    found = service.find(policy, "policy")
    require_policy(request, found.name)
    return answer(await asyncio.to_thread(_entry, service, found))


def listed(service: Service) -> list[dict[str, Any]]:
    """An entry for each policy, by name."""
    return [_entry(service, policy) for _, policy in sorted(service.policies.items())]


def _entry(service: Service, policy: PolicyService) -> dict[str, Any]:
    champion, canary = service.ledger.served(policy.name)
    return {
        "policy": policy.name,
        "champion": champion.version if champion else None,
        "generation": champion.generation if champion else 0,
        "canary": canary.version if canary else None,
        "mode": service.ledger.service_mode(policy.name),
        "ready": policy.problem is None,
        "problem": policy.problem,
        "routes": policy.base,
        "page": policy.page,
    }
