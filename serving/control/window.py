"""The window of a fresh champion: counts its holdback, and ends it by harm, by time or by proof.

Runs in every worker, as the trial's controller does; the ledger lets only one act.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from serving.control.counting import Counting, count
from serving.registry.holdbacks import worded
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Holdback, Who
from serving.trial.decision import Decision
from srghn.errors import TransitionRefused

logger = logging.getLogger(__name__)

ACTOR = "holdback"


class Window:
    """Counts a holdback's starts in their order, and acts on the decision.

    `latest` is the last decision and its window, for the page; None outside a window.
    """

    def __init__(
        self, ledger: Ledger, policy: str = POLICY, clock: Callable[[], float] = time.time
    ) -> None:
        self.latest: tuple[Holdback, Decision] | None = None
        self._refused: tuple[int, str] | None = None  # said once as an error
        self._ledger, self._policy, self._clock = ledger, policy, clock

    def judge(self) -> bool:
        """Count and decide the window of the present champion; True if it ended now."""
        window = self._ledger.holdback(self._policy)
        if window is None:
            self.latest = None
            return False
        now = self._clock()
        of = Counting(window.policy, window.epoch, window.rules, held=True)
        _, decision = count(self._ledger, of, now)
        self.latest = (window, decision)
        if decision.action == "abort" and self._roll_back(window, decision):
            return True
        why = self._over(window, decision, now)
        return why is not None and self._end(window, decision, why)

    def _over(self, window: Holdback, decision: Decision, now: float) -> str | None:
        if decision.action == "promote":
            margin = f"{100 * window.rules.margin:g}%"
            return f"it is not worse than version {window.predecessor} by {margin} or more"
        if decision.action == "expire":
            return f"{decision.episodes} episodes passed without harm shown"
        if now < window.until:
            return None
        if decision.action == "abort":
            return "its time passed; harm was shown, but the rollback was refused"
        return "its time passed without harm shown"

    def _roll_back(self, window: Holdback, decision: Decision) -> bool:
        why = f"worse than version {window.predecessor}: {worded(decision)}"
        try:
            back = self._ledger.rollback_held(who=Who(ACTOR, why), policy=self._policy)
        except TransitionRefused as error:
            still = self._ledger.holdback(self._policy)  # or another worker was first
            new = still is not None and self._refused != (window.epoch, str(error))
            self._refused = (window.epoch, str(error))
            level = logging.ERROR if new else logging.INFO
            logger.log(level, "the holdback did not roll back: %s", error)
            return False
        logger.warning(
            "holdback: version %s is rolled back to version %s by itself: %s",
            window.version, back.version, why,
        )  # fmt: skip
        return True

    def _end(self, window: Holdback, decision: Decision, why: str) -> bool:
        evidence = {"decision": decision.to_json()}
        who = Who(ACTOR, f"{why}; {worded(decision)}")
        try:
            self._ledger.end_holdback(who=who, evidence=evidence, policy=self._policy)
        except TransitionRefused as error:
            logger.info("the window was not ended: %s", error)
            return False
        logger.info("holdback: the window of version %s is over: %s", window.version, why)
        return True
