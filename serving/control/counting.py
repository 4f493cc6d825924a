"""Counts each resolved start of a trial or a holdback once, in whichever worker."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from serving.registry.faults import UNWRITABLE
from serving.registry.ledger import Ledger
from serving.registry.trial_log import to_log, to_state
from serving.trial.decision import Decision, advance, decide
from serving.trial.evidence import TrialState
from serving.trial.rules import TrialRules

logger = logging.getLogger(__name__)

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

    The running state is in the ledger and is updated by compare-and-set. If it cannot be written,
    the decision stands all the same: to take a harmful version out of service needs less room.
    Raises `LedgerError` if the ledger cannot be read.
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
        try:
            ledger.advance_trial(of.policy, of.epoch, after, found[used - 1].n, moved.to_json())
        except UNWRITABLE as error:
            logger.error("%d starts are counted again at the next look: %s", used, error)
    return moved, decision
