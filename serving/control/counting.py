"""Counts the starts of a trial or a holdback that are resolved, once, whoever counts them."""

from __future__ import annotations

from dataclasses import dataclass

from serving.registry.ledger import Ledger
from serving.registry.trial_log import to_log, to_state
from serving.trial.decision import Decision, advance, decide
from serving.trial.evidence import TrialState
from serving.trial.rules import TrialRules

#: Starts that are counted at one look; the next look takes the next ones.
AT_ONCE = 5000


@dataclass(frozen=True)
class Counting:
    """What is counted. `hold`: to the end of the log, whatever is decided on the way.

    `held`: a holdback, in which the champion is the arm that is tried.
    """

    policy: str
    epoch: int
    rules: TrialRules
    hold: bool = False
    held: bool = False


def count(ledger: Ledger, of: Counting, now: float) -> tuple[TrialState, Decision]:
    """The state after every start that is resolved at `now`, and the decision on it.

    The running state is the ledger's and moves on by compare-and-set.
    """
    running = ledger.trial_state(of.policy, of.epoch)
    state = to_state(running.state if running else {}, of.rules)
    after = running.n if running else 0
    found = ledger.resolved(of.policy, of.epoch, after, now, AT_ONCE)
    if not found:
        return state, decide(state, of.rules)
    log = to_log(found, of.rules, of.held)
    moved, decision = advance(state, log, of.rules, hold=of.hold)
    used = moved.episodes - state.episodes
    if used:
        ledger.advance_trial(of.policy, of.epoch, after, found[used - 1].n, moved.to_json())
    return moved, decision
