"""A running trial as people see it: its decision so far, bounds of the effect, and its plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.registry.holdbacks import worded
from serving.registry.ledger import Ledger
from serving.registry.records import Canary, Holdback
from serving.registry.rows import iso
from serving.registry.trial_log import to_log, to_state
from serving.trial.decision import Decision, advance, decide
from serving.trial.evidence import begin, effect_bounds
from serving.trial.plan import Plan, plan

#: Starts that the bounds look back on; a trial is seldom longer.
SHOWN = 20_000


@dataclass(frozen=True)
class TrialView:
    """`low`, `high`: bounds of the canary's mean return less the champion's, in returns."""

    canary: Canary
    decision: Decision
    low: float
    high: float
    plan: Plan


@dataclass(frozen=True)
class WindowView:
    """The window of a fresh champion as people see it."""

    window: Holdback
    decision: Decision

    @property
    def said(self) -> str:
        """What is going on, in a sentence."""
        window, decision = self.window, self.decision
        return (
            f"version {window.version} is in its window until {iso(window.until)[:16]}: "
            f"{100 * window.share:g}% of new episodes stay on version {window.predecessor}. "
            f"{worded(decision)}; evidence that it is worse: {decision.harm:.3g} of "
            f"{decision.needed:.0f}"
        )

    def to_json(self) -> dict[str, Any]:
        rules = {"rules": self.window.rules.to_json()}
        return {**vars(self.window), **rules, "decision": self.decision.to_json()}


def window_view(ledger: Ledger, window: Holdback, now: float) -> WindowView:
    """What the ledger holds of a window at `now` (Unix seconds)."""
    found = ledger.resolved(window.policy, window.epoch, 0, now, SHOWN)
    log = to_log(found, window.rules, held=True)
    return WindowView(window, advance(begin(window.rules), log, window.rules)[1])


def view(ledger: Ledger, canary: Canary, now: float) -> TrialView:
    """What the ledger holds of a trial at `now` (Unix seconds)."""
    rules = canary.rules
    running = ledger.trial_state(canary.policy, canary.epoch)
    found = ledger.resolved(canary.policy, canary.epoch, 0, now, SHOWN)
    log = to_log(found, rules)
    uncounted = [row.n > (running.n if running else 0) for row in found]
    state = to_state(running.state if running else {}, rules)
    state, _ = advance(state, log[len(found) - sum(uncounted) :], rules, hold=True)
    low, high = effect_bounds(log, rules)
    span = rules.high - rules.low
    means = [mean for mean in (state.champion.mean, state.canary.mean) if mean is not None]
    expected = sum(means) / len(means) if means else 0.5
    return TrialView(
        canary, decide(state, rules), low * span, high * span, plan(rules, mean=expected)
    )
