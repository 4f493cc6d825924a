"""Did the world move under a trial? Then what it lost is not its canary's fault."""

from __future__ import annotations

from typing import Any

from serving.control.watch import standing
from serving.registry.ledger import Ledger
from serving.registry.records import Canary, Event
from serving.trial.decision import Decision


def moved_under(ledger: Ledger, canary: Canary) -> Event | None:
    """The alarm over the champion that was raised since the trial began, and stands."""
    return standing(ledger, canary.policy, since=canary.epoch)


def explained(decision: Decision, moved: Event | None) -> tuple[str, dict[str, Any]]:
    """Why a trial ends without a promotion, and the evidence."""
    said = decision.to_json()
    if moved is None:
        return decision.reason, said
    return f"the world moved ({moved.reason}): {decision.reason}", {**said, "drift": moved.hash}
