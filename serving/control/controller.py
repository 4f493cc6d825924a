"""Ends a trial when its evidence decides. Runs in every worker; the ledger lets only one act."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from serving.control.counting import Counting, count
from serving.control.moved import explained, moved_under
from serving.control.routing import Served
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Canary, Who
from serving.trial.decision import Decision, weight_now
from serving.trial.evidence import TrialState
from serving.trial.guards import broken
from srghn.errors import TransitionRefused

logger = logging.getLogger(__name__)

ACTOR = "canary controller"


class Controller:
    """Counts the resolved starts of a trial in their order, and acts on the decision.

    The running state is in the ledger and is updated by compare-and-set. So workers count each
    start once, and a restart continues where the trial was. `latest` is the last decision and its
    trial, for the page. An alarm of the watch changes no end of a trial, whose event names it: both
    arms are in the same world, so neither a false alarm nor a true one excuses the canary. A guard
    that copies of requests broke also ends the trial, whatever the trial's status.
    """

    def __init__(
        self, ledger: Ledger, policy: str = POLICY, clock: Callable[[], float] = time.time
    ) -> None:
        self.latest: tuple[int, Decision] | None = None
        self._ledger, self._policy, self._clock = ledger, policy, clock

    def judge(self, served: Served) -> bool:
        """Count and decide the trial of a canary that this worker serves; True if it ended."""
        canary = self._ledger.canary(self._policy)
        if canary is None or served.canary is None or served.canary.version != canary.version:
            return False
        if self._guarded(canary):
            return True
        of = Counting(canary.policy, canary.epoch, canary.rules)
        state, decision = count(self._ledger, of, self._clock())
        self.latest = (canary.epoch, decision)
        if canary.status != "running":
            return False
        if decision.action == "promote":
            return self._promote(canary, served.generation, decision.reason)
        if decision.action in ("abort", "expire"):
            end = self._abort if decision.action == "abort" else self._expire
            said = explained(decision, moved_under(self._ledger, canary))
            return self._try(end, canary, *said)
        silent = self._silent(canary, served)
        if silent is not None:
            return self._try(self._expire, canary, silent, decision.to_json())
        self._step(canary, state)
        return False

    def _silent(self, canary: Canary, served: Served) -> str | None:
        """Why a trial that no new episode joins expires; None while one may still join.

        Without it a successor whose clients never send both forms were on trial for ever.
        """
        rules, now = canary.rules, self._clock()
        allowed = max(rules.idle, rules.deadline)
        [said] = self._ledger.events(canary.version, newest=True, limit=1)
        if now - said.moment <= allowed:
            return None
        last = self._ledger.last_started(canary.policy, canary.epoch)
        if last is not None and now - last <= allowed:
            return None
        why = f"no new episode joined the trial within {allowed / 86400:.3g} days"
        if served.asked:
            assert served.canary is not None  # or nothing were asked for
            key = served.canary.interface
            why += f": no client sends its observations, those of interface {key}"
        return why

    def _guarded(self, canary: Canary) -> bool:
        """Abort if errors, invalid actions or latency broke a guard; True if it did."""
        _, seen = self._ledger.compared(canary.policy, canary.version)
        terms = self._ledger.deployment_rules(canary.policy).guards
        wrong = broken(seen, terms)
        if wrong is None:
            return False
        evidence = {"guard": vars(wrong), "copies": seen.to_json()}
        return self._try(self._abort, canary, f"guard of {wrong.name}: {wrong.said}", evidence)

    def _step(self, canary: Canary, state: TrialState) -> None:
        """Raise the canary's share if it has the outcomes that its present step requires.

        A share that a person has set stays.
        """
        weight = weight_now(state, canary.rules)
        if weight <= canary.weight or self._set_by_hand(canary):
            return
        why = f"{state.canary.outcomes} outcomes of the canary: next step"
        try:
            self._ledger.set_canary_weight(
                weight, who=Who(ACTOR, why), version=canary.version, policy=canary.policy
            )
        except TransitionRefused as error:
            logger.info("the canary's share was not raised: %s", error)

    def _set_by_hand(self, canary: Canary) -> bool:
        said = self._ledger.events(canary.version, since=canary.epoch)
        actors = [event.actor for event in said if event.action == "set_canary_weight"]
        return any(actor != ACTOR for actor in actors)

    def _promote(self, canary: Canary, generation: int, reason: str) -> bool:
        def promote() -> None:
            who = Who(ACTOR, reason)
            self._ledger.promote(canary.version, expected_generation=generation, who=who)

        return self._try(promote)

    def _abort(self, canary: Canary, reason: str, evidence: dict[str, Any]) -> None:
        who = Who(ACTOR, reason)
        self._ledger.abort_canary(
            version=canary.version, who=who, evidence=evidence, policy=canary.policy
        )

    def _expire(self, canary: Canary, reason: str, evidence: dict[str, Any]) -> None:
        who = Who(ACTOR, reason)
        self._ledger.expire_canary(
            version=canary.version, who=who, evidence=evidence, policy=canary.policy
        )

    def _try(self, step: Callable[..., None], *given: Any) -> bool:
        """Take a step; True if it was taken. Another worker or a person may have been first."""
        try:
            step(*given)
        except TransitionRefused as error:
            logger.info("a step of the trial was not taken: %s", error)
            return False
        return True
