"""A running trial for people: its decision so far, bounds of the effect, and its plan."""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from serving.registry.holdbacks import worded
from serving.registry.ledger import Ledger
from serving.registry.records import Canary, Holdback
from serving.registry.rows import iso
from serving.registry.trial_log import to_log, to_state
from serving.trial.decision import Decision, advance, decide
from serving.trial.evidence import Log, begin, effect_bounds, joined
from serving.trial.plan import Plan, plan

#: Most starts that the bounds use; few trials are longer.
SHOWN = 20_000


@dataclass(frozen=True)
class TrialView:
    """A trial for people. `low`, `high` bound the canary's mean return minus the champion's.

    `outside` outcomes were outside the range of returns and were clipped.
    """

    canary: Canary
    decision: Decision
    low: float
    high: float
    plan: Plan
    outside: int = 0


@dataclass(frozen=True)
class Standing:
    """How far a trial is: `episodes` of at most `most` are evidence of the present attempt."""

    decision: Decision
    episodes: int
    most: int

    @property
    def said(self) -> str:
        """The counts of both arms and the decision so far, as text."""
        arms = {"champion": self.decision.champion, "canary": self.decision.canary}
        counts = ", ".join(
            f"{name} {arm['episodes'] - arm['missing']} outcomes and {arm['missing']} missing"
            for name, arm in arms.items()
        )
        action = "" if self.decision.action == "wait" else f"{self.decision.action}: "
        count = f"{self.episodes} of at most {self.most} episodes are evidence"
        return f"{count} ({counts}); {action}{self.decision.reason}"

    def to_json(self) -> dict[str, Any]:
        counts = {"episodes": self.episodes, "max_episodes": self.most}
        return counts | {"decision": self.decision.to_json()}


@dataclass(frozen=True)
class WindowView:
    """The window of a fresh champion, for people."""

    window: Holdback
    decision: Decision

    @property
    def said(self) -> str:
        """The state of the window, as text."""
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
    """The view of a window at `now` (Unix seconds); raises `LedgerError`."""
    found = ledger.resolved(window.policy, window.epoch, 0, now, SHOWN)
    log = to_log(found, window.rules, held=True)
    return WindowView(window, advance(begin(window.rules), log, window.rules)[1])


def standing(ledger: Ledger, canary: Canary, now: float) -> Standing:
    """How far a trial is at `now` (Unix seconds), after the running state; raises `LedgerError`."""
    running, rules = ledger.trial_state(canary.policy, canary.epoch), canary.rules
    found = ledger.resolved(canary.policy, canary.epoch, running.n if running else 0, now, SHOWN)
    state = to_state(running.state if running else {}, rules)
    state, decision = advance(state, to_log(found, rules), rules)
    return Standing(decision, state.episodes - state.since, rules.max_episodes)


def view(ledger: Ledger, canary: Canary, now: float) -> TrialView:
    """The view of a trial at `now` (Unix seconds); raises `LedgerError`."""
    return Views(ledger).view(canary, now)


@dataclass(frozen=True)
class _Kept:
    """A trial's evidence up to start `n`, and its bounds."""

    epoch: int
    n: int
    numbers: tuple[int, ...]
    log: Log
    bounds: tuple[float, float]
    outside: int = 0


class Views:
    """Views of running trials. Each continues the previous one, so a page reads only new starts."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._lock = ledger, threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def view(self, canary: Canary, now: float) -> TrialView:
        """The view of a trial at `now` (Unix seconds); raises `LedgerError`."""
        with self._lock:
            kept = self._kept[canary.policy] = self._go_on(canary, now)
        rules = canary.rules
        running = self._ledger.trial_state(canary.policy, canary.epoch)
        counted = bisect_right(kept.numbers, running.n if running else 0)
        state = to_state(running.state if running else {}, rules)
        state, _ = advance(state, kept.log[counted:], rules)
        span = rules.high - rules.low
        means = [mean for mean in (state.champion.mean, state.canary.mean) if mean is not None]
        expected = sum(means) / len(means) if means else 0.5
        low, high = (bound * span for bound in kept.bounds)
        planned = plan(rules, mean=expected)
        return TrialView(canary, decide(state, rules), low, high, planned, kept.outside)

    def _go_on(self, canary: Canary, now: float) -> _Kept:
        rules, kept = canary.rules, self._kept.get(canary.policy)
        if kept is None or kept.epoch != canary.epoch:
            empty = to_log([], rules)
            kept = _Kept(canary.epoch, 0, (), empty, effect_bounds(empty, rules))
        most = SHOWN - len(kept.log)
        if most <= 0:
            return kept
        found = self._ledger.resolved(canary.policy, canary.epoch, kept.n, now, most)
        if not found:
            return kept
        log = joined(kept.log, to_log(found, rules))
        numbers = (*kept.numbers, *(row.n for row in found))
        known = (row.return_ for row in found if row.return_ is not None)
        outside = kept.outside + sum(map(rules.outside, known))
        return _Kept(canary.epoch, found[-1].n, numbers, log, effect_bounds(log, rules), outside)
