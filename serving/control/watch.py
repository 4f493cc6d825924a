"""Does the champion still keep the gate's promise? An e-detector over the outcomes in service.

Returns are clipped and scaled as in a trial. The promise is the lower bound of the gate's primary
mean, minus a margin. While the mean in service keeps it, at least `run_length` outcomes pass on
average before a false alarm (`srghn.inference.detect`). After an alarm the mirrored detector looks
for recovery. An alarm lasts until recovery or a promotion restarts the watch; one for missing
outcomes outlasts a promotion, or the fault would be what is expected of the next champion.

Outcomes count in order of start, because failures are short and report first: in order of arrival
a sound champion looks bad whenever many episodes begin at once. An episode that still runs holds
back those after it, until its deadline. An alarm need not wait for it: one that is raised with the
kindest return of each running episode, and without it, is raised whatever comes of them. Spoilt
episodes count like others (a spoilt one is no evidence between arms, but here is one version), and
outcomes after the deadline never do, so that nothing depends on when the watch looks. Nor do those
beyond their token's share (rule `poster_share`).

Failures may post nothing at all. So a second detector watches the share of episodes that have an
outcome by their deadline, at the same `run_length`. It expects the share that was missing or late
in service when the champion came, and `missing` more. That share is measured outside trials, so it
leaves out episodes of a trial with an earlier deadline. It says that outcomes are missing or late,
not that returns fell, and begins once the policy has an outcome: some clients never post any.

The state is in the ledger. It is updated by compare-and-set on the number of the last start, in
the transaction that writes the event of an alarm or a recovery. So several workers count each
outcome once, and tell each alarm once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Literal

from sqlalchemy import Connection

from serving.control.release import CANARY, canary_rules
from serving.control.sight import Score, Sight
from serving.registry import chain, episodes, schema
from serving.registry.ledger import Ledger
from serving.registry.records import Champion, Event, StartRow, Who
from serving.registry.schema import POLICY
from serving.trial.rules import TrialRules, terms_of
from srghn.inference.detect import Detector, mirrored

logger = logging.getLogger(__name__)

ACTOR = "watch"
DRIFT, RECOVERY, SEEN = "drift", "drift_over", "drift_acknowledged"
MISSING, POSTED = "missing", "missing_over"
#: The action of a diagnosis; `pipelines.adapt` writes it.
DIAGNOSIS = "diagnosis"
#: Most starts read at one look. While one that still runs holds back more than `PAGE`, so many are
#: read only every `AGAIN` seconds, and `PAGE` at the other looks. If there are more, as many of the
#: newest are looked at, too.
AT_ONCE, PAGE, AGAIN = 5000, 500, 10.0
#: Outcomes that a token may post in a row, if its share is less than half.
IN_A_ROW = 2
#: Marks a state that counts in order of start; one without it counted in order of arrival.
ORDER = {"order": "start"}


def standing(ledger: Ledger, policy: str, since: int = 0) -> Event | None:
    """The alarm that was raised after event `since` and still stands; None without one."""
    told = ledger.notes(policy, DRIFT, RECOVERY, since=since)
    return told[-1] if told and told[-1].action == DRIFT else None


#: Number of latest episodes over which missing outcomes are judged, and the least number needed.
RECENT, FEWEST = 200, 20
#: Seconds for an outcome outside trials, by default (`SRGHN_LIMIT_EPISODE_SECONDS`).
DEADLINE = 3600.0
#: Seconds for which starts without an outcome are kept, by default (`SRGHN_LIMIT_PIN_SECONDS`).
REMEMBERED = 7 * 24 * 3600.0
BLIND = "blind"
#: Which detector reached B: of the returns, or of the share of episodes with an outcome.
Kind = Literal["returns", "answers"]
Status = Literal["steady", "drift", "blind", "missing", "unwatched"]
_NONE = (
    "no outcome counts yet; one counts once each episode that began before it has ended, or is "
    "past its deadline"
)


@dataclass(frozen=True)
class WatchState:
    """The watch's state for the champion of `generation`; `alarm` is the event's hash, or None.

    `outcomes` is the number counted for it; their scaled mean is `total / outcomes`. `outside` of
    them had a return outside the range, which was clipped. `left_out` are beyond their token's
    share; `due` holds, for each token in debt, the number of outcomes at which it has paid.
    `answers` watches the share of episodes with an outcome (None: not yet): the share `before` was
    missing when the champion came, and `more` than that raises an alarm, whose event is `missing`.
    """

    generation: int
    detector: Detector
    outcomes: int = 0
    total: float = 0.0
    alarm: str | None = None
    outside: int = 0
    left_out: int = 0
    due: Mapping[str, float] = field(default_factory=dict)
    answers: Detector | None = None
    missing: str | None = None
    before: float = 0.0
    more: float | None = None

    def to_json(self) -> dict[str, Any]:
        answers = self.answers and self.answers.to_json()
        return {**vars(self), "detector": self.detector.to_json(), "answers": answers, **ORDER}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WatchState:
        known = {key: value for key, value in data.items() if key not in ORDER}
        answers = data.get("answers")
        known["answers"] = answers and Detector.from_json(answers)
        return cls(**{**known, "detector": Detector.from_json(data["detector"])})


@dataclass(frozen=True)
class WatchView:
    """The watch for people. An alarm is raised when `level` reaches `run_length`.

    `diagnosis` is the reason of the diagnosis of the standing alarm; None without one.
    `observations` compares the champion's observations with those of the sandbox, as advice; None
    without enough of both. `missing` is the event of the alarm for missing outcomes, if it stands.
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
    missing: str | None = None


