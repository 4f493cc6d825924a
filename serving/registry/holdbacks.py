"""A fresh champion's window: a random share of episodes stays on its predecessor.

The event of the promotion states the window and its rules; an event of the policy ends it. So a
holdback follows from the history alone, and no row decides about it. In the window the champion is
the tried arm. The bound that would end a trial as harmful brings the predecessor back. Both arms
are in the same world, so a fall of returns that both share does not count as harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from serving.registry import explain, rows, schema
from serving.registry.records import Canary, Champion, Event, Holdback
from serving.registry.rules import current_rules
from serving.registry.states import State
from serving.registry.steps import Step
from serving.trial.rules import TrialRules, WeightStep
from srghn.errors import TransitionRefused

if TYPE_CHECKING:
    from serving.trial.decision import Decision

HOLDBACK, END, ROLLBACK = "holdback", "end_holdback", "rollback_by_holdback"


def offer(step: Step, before: Champion, running: Canary) -> dict[str, Any]:
    """The evidence of a promotion about its window; empty if the rules have no holdback."""
    terms = current_rules(step.connection, step.policy).holdback
    if terms is None:
        return {}
    rules = running.rules.model_copy(
        update={
            "steps": (WeightStep(weight=1 - terms.share, outcomes=0),),
            "max_episodes": terms.episodes,
        }
    )
    said = {
        "predecessor": before.version,
        "share": terms.share,
        "seconds": 3600 * terms.hours,
        "rules": rules.to_json(),
    }
    return {HOLDBACK: said}


def find(connection: Connection, policy: str) -> Holdback | None:
    """The window that the present champion's promotion began; None if it has ended.

    Its time may be up (`until`). Raises `LedgerError` if the event was changed.
    """
    event = _last(connection, policy, schema.events.c.to_state == State.CHAMPION)
    if event is None or event.evidence_sha256 is None or event.version is None:
        return None
    said = rows.find_evidence(connection, event.evidence_sha256).get(HOLDBACK)
    if said is None:
        return None
    explain.check_hash(event)
    ended = _last(connection, policy, schema.events.c.action == END)
    predecessor = rows.find_version(connection, said["predecessor"])
    gone = predecessor.state is not State.RETIRED or predecessor.quarantined
    if gone or (ended is not None and ended.seq > event.seq):
        return None
    return Holdback(
        version=event.version,
        predecessor=predecessor.version,
        share=said["share"],
        epoch=event.seq,
        rules=TrialRules.model_validate(said["rules"]),
        until=event.moment + said["seconds"],
        policy=policy,
    )


def check_none(step: Step) -> None:
    """Refuse a trial in a window: two experiments would share one champion."""
    found = find(step.connection, step.policy)
    if found is not None and step.now < found.until:
        raise TransitionRefused(
            f"version {found.version} is in its window: {100 * found.share:g}% of episodes stay on "
            f"version {found.predecessor}; wait, or end it: srghn canary holdback --stop --reason "
            "..."
        )


def end(step: Step, evidence: Mapping[str, Any]) -> None:
    """End the window; the champion stays."""
    found = find(step.connection, step.policy)
    if found is None:
        raise TransitionRefused("no champion is in its window; there is nothing to end")
    said = {"version": found.version, "predecessor": found.predecessor, "epoch": found.epoch}
    step.record(None, None, None, {**said, **evidence})


def check_harm(step: Step) -> tuple[Holdback, Decision]:
    """Decide again on the starts in the ledger; `TransitionRefused` unless they show harm."""
    from serving.registry.trial_log import decide_held  # numpy, which only this step needs

    found = find(step.connection, step.policy)
    if found is None:
        raise TransitionRefused("no champion is in its window; roll back by hand: srghn rollback")
    decision = decide_held(step.connection, found, step.now)
    if decision.action != "abort":
        raise TransitionRefused(
            f"the holdback does not show that version {found.version} is worse than version "
            f"{found.predecessor}: {worded(decision)}"
        )
    return found, decision


def worded(decision: Decision) -> str:
    """Mean and number of episodes of both arms, as text; the champion is the tried arm."""
    parts = []
    for name, arm in (("champion", decision.canary), ("predecessor", decision.champion)):
        mean = "no outcome" if arm["mean"] is None else f"mean {100 * arm['mean']:.1f}%"
        count = arm["episodes"] - arm["missing"]
        parts.append(f"{name} {mean} of the range over {count} episodes")
    return ", ".join(parts)


def _last(connection: Connection, policy: str, what: Any) -> Event | None:
    table = schema.events
    query = select(table).where(table.c.policy == policy, what)
    row = connection.execute(query.order_by(table.c.seq.desc()).limit(1)).one_or_none()
    return None if row is None else Event(**row._mapping)
