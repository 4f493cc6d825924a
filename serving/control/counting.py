"""Counts each resolved start of a trial or a holdback once, in whichever worker."""

from __future__ import annotations

from dataclasses import dataclass

from serving.registry.ledger import Ledger
from serving.registry.trial_log import to_log, to_state
from serving.trial.decision import Decision, advance, decide
from serving.trial.evidence import TrialState
from serving.trial.rules import TrialRules

#: Most starts that are counted at one look; the next look continues.
AT_ONCE = 5000


@dataclass(frozen=True)
class Counting:
    """A trial or holdback to count, up to its decision.

    `held`: it is a holdback, in which the champion is the tried arm.
    """

    policy: str
    epoch: int
    rules: TrialRules
    held: bool = False


def count(ledger: Ledger, of: Counting, now: float) -> tuple[TrialState, Decision]:
    """The state after all starts that are resolved at `now` (Unix seconds), and the decision.

    The running state is in the ledger and is updated by compare-and-set. Raises `LedgerError`.
    """
    running = ledger.trial_state(of.policy, of.epoch)
    state = to_state(running.state if running else {}, of.rules)
    after = running.n if running else 0
    found = ledger.resolved(of.policy, of.epoch, after, now, AT_ONCE)
    if not found:
        return state, decide(state, of.rules)
    log = to_log(found, of.rules, of.held)
    moved, decision = advance(state, log, of.rules)
    used = moved.episodes - state.episodes
    if used:
        ledger.advance_trial(of.policy, of.epoch, after, found[used - 1].n, moved.to_json())
    return moved, decision