class _OutrunError(Exception):
    """Another worker has counted these outcomes."""


class Watch:
    """Updates the watch of one policy; a server's follower calls it at every look."""

    def __init__(
        self,
        ledger: Ledger,
        policy: str = POLICY,
        clock: Callable[[], float] = time.time,
        remembered: float = REMEMBERED,
        deadline: float = DEADLINE,
    ) -> None:
        self._ledger, self._policy, self._clock = ledger, policy, clock
        self._remembered, self._deadline = remembered, deadline
        self._told, self._sight = 0, Sight(ledger, policy, clock)
        self._ahead_at = 0.0

    def look(self) -> None:
        """Count the outcomes that are next in order of start. Raises `LedgerError`."""
        champion = self._ledger.champion(self._policy)
        while champion is not None and self._advance(champion):
            pass

    def _advance(self, champion: Champion) -> bool:
        """Count up to an alarm or a recovery; True if there was one, and others may follow."""
        running = self._ledger.watch_state(self._policy)
        after, data = (running.n, running.state) if running else (0, ORDER)
        state, now = self._state(data, champion), self._clock()
        if "order" not in data:
            return self._reorder(after, state)
        with self._ledger.database().read() as connection:
            most = AT_ONCE if now >= self._ahead_at else PAGE
            found = episodes.after(connection, self._policy, after, most)
        if state is None or not found:
            if found:
                self._ledger.advance_watch(self._policy, after, found[-1].n, ORDER)
            return False
        heard = self._listening(state, now)
        last, counted, turned = self._count(heard, champion, found, now)
        if turned is None and last < found[-1].n and len(found) > PAGE:
            self._ahead_at = now + AGAIN
            if len(found) == AT_ONCE:
                last, counted, turned = self._newest(last, counted, champion, now)
        if turned is not None:
            return self._turn(after, last, counted, champion, turned)
        if last > after or heard is not state:
            self._ledger.advance_watch(self._policy, after, last, counted.to_json())
        return False

    def _newest(
        self, last: int, state: WatchState, champion: Champion, now: float
    ) -> tuple[int, WatchState, Kind | None]:
        """Look ahead over the newest starts alone, with R = 0 before them.

        On a busy service some episode of the last hour always lacks its outcome, so the count is an
        hour behind. R rises with the R before it, so from 0 it is never above the whole count's.
        After an alarm the count goes on behind its start, and those passed over are in no count.
        Without one, what was given comes back.
        """
        with self._ledger.database().read() as connection:
            found = episodes.newest(connection, self._policy, AT_ONCE)[::-1]
        rest = [row for row in found if row.n > last]
        begun = replace(state, detector=state.detector.reset(), answers=None)
        at, counted, turned = self._count(begun, champion, rest, now)
        if turned is None:
            return last, state, None
        return at, replace(counted, answers=state.answers), turned

    def _reorder(self, after: int, state: WatchState | None) -> bool:
        """Go on from a state that counted in order of arrival, with the starts from now on.

        What it counted favours short episodes, and the long ones that still run would be left out.
        So the evidence begins anew; a standing alarm and the mean so far are kept.
        """
        last = self._newest_start()
        kept = replace(state, detector=state.detector.reset()).to_json() if state else ORDER
        self._ledger.advance_watch(self._policy, after, last, kept)
        return True  # whichever worker did it

    def _newest_start(self) -> int:
        with self._ledger.database().read() as connection:
            newest = episodes.newest(connection, self._policy, 1)
        return newest[0].n if newest else 0

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
        over = self._over(running.n if running else 0)
        started, ended = len(over), sum(map(_in_time, over))
        status: Status = "drift" if state.alarm else "steady"
        held = "returns hold" if state.outcomes else _NONE
        why = "returns fell below what the gate promised" if state.alarm else held
        if state.alarm is None and started >= FEWEST and ended < terms.answered * started:
            said = f"{ended} of the last {started} episodes have an outcome"
            status, why = "blind", f"{said} by their deadline"
        posted = state.outcomes + state.left_out
        if status == "steady" and posted >= FEWEST and state.outcomes < terms.answered * posted:
            said = f"{state.outcomes} of {posted} outcomes count"
            status, why = "blind", f"{said}; the others are beyond their token's `poster_share`"
        if state.missing and state.answers:
            heard = [_in_time(row) for row in over if self._hears(row)]
            lost = (
                f"outcomes are missing or late: {heard.count(False)} of the last {len(heard)} "
                "episodes have none by their deadline"
            )
            expected = f"at most {100 * (1 - state.answers.mean):.1f}% are expected"
            status = "missing" if status == "steady" else status
            why = f"{lost}, {expected}" if status == "missing" else f"{why}; {lost}, {expected}"
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
            state.missing,
        )

    def _over(self, last: int) -> list[StartRow]:
        """The latest episodes up to start `last` that do not run.

        Of all others some have an outcome and none is missing. Of those older than what the ledger
        remembers, the ones without an outcome are deleted.
        """
        with self._ledger.database().read() as connection:
            found = episodes.newest(connection, self._policy, RECENT, last)
        now = self._clock()
        since = now - self._remembered
        return [row for row in found if row.started_at > since and not row.runs(now)]

    def _hears(self, row: StartRow) -> bool:
        """Whether the detector of missing outcomes counts it: in a trial it may have less time.

        The share that is expected was measured outside trials.
        """
        return row.trial is None or row.deadline >= row.started_at + self._deadline

    def _diagnosis(self, alarm: str) -> str | None:
        """The reason of the latest diagnosis of this alarm; None before the first."""
        noted = self._ledger.notes(self._policy, DIAGNOSIS)[-1:]
        said = [self._ledger.evidence(str(event.evidence_sha256)) for event in noted]
        return noted[0].reason if said and said[0].get("drift") == alarm else None

    def _state(self, data: Mapping[str, Any], champion: Champion) -> WatchState | None:
        """The stored state of this champion, or a new one; None without a promise of the gate."""
        if data.get("generation") == champion.generation:
            return WatchState.from_json(data)
        promise = self._ledger.passed(champion.version)[1].get("promise")
        if not isinstance(promise, int | float) or self._range(champion) is None:
            return None
        margin = self._ledger.deployment_rules(self._policy).watch.margin
        mean = min(max(float(promise) - margin, 0.001), 0.999)
        state = WatchState(champion.generation, Detector(mean, "fall"))
        if not data.get("missing"):
            return state
        # Under the champion before more than it accepted was missing: a fault, and not what is
        # expected from now on.
        before = WatchState.from_json(data)
        kept = {name: getattr(before, name) for name in ("answers", "missing", "before", "more")}
        return replace(state, **kept)

    def _listening(self, state: WatchState, now: float) -> WatchState:
        """The state with a detector of missing outcomes, if the policy ever had an outcome.

        Under a new `missing` it begins anew. If its alarm stands, it looks for recovery by the new
        one: a share that is accepted now ends the alarm.
        """
        more = self._ledger.deployment_rules(self._policy).watch.missing
        if state.more == more or not self._ledger.outcomes(policy=self._policy, limit=1):
            return state
        before = state.before
        if state.more is None:
            with self._ledger.database().read() as connection:
                before = episodes.missing(connection, self._policy, None, now)
        mean = min(max(1 - before - more, 0.001), 0.999)
        answers = Detector(mean, "recovery" if state.missing else "fall")
        return replace(state, answers=answers, before=before, more=more)

    def _count(
        self, state: WatchState, champion: Champion, found: Sequence[StartRow], now: float
    ) -> tuple[int, WatchState, Kind | None]:
        """The last start that is counted, the state after it, and the detector that reached B."""
        rules = self._range(champion)
        assert rules is not None  # without them there is no state
        deployment = self._ledger.deployment_rules(self._policy)
        limit, share = deployment.watch.run_length, deployment.poster_share
        mine = [row for row in found if _is_of(champion, row)]
        last = found[-1].n
        turned: Kind | None = None
        over = [row for row in takewhile(lambda row: not row.runs(now), mine) if self._hears(row)]
        if state.answers is not None:
            at = state.answers.until([float(_in_time(row)) for row in over], limit)[1]
            if at is not None:  # no episode up to it runs
                last, turned = over[at - 1].n, "answers"
        posted = [row for row in mine if row.n <= last and (_in_time(row) or row.runs(now))]
        own = within(posted, state, share)[0]
        values = [rules.scale(row.return_ or 0.0) for row in own]
        unknown = [row.arrived is None for row in own]
        place = state.detector.until(values, limit, unknown)[1]
        if place is not None:
            last, turned = own[place - 1].n, "returns"
        elif True in unknown:
            place = unknown.index(True)
            last = own[place].n - 1
        detector, _ = state.detector.until(values[:place], limit, unknown[:place])
        own = own[:place]
        returns = [row.return_ or 0.0 for row in own if row.arrived is not None]
        ended = sum(row.arrived is not None and row.n <= last for row in posted)
        heard = [float(_in_time(row)) for row in over if row.n <= last]
        counted = replace(
            state,
            detector=detector,
            outcomes=state.outcomes + len(returns),
            total=state.total + sum(map(rules.scale, returns)),
            outside=state.outside + sum(map(rules.outside, returns)),
            left_out=state.left_out + ended - len(returns),
            due=within(own, state, share)[1],
            answers=state.answers and state.answers.update(heard),
        )
        return last, counted, turned

    def _turn(
        self, after: int, last: int, state: WatchState, champion: Champion, turned: Kind
    ) -> bool:
        """Write the event of an alarm or a recovery, and the state with the opposite detector.

        False if another worker counted first.
        """
        reached = state.detector if turned == "returns" else state.answers
        assert reached is not None
        fell = reached.side == "fall"
        if turned == "returns":
            action = DRIFT if fell else RECOVERY
            words = "fell below" if fell else "are back above"
            why = f"returns {words} {100 * reached.mean:.1f}% of the range"
            why += self._culprit(champion, last, reached.mean) if fell else ""
        else:
            action = MISSING if fell else POSTED
            words = "missing or late: more than" if fell else "posted in time again: at most"
            share = f"{100 * (1 - reached.mean):.1f}%"
            why = f"outcomes are {words} {share} of the episodes have none by their deadline"
        evidence = {
            "version": champion.version,
            "generation": champion.generation,
            "promise": reached.mean,
            "level": reached.level,
            "outcomes": state.outcomes,
            "start": self._newest_start(),  # what began since, whatever the clock says
        }

        def also(connection: Connection) -> None:
            alarm = next(chain.read_events(connection, limit=1, newest=True)).hash if fell else None
            opposite = mirrored(reached, reached.mean)
            if turned == "returns":
                moved = replace(state, detector=opposite, alarm=alarm)
            else:
                moved = replace(state, answers=opposite, missing=alarm)
            kept = moved.to_json()
            if not episodes.advance(connection, schema.watch, self._policy, 0, after, last, kept):
                raise _OutrunError

        try:
            who = Who(ACTOR, why)
            self._ledger.note(action, evidence, who=who, policy=self._policy, also=also)
        except _OutrunError:
            return False
        logger.warning("watch: %s (version %s)", why, champion.version)
        return True

    def _culprit(self, champion: Champion, last: int, mean: float) -> str:
        """Words that name the token with more than half of the loss, but not of the outcomes."""
        rules = self._range(champion)
        assert rules is not None
        with self._ledger.database().read() as connection:
            found = episodes.newest(connection, self._policy, RECENT, last)
        posted = [
            (row.poster, max(mean - rules.scale(row.return_ or 0.0), 0.0))
            for row in found
            if _is_of(champion, row) and _in_time(row)
        ]
        lost: dict[str | None, list[float]] = {}
        for poster, loss in posted:
            lost.setdefault(poster, []).append(loss)
        all_ = sum(loss for _, loss in posted)
        for poster, own in lost.items():
            if poster and 2 * sum(own) > all_ and 2 * len(own) < len(posted):
                share = f"{100 * sum(own) / all_:.0f}%"
                return (
                    f"; {share} of the loss is in {len(own)} of {len(posted)} outcomes, by {poster}"
                )
        return ""

    def _range(self, champion: Champion) -> TrialRules | None:
        """The range for scaling its returns; None for versions registered before 0.3."""
        found = self._ledger.version(champion.version)
        return terms_of(canary_rules(found)) if CANARY in found.manifest else None


def within(
    rows: Sequence[StartRow], state: WatchState, share: float
) -> tuple[list[StartRow], dict[str, float]]:
    """Of the next rows those that count, and what each token then owes.

    Of any n outcomes that count in a row, one token has at most `share` n + IN_A_ROW. A cap on all
    outcomes so far, as in a trial, would let a token keep its share back and then post it at once,
    and a detector forgets the outcomes before. Running rows count for nobody.
    """
    kept, due, total = [], dict(state.due), state.outcomes
    for row in rows:
        if row.arrived is not None:
            poster = row.poster if share < 1 else None
            owed = max(due.get(poster, 0.0) - total, 0.0) if poster is not None else 0.0
            if owed > (IN_A_ROW - 1) / share:
                continue
            if poster is not None:
                due[poster] = total + owed + 1 / share
            total += 1
        kept.append(row)
    return kept, {poster: at for poster, at in due.items() if at > total}


def _is_of(champion: Champion, row: StartRow) -> bool:
    return (row.version, row.generation) == (champion.version, champion.generation)


def _in_time(row: StartRow) -> bool:
    """Whether its outcome counts; a later one is missing, as it was when its deadline passed."""
    return row.ended_at is not None and row.ended_at <= row.deadline
