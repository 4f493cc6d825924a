"""The pages for people: served versions and why, versions that wait, each version, the history."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving import runs
from serving.auth import require_policy
from serving.control.adapted import latest_step
from serving.control.shadow import views
from serving.pages.intervals import draw
from serving.pages.rendering import page
from serving.policy import PolicyService
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Event, Version
from serving.registry.states import State
from serving.registry.told import values
from serving.registry.trial_view import WindowView, window_view
from serving.routes.policies import listed
from serving.routes.versions import find_any
from serving.schemas import BadRequest
from serving.service import Service, service_of
from serving.tokens import Token
from srghn.errors import ArtefactError, LedgerError

router = APIRouter(include_in_schema=False)

SHOWN_EVENTS, SHOWN_VERSIONS, SHOWN_WAITING = 20, 20, 20
PAGE = 100
#: Of a longer lineage, only the first and the last births are shown.
HEAD, TAIL = 5, 25
#: Failed runs are shown for this many seconds.
RUN_SECONDS = 7 * 24 * 3600
_DIGESTS = ("env_fingerprint", "genome", "digest")
_WAITING = (State.PASSED, State.APPROVED, State.SHADOW, State.EXPIRED)


@router.get("/")
async def home(request: Request) -> Response:
    """The page of the default policy: champion, trial, reviews, history; and other policies."""
    return await _show(request, service_of(request).default)


@router.get("/policies/{policy}")
async def of_policy(request: Request, policy: str) -> Response:
    """The same page of a named policy."""
    found = service_of(request).find(policy, "policy")
    require_policy(request, found.name)
    return await _show(request, found)


async def _show(request: Request, policy: PolicyService) -> Response:
    service = service_of(request)
    session = await service.sessions.find(request)
    content = await asyncio.to_thread(_home, service, policy)
    if _limited(request):  # no word about others
        content |= {"policies": [], "runs": []}
    done = await asyncio.to_thread(_done, service.ledger, request.query_params.get("done", ""))
    if done is not None and done.policy != policy.name:
        done = None
    return await asyncio.to_thread(page, request, "home", session=session, done=done, **content)


@router.get("/versions")
async def versions(request: Request) -> Response:
    """A list of all versions, of one policy or of all, in pages."""
    service, (before, policy) = service_of(request), _asked(request)
    require_policy(request, policy)
    found = await asyncio.to_thread(_versions_before, service.ledger, before, policy)
    numbers = [version.version for version in found]
    return await _list(request, "versions", numbers, versions=found[:PAGE])


@router.get("/history")
async def history(request: Request) -> Response:
    """A list of all events, of one policy or of all, in pages."""
    service, (before, policy) = service_of(request), _asked(request)
    require_policy(request, policy)
    found = await asyncio.to_thread(_events_before, service.ledger, before, policy)
    told = await asyncio.to_thread(values, service.ledger, found[:PAGE])
    numbers = [event.seq for event in found]
    return await _list(request, "history", numbers, events=found[:PAGE], values=told)


async def _list(request: Request, name: str, numbers: list[int], **content: Any) -> Response:
    """A page of a list; of the `numbers` of its rows, one more than a page says that it goes on."""
    session = await service_of(request).sessions.find(request)
    policy = request.query_params.get("policy")
    more = f"{name}?before={numbers[PAGE - 1]}" if len(numbers) > PAGE else ""
    if more and policy:
        more += f"&policy={policy}"
    if policy:
        content["policy"] = policy
    if "before" in request.query_params:
        content["end"] = "There are no earlier ones."
    table = {"versions": "versions", "history": "events"}[name]
    content |= {"heading": name, "table": f"{table}_table.html.j2", "next": more}
    return page(request, "list", session=session, **content)


@router.get("/versions/{version}")
async def version(request: Request, version: str) -> Response:
    """The page of a version: its verdict, its lineage, its history."""
    service = service_of(request)
    session = await service.sessions.find(request)
    found = await asyncio.to_thread(find_any, service.ledger, version)
    require_policy(request, found.policy)
    content = await asyncio.to_thread(_version, service, found)
    content["policy"] = found.policy
    return page(request, "version", session=session, version=found, **content)


@router.get("/compare")
async def compare(request: Request) -> Response:
    """Two versions side by side."""
    service, asked = service_of(request), request.query_params
    session = await service.sessions.find(request)
    both = [await asyncio.to_thread(find_any, service.ledger, asked.get(n, "")) for n in ("a", "b")]
    for one in both:
        require_policy(request, one.policy)
    content = await asyncio.to_thread(_compare, service.ledger, *both)
    if both[0].policy == both[1].policy:
        content["policy"] = both[0].policy
    return page(request, "compare", session=session, a=both[0], b=both[1], **content)


@router.get("/episode")
async def episode(request: Request) -> Response:
    """The ledger's record of an episode, with its arm (scope review).

    Without a policy, those of all policies for which the token is good: each names its episodes.
    """
    service, asked = service_of(request), request.query_params
    name, wanted = asked.get("id", "").strip()[:200], asked.get("policy", "")
    if wanted:
        require_policy(request, service.find(wanted, "policy").name)
    session, token = await service.sessions.find(request), request.state.token
    known = [policy for policy in sorted(service.policies) if token.good_for(policy)]
    searched = [wanted] if wanted else known
    found = await asyncio.to_thread(_episodes, service.ledger, name, searched) if name else []
    content: dict[str, Any] = {"policy": wanted} if wanted else {}
    return page(
        request, "episode", session=session, id=name, found=found, known=known, wanted=wanted,
        **content,
    )  # fmt: skip


def _episodes(ledger: Ledger, name: str, policies: list[str]) -> list[dict[str, Any]]:
    """The episode of this name of each policy that has one."""
    found = []
    for policy in policies:
        episode = ledger.find_episode(name, policy)
        if episode is not None:
            ended = _clock(episode.ended_at) if episode.ended_at else ""
            began = _clock(episode.started_at)
            found.append({"policy": policy, "episode": episode, "began": began, "ended": ended})
    return found


def _limited(request: Request) -> bool:
    """Whether it was let in with a token of one policy."""
    token: Token | None = getattr(request.state, "token", None)
    return token is not None and token.policy is not None


def _home(service: Service, of: PolicyService) -> dict[str, Any]:
    ledger, policy = service.ledger, of.name
    champion, canary = ledger.served(policy)
    shown = ledger.versions(policy, newest=True, limit=SHOWN_VERSIONS + 1)
    events = ledger.events(newest=True, limit=SHOWN_EVENTS, policy=policy)
    trial = service.views.view(canary, time.time()) if canary else None
    of_champion = ledger.version(champion.version) if champion else None
    waiting = ledger.versions(policy, states=_WAITING, limit=SHOWN_WAITING)
    seen = [of_champion, ledger.version(canary.version) if canary else None, *waiting]
    return {
        "policy": policy,
        "policies": [] if len(service.policies) == 1 else listed(service),
        "option": "" if policy == POLICY else f" --policy {policy}",
        "problem": service.problem() if policy == POLICY else service.stopping or of.problem,
        "champion": champion,
        "former": ledger.former(policy, most=1),
        "validation": of_champion.manifest.get("validation") if of_champion else None,
        "canary": canary,
        "trial": trial,
        "open_outcomes": not service.keeper.outcomes,
        "tried": views(ledger, policy),
        "window": _window(ledger, policy),
        "watch": of.watch.view(),
        "adapted": latest_step(ledger, policy),
        "drawings": [draw(trial, width) for width in (640, 360)] if trial else [],
        "runs": _runs(service),
        "waiting": [(v, summary_of(ledger, v)) for v in waiting],
        "versions": shown[:SHOWN_VERSIONS],
        "more_versions": len(shown) > SHOWN_VERSIONS,
        "reported": {v.version for v in seen if v is not None and v.report_path is not None},
        "events": events,
        "values": values(ledger, events),
        "older": ledger.count(policy) - len(events),
    }


def _window(ledger: Ledger, policy: str) -> WindowView | None:
    """The view of a fresh champion's window, if any."""
    found = ledger.holdback(policy)
    return None if found is None else window_view(ledger, found, time.time())


