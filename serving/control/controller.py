"""Ends a trial when its evidence says so. Runs in every worker; the ledger lets one of them win."""

from __future__ import annotations

import logging

from serving.control.routing import Served
from serving.registry.ledger import Ledger
from serving.registry.records import Canary, Who
from serving.trial.by_arrival import Decision, decide
from srghn.errors import TransitionRefused

logger = logging.getLogger(__name__)

ACTOR = "canary controller"


class Controller:
    """Decides on what the ledger holds, so that a restart goes on where the trial was.

    `latest` is the last decision and its trial, for the page. A canary that failed to answer is
    reported by `report` and aborted at the next look.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.latest: tuple[int, Decision] | None = None
        self._ledger = ledger
        self._failure: tuple[int, str] | None = None

    def report(self, version: int, why: str) -> None:
        self._failure = (version, why)

    def judge(self, served: Served) -> bool:
        """Look at the trial of a canary that this worker serves; True if the trial ended."""
        canary = self._ledger.canary()
        if canary is None or served.canary is None or served.canary.version != canary.version:
            return False
        if self._failure is not None and self._failure[0] == canary.version:
            return self._abort(canary.version, f"it failed to answer: {self._failure[1]}", None)
        decision = self._decide(canary)
        if decision.action == "abort":
            return self._abort(canary.version, decision.reason, decision)
        if decision.action == "promote":
            return self._promote(canary.version, served.generation, decision)
        return False

    def _decide(self, canary: Canary) -> Decision:
        """The decision on all outcomes so far; made again only when there are new ones."""
        arms = self._ledger.arms(canary.epoch)
        if self.latest is not None and self.latest[0] == canary.epoch:
            known = self.latest[1]
            if (len(arms[0]), len(arms[1])) == (known.champion.n, known.canary.n):
                return known
        decision = decide(*arms, canary.params)
        self.latest = (canary.epoch, decision)
        return decision

    def _promote(self, version: int, generation: int, decision: Decision) -> bool:
        try:
            who = Who(ACTOR, decision.reason)
            self._ledger.promote(version, expected_generation=generation, who=who)
        except TransitionRefused as error:
            logger.info("promotion of version %s was not taken: %s", version, error)
            return False
        return True

    def _abort(self, version: int, reason: str, decision: Decision | None) -> bool:
        evidence = decision.to_json() if decision else {"error": reason}
        try:
            self._ledger.abort_canary(version=version, who=Who(ACTOR, reason), evidence=evidence)
        except TransitionRefused as error:
            logger.info("abort of version %s was not taken: %s", version, error)
            return False
        return True
