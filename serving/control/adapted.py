"""The alarm over the champion of now, and what was done about it in the words of each step."""

from __future__ import annotations

from serving.control.watch import standing
from serving.registry.ledger import Ledger
from serving.registry.records import Event

#: The action of a step after an alarm; `pipelines.adapt` writes it.
ADAPT = "adapt"


def current_alarm(ledger: Ledger, policy: str) -> Event | None:
    """The standing alarm; None without one, or after a recovery or a promotion."""
    alarm, champion = standing(ledger, policy), ledger.champion(policy)
    if alarm is None or champion is None or alarm.generation != champion.generation:
        return None
    return alarm


def latest_step(ledger: Ledger, policy: str) -> str | None:
    """The latest step after the current alarm; None without an alarm or a step."""
    alarm = current_alarm(ledger, policy)
    taken = ledger.notes(policy, ADAPT, since=alarm.seq) if alarm else []
    return taken[-1].reason if taken else None