def summary_of(ledger: Ledger, version: Version) -> str:
    """The gate's summary of a version that passed, in one line."""
    try:
        verdict: dict[str, Any] = ledger.passed(version.version)[1]
    except LedgerError as error:
        return str(error)
    return str(verdict.get("summary") or verdict["verdict"])


def _runs(service: Service) -> list[runs.RunTrace]:
    """Running runs, and those that failed in the last week without a later success."""
    shown, good = [], set()
    after = datetime.fromtimestamp(time.time() - RUN_SECONDS, UTC).isoformat()
    for trace in runs.recent(service.settings.home):
        if trace.schedule and trace.state in ("finished", "nothing new"):
            good.add(trace.schedule)
        trouble = trace.state in runs.TROUBLE and trace.at > after and trace.schedule not in good
        if trouble or trace.alive:
            shown.append(trace)
    return shown[:10]


def _done(ledger: Ledger, said: str) -> Any:
    """The event that records the decision just made, read from the ledger."""
    if not (said.isascii() and said.isdigit() and 0 < int(said[:10]) < 2**31):
        return None
    found = ledger.events(since=int(said[:10]) - 1, limit=1)
    return found[0] if found else None


def _asked(request: Request) -> tuple[int, str | None]:
    """The number before which a list begins, and its policy; raises `BadRequest`."""
    said, policy = request.query_params.get("before"), request.query_params.get("policy")
    if policy is not None:
        service_of(request).find(policy, "policy")
    if said is None:
        return 2**31, policy
    if not (said.isascii() and said.isdigit() and 0 < len(said) < 10):
        raise BadRequest(422, "before", "a number", repr(said[:80]))
    return int(said), policy


