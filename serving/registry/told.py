"""What an event set, in words: the share or status of a trial, the mode of a policy's world.

Such a step leads from a state to the same state, or has none, so its states say nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from serving.registry.ledger import Ledger
from serving.registry.records import Event
from srghn.errors import LedgerError


def value(ledger: Ledger, event: Event) -> str:
    """What an event set, such as `5%` or `paused`; empty if it set nothing that is told so."""
    if event.from_state != event.to_state or event.evidence_sha256 is None:
        return ""
    try:
        said = ledger.evidence(event.evidence_sha256)
    except LedgerError:  # `verify` names it; the history is still shown
        return ""
    if event.action == "set_canary_weight":
        return f"{100 * said['weight']:g}%"
    name = {"set_trial_status": "status", "set_mode": "mode"}.get(event.action)
    return str(said.get(name, "")) if name else ""


def values(ledger: Ledger, events: Iterable[Event]) -> dict[int, str]:
    """`value` of each event, by its number."""
    return {event.seq: value(ledger, event) for event in events}
