"""Did the watch alarm during a trial? The event that ends it says so, for people alone."""

from __future__ import annotations

from typing import Any

from serving.control.watch import standing
from serving.registry.ledger import Ledger
from serving.registry.records import Canary, Event
from serving.trial.decision import Decision


def moved_under(ledger: Ledger, canary: Canary) -> Event | None:
    """The alarm for the champion that was raised during the trial and still stands, if any."""
    return standing(ledger, canary.policy, since=canary.epoch)


def explained(decision: Decision, moved: Event | None) -> tuple[str, dict[str, Any]]:
    """The reason and the evidence of a trial that ends without a promotion."""
    said = decision.to_json()
    if moved is None:
        return decision.reason, said
    why = f"the world seems to have moved ({moved.reason}): {decision.reason}"
    return why, {**said, "drift": moved.hash}