def _versions_before(ledger: Ledger, before: int, policy: str | None) -> list[Version]:
    return ledger.versions(policy, before=before, newest=True, limit=PAGE + 1)


def _events_before(ledger: Ledger, before: int, policy: str | None) -> list[Event]:
    return ledger.events(before=before, newest=True, limit=PAGE + 1, policy=policy)


def _version(service: Service, found: Version) -> dict[str, Any]:
    ledger = service.ledger
    events = ledger.events(found.version)[::-1]
    return {
        "champion": ledger.champion(found.policy),
        "incumbent": _of_digest(ledger, found),
        "verdict": ledger.verdict(found.version),
        "lineage": _lineage(service, found),
        "events": events,
        "values": values(ledger, events),
    }


def _of_digest(ledger: Ledger, found: Version) -> Version | None:
    """The champion that a version was judged against."""
    if found.incumbent_digest is None:
        return None
    same = ledger.versions(found.policy, digest=found.incumbent_digest, newest=True, limit=1)
    return same[0] if same else None


def _lineage(service: Service, found: Version) -> dict[str, Any] | None:
    """A version's ancestors, founder first, without the middle of a long chain.

    None if its files are not here. They are read as JSON; a server does not rebuild genomes.
    """
    try:
        text = (service.store.path(found.digest) / "ancestry.json").read_text(encoding="utf-8")
        text, _, told = text.partition(',"told":[')  # megabytes, which would hold up all answers
        said = json.loads(text + "}" if told else text)
        worlds = said["worlds"]
        names = said["columns"][:-1]
        chain = [
            {**dict(zip(names, row, strict=False)), "mode": worlds[row[-1]][1]}
            for row in said["chain"]
        ]
        searched = told.count("\n[") + len(chain) if told else 0  # a line each, and each run's last
    except (ArtefactError, OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    hidden = max(0, len(chain) - HEAD - TAIL)
    rows = chain[:HEAD] + chain[HEAD + hidden :] if hidden else chain
    return {"births": len(chain), "searched": searched, "rows": rows, "hidden": hidden}


def _compare(ledger: Ledger, a: Version, b: Version) -> dict[str, Any]:
    shown = ["state", "run_id", "mode", *_DIGESTS, "recall_of", "attempt"]
    verdicts = [ledger.verdict(one.version) or {} for one in (a, b)]
    facts = [(name.replace("_", " "), _short(a, name), _short(b, name)) for name in shown]
    left, right = (str(v.get("summary") or v.get("verdict") or "none") for v in verdicts)
    facts.append(("verdict", left, right))
    checks = [{c["name"]: c for c in v.get("checks", []) if "name" in c} for v in verdicts]
    names = dict.fromkeys([*checks[0], *checks[1]])
    return {"facts": facts, "checks": [(n, checks[0].get(n), checks[1].get(n)) for n in names]}


def _short(version: Version, name: str) -> str:
    """A field of a version as text; a digest is shortened."""
    value = getattr(version, name)
    return "none" if value is None else str(value)[:16] if name in _DIGESTS else str(value)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
