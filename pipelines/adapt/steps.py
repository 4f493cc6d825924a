"""The steps from an alarm to a candidate: diagnose, recall, and only then evolve.

The ledger holds the alarm, the diagnosis, and the steps that followed. So each call finds the next
step in it, and a killed process continues from there. Gate, approval and trial follow by the
policy's rules; nothing here promotes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.adapt import diagnose as diagnosis
from pipelines.adapt.former import Former, best_former
from pipelines.adapt.launch import Launch
from pipelines.adapt.request import request_of
from pipelines.runs.target import Target
from pipelines.runs.work import open_run
from pipelines.runs.worlds import find
from pipelines.versions.judge import recorded
from pipelines.versions.recall import JUDGED_AGAIN, judge, recall
from pipelines.versions.release import Release
from serving import runs
from serving.control.adapted import ADAPT, current_alarm, latest_step
from serving.control.release import canary_rules
from serving.control.watch import DIAGNOSIS
from serving.registry.records import Champion, Event, StartRow, Version, Who
from serving.registry.rules import AdaptTerms
from serving.registry.states import WON, State
from serving.trial.rules import terms_of
from srghn.envs import EnvVersion
from srghn.errors import (
    ArtefactError,
    ConfigError,
    EnvVersionError,
    GraphError,
    StaleGeneration,
    TransitionRefused,
    first_line,
)
from srghn.inference.verdict import Verdict
from srghn.seeding import text_seed

ACTOR = ADAPT
DAY = 24 * 3600.0
#: Errors of a run that may not begin as it is; any other, such as a locked ledger's, passes.
REFUSALS = (ArtefactError, ConfigError, EnvVersionError, GraphError, TransitionRefused)


@dataclass(frozen=True)
class Alarm:
    """The standing alarm: its event, and the evidence of each step that followed it.

    start  number of the latest episode that had begun by then; None in alarms of earlier versions
    """

    event: Event
    champion: Champion
    promise: float
    start: int | None
    diagnosis: Mapping[str, Any] | None
    steps: tuple[Mapping[str, Any], ...]

    def done(self, step: str) -> Mapping[str, Any] | None:
        found = [each for each in self.steps if each["step"] == step]
        return found[-1] if found else None


@dataclass(frozen=True)
class Adaptation:
    """The steps after one policy's alarm. `asked`: a person asked, so ignore `adapt.act`."""

    release: Release
    policy: str
    launch: Launch
    asked: bool = False
    clock: Callable[[], float] = field(default=time.time)

    def step(self) -> str | None:
        """Take the next step, if there is one; returns a line about it."""
        alarm, terms = self.alarm(), self.release.ledger.deployment_rules(self.policy).adapt
        if alarm is None or (terms.act == "off" and not self.asked):
            return None
        if alarm.diagnosis is None or self._unclear(alarm):
            return self._diagnose(alarm)
        if alarm.diagnosis["found"] != "known" or alarm.done("over"):
            return None
        if terms.act == "run" or self.asked:
            return self._act(alarm, terms)
        return self._ask(alarm)

    def alarm(self) -> Alarm | None:
        """The standing alarm; None without one, or after a recovery or a promotion."""
        ledger = self.release.ledger
        event, champion = current_alarm(ledger, self.policy), ledger.champion(self.policy)
        if event is None or champion is None:
            return None
        told = ledger.notes(self.policy, DIAGNOSIS, ADAPT, since=event.seq)
        said = [(each.action, ledger.evidence(str(each.evidence_sha256))) for each in told]
        diagnosed = [each for action, each in said if action == DIAGNOSIS]
        steps = tuple(each for action, each in said if action == ADAPT)
        raised = ledger.evidence(str(event.evidence_sha256))
        promise, start = float(raised["promise"]), raised.get("start")
        return Alarm(event, champion, promise, start, diagnosed[-1] if diagnosed else None, steps)

    # ----------------------------------------------------------------------------- diagnose

    def diagnose(self, alarm: Alarm) -> diagnosis.Diagnosis | None:
        """The diagnosis of service since the alarm; None while too few episodes have ended."""
        taken = self._taken(alarm)
        if taken is None:
            return None
        return diagnosis.diagnose(self.release, alarm.champion, taken, alarm.event.hash)

    def record(self, alarm: Alarm, found: diagnosis.Diagnosis) -> None:
        """Write a diagnosis into the ledger; with `adapt.set_mode`, also set the service's mode."""
        ledger, terms = self.release.ledger, self.release.ledger.deployment_rules(self.policy).adapt
        evidence = {"drift": alarm.event.hash, **found.to_json()}
        key = None if self.asked else f"{DIAGNOSIS}:{alarm.event.hash}:{found.episodes}"
        ledger.note(DIAGNOSIS, evidence, who=Who(DIAGNOSIS, found.why, key), policy=self.policy)
        own = found.env_fingerprint == alarm.champion.env_fingerprint
        moved = found.mode is not None and found.mode != ledger.service_mode(self.policy)
        if found.found == "known" and terms.set_mode and own and moved:
            who = Who(DIAGNOSIS, f"diagnosed: {found.why}")
            ledger.set_mode(self.policy, str(found.mode), who=who)

    def _unclear(self, alarm: Alarm) -> bool:
        """Whether no place was named, and the next number of starts, or the last, is over since."""
        assert alarm.diagnosis is not None
        if alarm.diagnosis["found"] == "known":
            return False
        before, taken = diagnosis.size_of(int(alarm.diagnosis["episodes"])), self._taken(alarm)
        return taken is not None and before < diagnosis.size_of(len(taken))

    def waits(self, alarm: Alarm) -> str:
        """How many episodes a diagnosis still waits for, by their start since the alarm."""
        rows = self._started(alarm)
        ended = sum(row.arrived is not None for row in rows)
        return (
            f"{ended} of {len(rows)} episodes that began after the alarm have an outcome; a "
            f"diagnosis takes the first {diagnosis.ENOUGH} once each is over, and "
            f"{diagnosis.ENDED * diagnosis.ENOUGH:g} of them need one"
        )

    def rests(self, alarm: Alarm) -> str:
        """Why there is no step to take now."""
        if alarm.diagnosis is None:
            return self.waits(alarm)
        if alarm.diagnosis["found"] != "known":
            return f"the diagnosis names no environment: {alarm.diagnosis['why']}"
        latest = latest_step(self.release.ledger, self.policy)
        return f"the alarm was dealt with: {latest}" if latest else "the alarm was dealt with"

    def _taken(self, alarm: Alarm) -> list[StartRow] | None:
        return diagnosis.taken(self._started(alarm), self.clock())

    def _started(self, alarm: Alarm) -> list[StartRow]:
        """Episodes of the champion that began after the alarm, by start.

        By their number: a clock that was ahead at the alarm would make it wait for years.
        """
        which = {"since": alarm.event.moment} if alarm.start is None else {"after": alarm.start}
        ledger, version = self.release.ledger, alarm.champion.version
        return ledger.started(self.policy, version, diagnosis.MOST, **which)

    def _diagnose(self, alarm: Alarm) -> str | None:
        found = self.diagnose(alarm)
        if found is None:
            return None
        self.record(alarm, found)
        if alarm.diagnosis is not None and alarm.diagnosis["found"] == found.found:
            return None  # it was told
        return f"diagnosis: {found.why}"

    # ---------------------------------------------------------------------------------- act

    def _ask(self, alarm: Alarm) -> str | None:
        if alarm.done("asked"):
            return None
        command = f"srghn adapt --policy {self.policy}"
        self._note(alarm, "asked", f"to recall or to evolve: {command}", command=command)
        return f"to adapt: {command}"

    def _act(self, alarm: Alarm, terms: AdaptTerms) -> str | None:
        if self.pending(alarm):
            return None
        begun = alarm.done("recall")
        if begun is not None and alarm.done("recalled") is None:
            return self._recall(alarm, terms, int(begun["of"]))
        if begun is None and (former := self._former(alarm)) is not None:
            why = f"version {former.version} plays {former.mean:.4g} there: recall it"
            self._note(alarm, "recall", why, of=former.version, mean=former.mean)
            return self._recall(alarm, terms, former.version)
        return self._evolve(alarm, terms)

    def pending(self, alarm: Alarm) -> str | None:
        """The run, pass or trial of this policy that must end first; None without one."""
        states = tuple({State.EVALUATING, *WON} - {State.EXPIRED})
        recalled, own = alarm.done("recall"), alarm.done("run")

        def cut_off(version: Version) -> bool:
            """Whether its evaluation is a step of this alarm, which a repeat goes on with."""
            if version.state is not State.EVALUATING:
                return False
            if version.recall_of is not None:
                return recalled is not None
            return own is not None and version.run_id == own["run_id"]

        found = self.release.ledger.versions(self.policy, states=states)
        waiting = [version.version for version in found if not cut_off(version)]
        if waiting:
            return f"version {waiting[0]} is not decided yet"
        for trace in runs.recent(self.release.settings.home):
            if trace.alive and (own is None or trace.run_id != own["run_id"]):
                return f"run {trace.run_id} is at work"
        return None

    def world(self, alarm: Alarm) -> tuple[EnvVersion, str]:
        """The diagnosed world and mode."""
        assert alarm.diagnosis is not None
        fingerprint, mode = alarm.diagnosis["env_fingerprint"], str(alarm.diagnosis["mode"])
        if fingerprint == alarm.champion.env_fingerprint:
            return self.release.world(self.release.ledger.version(alarm.champion.version)), mode
        return find(self.release.settings, fingerprint), mode

    def _former(self, alarm: Alarm) -> Former | None:
        """A former champion that keeps the gate's promise in the diagnosed world; None: none."""
        return best_former(self.release, alarm.champion, *self.world(alarm), alarm.promise)

    def _recall(self, alarm: Alarm, terms: AdaptTerms, of: int) -> str:
        world, mode = self.world(alarm)
        who = Who(ACTOR, f"{world.id} is in mode {mode} by the diagnosis")
        try:
            number = recall(self.release, of, world, mode, who)
            verdict = self._judged(number, terms)
        except StaleGeneration:
            raise  # the next look judges it again, or finds the alarm over
        except TransitionRefused as error:  # the tables of its run are gone, or no attempt is left
            return self._note(alarm, "recalled", str(error), version=None, verdict="refused")
        why = f"version {number}, recall of {of}: {verdict.summary}"
        self._note(alarm, "recalled", why, version=number, verdict=verdict.verdict)
        if verdict.passed:
            self._note(alarm, "over", f"version {number} waits for its approval or trial")
        return why

    def _judged(self, number: int, terms: AdaptTerms) -> Verdict:
        """The verdict of a recall, also where its approval is refused: a person may approve it.

        Raises `StaleGeneration` where it began and was cut off, `TransitionRefused` where it may
        not be judged.
        """
        ledger = self.release.ledger
        before = len(ledger.events(number))
        try:
            return judge(self.release, number, terms.approve)
        except TransitionRefused as error:
            verdict, state = recorded(self.release, number), ledger.version(number).state
            if verdict is not None and verdict.passed and state not in JUDGED_AGAIN:
                return verdict
            if len(ledger.events(number)) > before:  # a mode was set meanwhile, say
                raise StaleGeneration(str(error)) from error
            raise

    def _evolve(self, alarm: Alarm, terms: AdaptTerms) -> str | None:
        begun, run_id = alarm.done("run"), f"adapt-{alarm.event.hash[:12]}"
        trace = runs.find(self.release.settings.home, run_id)
        cancelled = trace is not None and trace.state == "cancelled"  # by a person, who may go on
        if begun is not None and cancelled and not self.asked:
            return None
        if begun is not None and trace is not None and trace.over and not cancelled:
            self._note(alarm, "over", f"run {run_id} is {trace.state}: {trace.message}")
            return f"run {run_id} is {trace.state}"
        if begun is not None and trace is not None and trace.alive:
            return None
        if begun is None and (why := self._over_budget(terms)) is not None:
            return None if alarm.done("budget") else self._note(alarm, "budget", why)
        if begun is None and alarm.done("refused") and not self.asked:
            return None
        try:
            until, place = self._promised(alarm), self.world(alarm)
            request = request_of(self.release, alarm.champion, *place, terms, until, run_id)
            opened = open_run(self.release.settings, request)
        except REFUSALS as error:
            return self._refused(alarm, error)
        if isinstance(opened, dict):
            return self._note(alarm, "over", str(opened["summary"]))
        why = f"no former champion keeps the promise there: run {run_id} evolves"
        if begun is None:
            self._note(alarm, "run", why, run_id=run_id, evaluations=terms.evaluations)
        self.launch(opened, terms.approve)  # repeated until its trace exists; makes only one run
        return why if begun is None or self.asked else None

    def _refused(self, alarm: Alarm, error: Exception) -> str:
        """Write down that the run may not begin, and why; a person who asked gets the error."""
        option = Target(self.policy).option
        why = f"no run can begin: {first_line(error)}; then go on with: srghn adapt{option}"
        self._note(alarm, "refused", why, cause=first_line(error))
        if self.asked:
            raise error
        return why

    def _promised(self, alarm: Alarm) -> float:
        """The gate's promise for the champion: a raw return, without the margin."""
        ledger = self.release.ledger
        rules = terms_of(canary_rules(ledger.version(alarm.champion.version)))
        promise = float(ledger.passed(alarm.champion.version)[1]["promise"])
        return rules.low + promise * (rules.high - rules.low)

    def _over_budget(self, terms: AdaptTerms) -> str | None:
        now, ledger = self.clock(), self.release.ledger
        begun = [
            event.moment
            for event in ledger.notes(self.policy, ADAPT)
            if ledger.evidence(str(event.evidence_sha256))["step"] == "run"
            and event.moment <= now + DAY  # else by a clock that was wrong: it would block for ever
        ]
        today = [at for at in begun if at > now - DAY]
        if len(today) >= terms.runs_a_day:
            return f"{len(today)} runs began within a day, {terms.runs_a_day} may; it waits"
        if begun and now - begun[-1] < terms.cooldown:
            ago = max(0.0, now - begun[-1])
            return f"the last run began {ago:.0f} s ago; {terms.cooldown:g} s must pass"
        return None

    def _note(self, alarm: Alarm, step: str, why: str, **more: Any) -> str:
        """Write a step into the ledger, once for each alarm, step and cause; returns `why`."""
        evidence = {"drift": alarm.event.hash, "step": step, **more}
        cause = f":{text_seed(more['cause']):x}" if "cause" in more else ""
        who = Who(ACTOR, why, f"{ACTOR}:{alarm.event.hash}:{step}{cause}")
        self.release.ledger.note(ADAPT, evidence, who=who, policy=self.policy)
        return why


def require_alarm(adaptation: Adaptation) -> Alarm:
    """The standing alarm; raises `TransitionRefused` if there is none."""
    found, option = adaptation.alarm(), Target(adaptation.policy).option
    ledger = adaptation.release.ledger
    ledger.policy(adaptation.policy)  # refuses a name that no policy has
    if ledger.champion(adaptation.policy) is None:
        raise TransitionRefused(
            f"policy {adaptation.policy!r} has no champion yet, so nothing is watched; srghn run"
            f"{option} --approve auto makes the first"
        )
    if found is None:
        raise TransitionRefused(
            f"the watch over policy {adaptation.policy!r} does not alarm; srghn watch{option} "
            "shows it"
        )
    return found
