"""Routes for the champion, the versions and their reports."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from serving.control.episodes import NotReady
from serving.control.follower import NO_CHAMPION
from serving.http import answer
from serving.pages.rendering import HEADERS
from serving.registry import reports
from serving.registry.artefacts import ArtefactStore
from serving.registry.interfaces import key_of
from serving.registry.ledger import Ledger
from serving.registry.names import base_of
from serving.registry.records import Event, Version
from serving.schemas import BadRequest
from serving.service import policy_of, service_of

router = APIRouter(tags=["review"])


@router.get("/v1/champion")
async def champion(request: Request) -> Response:
    """The champion, since when and by whom, and the version on trial."""
    ledger, policy = service_of(request).ledger, policy_of(request).name
    found, canary = await asyncio.to_thread(ledger.served, policy)
    if found is None:
        raise NotReady(NO_CHAMPION)
    content: dict[str, Any] = asdict(found) | {"canary": None}
    served = policy_of(request).follower.served.find(found.version)
    content["interface"] = served.interface if served is not None else None
    if canary is not None:
        content["canary"] = {
            "version": canary.version,
            "digest": canary.digest,
            "weight": canary.weight,
            "since": canary.since,
        }
    return answer(content)


@router.get("/v1/versions")
async def versions(request: Request) -> Response:
    """Every version of the policy, the newest first."""
    ledger, policy = service_of(request).ledger, policy_of(request).name
    found = await asyncio.to_thread(ledger.versions, policy)
    return answer({"versions": [summary(version) for version in reversed(found)]})


@router.get("/v1/versions/{version}")
async def version(request: Request, version: str) -> Response:
    """One version: digests, verdict and its events."""
    found = await asyncio.to_thread(find, request, version)
    return answer(await asyncio.to_thread(_detail, service_of(request).ledger, found))


@router.get("/v1/versions/{version}/report")
async def report(request: Request, version: str) -> Response:
    """The promotion report, for people."""
    return await _report(request, version, "report.html")


@router.get("/v1/versions/{version}/data_docs.html")
async def data_docs(request: Request, version: str) -> Response:
    """Great Expectations' results for the tables behind the report, for people."""
    return await _report(request, version, "data_docs.html")


@router.get("/v1/versions/{version}/report.json")
async def report_json(request: Request, version: str) -> Response:
    """The promotion report, for programs."""
    return await _report(request, version, "report.json")


def find(request: Request, text: str) -> Version:
    """The version in a path, if it is of the path's policy; raises `BadRequest` (404, 422)."""
    policy, found = policy_of(request), find_any(service_of(request).ledger, text)
    if found.policy != policy.name:
        of = found.policy
        raise BadRequest(
            404, "version", f"one of policy {policy.name!r}", f"one of policy {of!r}",
            hint=f"see {base_of(of)}/versions/{text}",
        )  # fmt: skip
    return found


def find_any(ledger: Ledger, text: str) -> Version:
    """The version with this number, of any policy; raises `BadRequest` (404, 422)."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequest(422, "version", "a version's number", repr(text[:80]))
    found = ledger.versions(after=int(text) - 1, limit=1)
    if not found or found[0].version != int(text):
        raise BadRequest(404, "version", "a version of the ledger", text, hint="see /v1/versions")
    return found[0]


def summary(version: Version) -> dict[str, Any]:
    """A version without its manifest."""
    content = asdict(version)
    del content["manifest"], content["report_path"]
    return content


def _detail(ledger: Ledger, version: Version) -> dict[str, Any]:
    events = ledger.events(version.version)
    judged = [event for event in events if event.from_state == "EVALUATING"]
    sha = judged[-1].evidence_sha256 if judged else None
    return summary(version) | {
        "interface": key_of(version.manifest.get("interface", {})),
        "manifest": dict(version.manifest),
        "verdict": ledger.evidence(sha) if sha else None,
        "events": [_event(event) for event in events],
    }


def _event(event: Event) -> dict[str, Any]:
    content = asdict(event)
    content["from"], content["to"] = content.pop("from_state"), content.pop("to_state")
    return content


async def _report(request: Request, text: str, name: str) -> Response:
    service, found = service_of(request), await asyncio.to_thread(find, request, text)
    file = await asyncio.to_thread(report_file, service.ledger, service.store, found.version, name)
    if file is None:
        raise BadRequest(
            404, "report", f"a report of version {found.version}", f"none: it is {found.state}"
        )
    return FileResponse(file, headers=None if name.endswith(".json") else HEADERS)


def report_file(ledger: Ledger, store: ArtefactStore, version: int, name: str) -> Path | None:
    """A file of a version's report; None if the version has no such file.

    Raises `BadRequest` (503) if it is not the file that the verdict names. Verdicts of version
    0.2.0 name only the page; then the other file is accepted if the page is right.
    """
    verdict = ledger.verdict(version)
    if verdict is None:
        return None
    where = store.report(verdict)
    if not (where / name).is_file():
        if name not in reports.digests(verdict):
            return None
        raise _not_the_one(version, "no such file", where)
    checked = name if verdict.get("evidence") else reports.PAGE
    if reports.problem(where, verdict, checked) is not None:
        raise _not_the_one(version, "a changed file", where)
    return where / name


def _not_the_one(version: int, got: str, where: Path) -> BadRequest:
    hint = f"restore {where.parent.name}/{where.name} from a backup"
    named = f"the one that the verdict on version {version} names"
    return BadRequest(503, "report", named, got, hint=hint)
