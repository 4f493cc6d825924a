"""What an event set, in words: the share or status of a trial, a policy's mode, whose token.

Such a step leads from a state to the same state, or has none, so its states say nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from serving.registry.ledger import Ledger
from serving.registry.records import Event
from srghn.errors import LedgerError

#: The steps whose value is told, and its name in their evidence.
_TOLD = {
    "set_canary_weight": "weight",
    "set_trial_status": "status",
    "set_mode": "mode",
    **dict.fromkeys(("add_token", "rotate_token", "revoke_tokens"), "owner"),
}


def value(ledger: Ledger, event: Event) -> str:
    """What an event set, such as `5%` or `paused`; empty if it set nothing that is told so."""
    if event.action not in _TOLD or event.from_state != event.to_state:
        return ""
    if event.evidence_sha256 is None:
        return ""
    try:
        said = ledger.evidence(event.evidence_sha256)
    except LedgerError:  # `verify` names it; the history is still shown
        return ""
    if event.action == "set_canary_weight":
        return f"{100 * said[_TOLD[event.action]]:g}%"
    return str(said.get(_TOLD[event.action], ""))


def values(ledger: Ledger, events: Iterable[Event]) -> dict[int, str]:
    """`value` of each event, by its number."""
    return {event.seq: value(ledger, event) for event in events}
