"""Does the champion still keep the gate's promise? An e-detector over the outcomes in service.

Returns are clipped and scaled as in a trial. The promise is the lower bound of the gate's primary
mean, minus a margin. While the mean in service keeps it, at least `run_length` outcomes pass on
average before a false alarm (`srghn.inference.detect`). After an alarm the mirrored detector looks
for recovery. An alarm lasts until recovery or a promotion restarts the watch.

The state is in the ledger. It is updated by compare-and-set on the number of the last outcome, so
several workers count each outcome once. Alarm and recovery are events of the policy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from serving.control.release import CANARY, canary_rules
from serving.control.sight import Score, Sight
from serving.registry.ledger import Ledger
from serving.registry.records import Champion, Event, Outcome, Who
from serving.registry.schema import POLICY
from serving.trial.rules import TrialRules, terms_of
from srghn.inference.detect import Detector, mirrored

logger = logging.getLogger(__name__)

ACTOR = "watch"
DRIFT, RECOVERY, SEEN = "drift", "drift_over", "drift_acknowledged"
#: The action of a diagnosis; `pipelines.adapt` writes it.
DIAGNOSIS = "diagnosis"
#: Most outcomes counted at one look.
AT_ONCE = 5000


def standing(ledger: Ledger, policy: str, since: int = 0) -> Event | None:
    """The alarm that was raised after event `since` and still stands; None without one."""
    told = ledger.notes(policy, DRIFT, RECOVERY, since=since)
    return told[-1] if told and told[-1].action == DRIFT else None


#: Number of latest episodes over which missing outcomes are judged, and the least number needed.
RECENT, FEWEST = 200, 20
#: Seconds for which starts without an outcome are kept, by default (`SRGHN_LIMIT_PIN_SECONDS`).
REMEMBERED = 7 * 24 * 3600.0
BLIND = "blind"
Status = Literal["steady", "drift", "blind", "unwatched"]


@dataclass(frozen=True)
class WatchState:
    """The watch's state for the champion of `generation`; `alarm` is the event's hash, or None.

    `outcomes` is the number counted for it; their scaled mean is `total / outcomes`. `outside` of
    them had a return outside the range, which was clipped.
    """

    generation: int
    detector: Detector
    outcomes: int = 0
    total: float = 0.0
    alarm: str | None = None
    outside: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "detector": self.detector.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WatchState:
        return cls(**{**data, "detector": Detector.from_json(data["detector"])})


@dataclass(frozen=True)
class WatchView:
    """The watch for people. An alarm is raised when `level` reaches `run_length`.

    `diagnosis` is the reason of the diagnosis of the standing alarm; None without one.
    `observations` compares the champion's observations with those of the sandbox, as advice; None
    without enough of both.
    """

    status: Status
    why: str
    level: float = 0.0
    run_length: float = 0.0
    promise: float | None = None
    outcomes: int = 0
    mean: float | None = None
    alarm: str | None = None
    diagnosis: str | None = None
    outside: int = 0
    observations: Score | None = None


class Watch:
    """Updates the watch of one policy; a server's follower calls it at every look."""

    def __init__(
        self,
        ledger: Ledger,
        policy: str = POLICY,
        clock: Callable[[], float] = time.time,
        remembered: float = REMEMBERED,
    ) -> None:
        self._ledger, self._policy, self._clock = ledger, policy, clock
        self._remembered = remembered
        self._told, self._sight = 0, Sight(ledger, policy)

    def look(self) -> None:
        """Count the new outcomes. Writes nothing if there are none. Raises `LedgerError`."""
        champion = self._ledger.champion(self._policy)
        if champion is None:
            return
        running = self._ledger.watch_state(self._policy)
        after = running.n if running else 0
        found = self._ledger.outcomes(since=after, policy=self._policy, limit=AT_ONCE)
        if not found:
            return
        state = self._state(running.state if running else {}, champion)
        moved = state and self._count(state, champion, found)
        kept = moved.to_json() if moved else {}
        self._ledger.advance_watch(self._policy, after, found[-1].n, kept)

    def tell_silence(self, seen: WatchView) -> None:
        """Record, once per champion's generation, that too few episodes have an outcome."""
        champion = self._ledger.champion(self._policy)
        if seen.status != BLIND or champion is None or self._told == champion.generation:
            return
        who = Who(ACTOR, seen.why, f"{ACTOR}:{self._policy}:{champion.generation}:{BLIND}")
        evidence = {"version": champion.version, "generation": champion.generation}
        self._ledger.note(BLIND, evidence, who=who, policy=self._policy)
        self._told = champion.generation
        logger.warning("watch: blind: %s", seen.why)

    def view(self) -> WatchView:
        """The present view; raises `LedgerError`."""
        champion = self._ledger.champion(self._policy)
        if champion is None:
            return WatchView("unwatched", "there is no champion")
        running = self._ledger.watch_state(self._policy)
        state = self._state(running.state if running else {}, champion)
        if state is None:
            why = (
                f"the gate's verdict on version {champion.version} has no range of returns and no "
                "promised mean"
            )
            return WatchView("unwatched", f"{why}; gate a candidate with this version of srghn")
        terms = self._ledger.deployment_rules(self._policy).watch
        now = self._clock()
        started, ended = self._ledger.answered(self._policy, RECENT, now - self._remembered, now)
        status: Status = "drift" if state.alarm else "steady"
        why = "returns fell below what the gate promised" if state.alarm else "returns hold"
        if state.alarm is None and started >= FEWEST and ended < terms.answered * started:
            status, why = "blind", f"{ended} of the last {started} episodes have an outcome"
        return WatchView(
            status,
            why,
            state.detector.level,
            terms.run_length,
            state.detector.mean,
            state.outcomes,
            state.total / state.outcomes if state.outcomes else None,
            state.alarm,
            self._diagnosis(state.alarm) if state.alarm else None,
            state.outside,
            self._sight.score(champion),
        )

    def _diagnosis(self, alarm: str) -> str | None:
        """The reason of the latest diagnosis of this alarm; None before the first."""
        noted = self._ledger.notes(self._policy, DIAGNOSIS)[-1:]
        said = [self._ledger.evidence(str(event.evidence_sha256)) for event in noted]
        return noted[0].reason if said and said[0].get("drift") == alarm else None

    def _state(self, data: Mapping[str, Any], champion: Champion) -> WatchState | None:
        """The stored state of this champion, or a new one; None without a promise of the gate."""
        if data and data["generation"] == champion.generation:
            return WatchState.from_json(data)
        promise = self._ledger.passed(champion.version)[1].get("promise")
        if not isinstance(promise, int | float) or self._range(champion) is None:
            return None
        margin = self._ledger.deployment_rules(self._policy).watch.margin
        mean = min(max(float(promise) - margin, 0.001), 0.999)
        return WatchState(champion.generation, Detector(mean, "fall"))

    def _count(self, state: WatchState, champion: Champion, found: list[Outcome]) -> WatchState:
        rules = self._range(champion)
        assert rules is not None  # without them there is no state
        returns = [
            outcome.return_
            for outcome in found
            if outcome.version == champion.version and outcome.generation == champion.generation
        ]
        values = [rules.scale(return_) for return_ in returns]
        state = replace(state, outside=state.outside + sum(map(rules.outside, returns)))
        limit = self._ledger.deployment_rules(self._policy).watch.run_length
        while values:
            _, at = state.detector.until(values, limit)
            seen, values = values[: at or len(values)], values[at or len(values) :]
            state = replace(
                state,
                detector=state.detector.update(seen),
                outcomes=state.outcomes + len(seen),
                total=state.total + sum(seen),
            )
            if at is not None:
                state = self._turn(state, champion)
        return state

    def _turn(self, state: WatchState, champion: Champion) -> WatchState:
        """Write the event of an alarm or a recovery, and start the opposite detector."""
        fell = state.detector.side == "fall"
        evidence = {
            "version": champion.version,
            "generation": champion.generation,
            "promise": state.detector.mean,
            "level": state.detector.level,
            "outcomes": state.outcomes,
        }
        words = "fell below" if fell else "are back above"
        why = f"returns {words} {100 * state.detector.mean:.1f}% of the range"
        place = f"{champion.generation}:{state.outcomes}:{state.detector.side}"
        who = Who(ACTOR, why, f"{ACTOR}:{self._policy}:{place}")  # keys are of all policies
        noted = self._ledger.note(
            DRIFT if fell else RECOVERY, evidence, who=who, policy=self._policy
        )
        logger.warning("watch: %s (version %s)", why, champion.version)
        turned = mirrored(state.detector, state.detector.mean)
        return replace(state, detector=turned, alarm=noted if fell else None)

    def _range(self, champion: Champion) -> TrialRules | None:
        """The range for scaling its returns; None for versions registered before 0.3."""
        found = self._ledger.version(champion.version)
        return terms_of(canary_rules(found)) if CANARY in found.manifest else None
