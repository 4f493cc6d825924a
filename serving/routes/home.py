"""The page a person opens: champion, canary and its evidence, what waits, what happened."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from serving.control.shadow import views
from serving.pages.intervals import draw
from serving.policy import PolicyService
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Version
from serving.registry.states import State
from serving.registry.trial_view import WindowView, view, window_view
from serving.routes.policies import listed
from serving.service import Service, service_of

router = APIRouter(include_in_schema=False)

SHOWN_EVENTS = 40
_TONES = {
    **dict.fromkeys([State.PASSED, State.APPROVED, State.CHAMPION], "good"),
    **dict.fromkeys([State.FAILED, State.ERROR, State.ABORTED, State.REVOKED], "bad"),
    **dict.fromkeys([State.INCONCLUSIVE, State.STALE, State.CANARY, State.EVALUATING], "wait"),
    State.REJECTED: "bad",
}

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1] / "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters["moment"] = lambda at: at[:16].replace("T", " ")
_templates.filters["tone"] = lambda state: _TONES.get(State(state), "")


@router.get("/")
async def home(request: Request) -> Response:
    """The default policy: what is served, and why. Lists the others, if there are any."""
    service = service_of(request)
    content = await asyncio.to_thread(_render, service, service.default)
    return Response(content, media_type="text/html")


@router.get("/policies/{policy}")
async def of_policy(request: Request, policy: str) -> Response:
    """The same of a policy by its name."""
    service = service_of(request)
    content = await asyncio.to_thread(_render, service, service.find(policy, "policy"))
    return Response(content, media_type="text/html")


def _render(service: Service, policy: PolicyService) -> str:
    ledger, name = service.ledger, policy.name
    champion, canary = ledger.served(name)
    versions = ledger.versions(name)
    events = [event for event in ledger.events() if event.policy == name]
    trial = view(ledger, canary, time.time()) if canary else None
    of_champion = next((v for v in versions if champion and v.version == champion.version), None)
    return _templates.get_template("home.html.j2").render(
        policy=policy,
        policies=[] if len(service.policies) == 1 else listed(service),
        option="" if name == POLICY else f" --policy {name}",
        problem=service.problem() if name == POLICY else service.stopping or policy.problem,
        champion=champion,
        validation=of_champion.manifest.get("validation") if of_champion else None,
        canary=canary,
        trial=trial,
        watch=policy.watch.view(),
        drawing=draw(trial) if trial else "",
        tried=views(ledger, name),
        window=_window(ledger, name),
        waiting=[(v, _summary(service, v)) for v in versions if v.state in _WAITING],
        versions=versions[::-1],
        reports={v.version for v in versions if v.report_path is not None},
        events=events[: -SHOWN_EVENTS - 1 : -1],
        older=max(0, len(events) - SHOWN_EVENTS),
    )


def _window(ledger: Ledger, policy: str) -> WindowView | None:
    """The window of a fresh champion."""
    found = ledger.holdback(policy)
    return None if found is None else window_view(ledger, found, time.time())


_WAITING = (State.PASSED, State.APPROVED)


def _summary(service: Service, version: Version) -> str:
    verdict: dict[str, Any] = service.ledger.passed(version.version)[1]
    return str(verdict.get("summary") or verdict["verdict"])
