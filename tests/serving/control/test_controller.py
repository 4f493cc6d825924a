"""The controller counts starts in their order, once, and takes the step that they speak for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from serving.control.controller import Controller
from serving.control.routing import Served
from serving.registry import schema
from serving.registry.ledger import Ledger
from serving.registry.records import Canary, Start, Who
from serving.registry.rules import DeploymentRules
from serving.registry.schema import POLICY
from serving.registry.states import State
from serving.trial.compared import Compared, Posted
from serving.trial.decision import advance
from serving.trial.evidence import Log, begin
from serving.trial.rules import TrialTerms
from srghn.config import CanaryParams
from srghn.errors import TransitionRefused
from srghn.inference.spending import spent

WHO = Who("ann", "try it")


class _Loaded:
    def __init__(self, version: int) -> None:
        self.version = version


class Trial:
    """A trial whose clock the test moves."""

    def __init__(self, ledger: Ledger, steps: Any, **params: Any) -> None:
        self.ledger, self.now, self.count = ledger, time.time(), 0
        steps.first()
        self.version = steps.approved()
        self.canary: Canary = steps.canary(
            self.version, params=CanaryParams(**{"return_low": 0.0, "return_high": 500.0, **params})
        )
        self.controller = Controller(ledger, clock=lambda: self.now)

    def start(self, arms: Iterator[int] | list[int], weight: float | None = None) -> list[str]:
        champion = self.ledger.champion()
        assert champion is not None
        names, rules = [], self.canary.rules
        rows = []
        for arm in arms:
            self.count += 1
            names.append(f"e-{self.count}")
            rows.append(
                Start(
                    names[-1],
                    self.version if arm else champion.version,
                    arm,
                    rules.weight if weight is None else weight,
                    self.canary.epoch,
                    champion.generation,
                    self.now,
                    self.now + rules.deadline,
                )
            )
        self.ledger.start_episodes(rows)
        return names

    def end(self, names: list[str], values: list[float]) -> None:
        for name, value in zip(names, values, strict=True):
            self.ledger.record_outcome(POLICY, name, value, 10, True)

    def look(self) -> bool:
        running = self.ledger.canary()
        served = Served(
            canary=_Loaded(running.version) if running else None,  # type: ignore[arg-type]
            generation=self.ledger.champion().generation,  # type: ignore[union-attr]
        )
        return self.controller.judge(served)

    @property
    def state(self) -> State:
        return self.ledger.version(self.version).state


def log(n: int, canary: float, champion: float = 300.0, seed: int = 0) -> tuple[list[int], Any]:
    rng = np.random.default_rng(seed)
    arms = (rng.random(n) < 0.5).astype(int).tolist()
    values = [(canary if arm else champion) + float(rng.uniform(-25, 25)) for arm in arms]
    return arms, values


@pytest.fixture
def trial(ledger: Ledger, steps: Any) -> Trial:
    return Trial(ledger, steps)


@pytest.mark.parametrize(
    ("canary", "state"), [(400.0, State.CHAMPION), (300.0, State.CHAMPION), (150.0, State.ABORTED)]
)
def test_a_trial_ends_as_the_decision_code_says(trial: Trial, canary: float, state: State) -> None:
    arms, values = log(700, canary)
    scaled = np.array([trial.canary.rules.scale(value) for value in values])
    whole = Log(np.array(arms, np.int8), np.full(700, 0.5), scaled)
    expected = advance(begin(trial.canary.rules), whole, trial.canary.rules)[1]
    for start in range(0, 700, 35):
        names = trial.start(arms[start : start + 35])
        trial.end(names, values[start : start + 35])
        if trial.look():
            break
    assert trial.state is state
    decided = trial.controller.latest
    assert decided is not None
    assert decided[1] == expected


def test_an_episode_that_still_runs_holds_back_all_that_started_after_it(trial: Trial) -> None:
    """A canary whose bad episodes are long must not be judged by its short ones."""
    first = trial.start([1])
    arms, values = log(300, 400.0)
    trial.end(trial.start(arms), values)
    assert not trial.look()
    assert trial.controller.latest is not None
    assert trial.controller.latest[1].episodes == 0
    trial.end(first, [0.0])
    assert trial.look()
    assert trial.state is State.CHAMPION


def test_an_outcome_after_its_deadline_is_missing(trial: Trial) -> None:
    trial.now -= trial.canary.rules.deadline + 60
    names = trial.start([1, 0, 1])
    trial.now += trial.canary.rules.deadline + 60
    assert not trial.look()
    assert trial.controller.latest is not None
    counted = trial.controller.latest[1]
    assert (counted.canary["missing"], counted.champion["missing"]) == (2, 1)
    trial.end(names, [500.0] * 3)
    assert not trial.look()
    assert trial.controller.latest[1].canary["missing"] == 2


def test_weights_rise_with_the_canarys_outcomes(trial: Trial) -> None:
    assert trial.canary.weight == 0.05
    trial.end(trial.start([0, 1, 1], weight=0.05), [300.0] * 3)
    trial.look()
    running = trial.ledger.canary()
    assert running is not None
    assert running.weight == 0.5


def test_a_share_that_a_person_set_is_not_raised_again(trial: Trial) -> None:
    trial.end(trial.start([0, 1, 1], weight=0.05), [300.0] * 3)
    trial.look()
    trial.ledger.set_canary_weight(0.1, who=WHO)
    trial.end(trial.start([0, 1, 1], weight=0.1), [300.0] * 3)
    for _ in range(2):
        assert not trial.look()
    running = trial.ledger.canary()
    assert running is not None
    assert running.weight == 0.1


def test_a_trial_that_was_held_past_a_decision_takes_that_decision(
    ledger: Ledger, steps: Any
) -> None:
    """Later evidence for a promotion does not undo that the trial had come to its end."""
    trial = Trial(ledger, steps, max_episodes=30)
    trial.ledger.set_trial_status("held", who=WHO)
    arms, values = log(700, 300.0)
    trial.end(trial.start(arms), values)
    assert not trial.look()
    trial.ledger.set_trial_status("running", who=WHO)
    assert trial.look()
    assert trial.state is State.EXPIRED


def test_an_undecided_trial_expires_without_quarantine_and_goes_on_with_its_capital(
    ledger: Ledger, steps: Any
) -> None:
    trial = Trial(ledger, steps, max_episodes=30)
    arms, values = log(30, 300.0)
    trial.end(trial.start(arms), values)
    assert trial.look()
    assert trial.state is State.EXPIRED
    assert not ledger.version(trial.version).quarantined
    before = trial.controller.latest
    again = steps.canary(
        trial.version,
        params=CanaryParams(max_episodes=30, margin=0.4, return_low=0.0, return_high=500.0),
    )
    assert again.rules.margin == 0.05  # chosen before the evidence
    trial.canary = again
    trial.look()
    assert trial.controller.latest is not None
    assert before is not None
    resumed = trial.controller.latest[1]
    assert resumed.episodes == 30
    assert resumed.promote == before[1].promote
    assert resumed.action == "wait"


def test_a_held_trial_takes_no_decision(trial: Trial) -> None:
    trial.ledger.set_trial_status("held", who=WHO)
    arms, values = log(300, 100.0)
    trial.end(trial.start(arms), values)
    assert not trial.look()
    assert trial.state is State.CANARY
    trial.ledger.set_trial_status("running", who=WHO)
    assert trial.look()
    assert trial.state is State.ABORTED


def test_the_ledger_decides_again_and_never_from_the_running_state(trial: Trial) -> None:
    """Whoever can write the file can write a state; the starts must say the same."""
    arms, values = log(10, 300.0)
    trial.end(trial.start(arms), values)
    trial.look()
    running = trial.ledger.trial_state()
    assert running is not None
    rich = {**running.state, "promote": [[50.0] * 7] * 2}
    with trial.ledger._database.write() as connection:
        import json

        connection.execute(update(schema.trial_state).values(state=json.dumps(rich)))
    with pytest.raises(TransitionRefused, match="does not speak for its promotion"):
        trial.ledger.promote(trial.version, expected_generation=1, who=WHO)


def test_two_workers_count_each_start_once(trial: Trial) -> None:
    other = Controller(trial.ledger, clock=lambda: trial.now)
    arms, values = log(40, 300.0)
    trial.end(trial.start(arms), values)
    running = trial.ledger.canary()
    assert running is not None
    served = Served(canary=_Loaded(running.version), generation=1)  # type: ignore[arg-type]
    trial.look()
    other.judge(served)
    assert trial.controller.latest == other.latest
    assert other.latest is not None
    assert other.latest[1].episodes == 40


def test_a_trial_is_planned_with_the_deviation_that_the_gate_met(
    ledger: Ledger, steps: Any
) -> None:
    steps.first()
    version = steps.register()
    steps.begin(version)
    steps.judge(version, deviation=0.2)
    asked = CanaryParams(weight=0.25, margin=0.1, return_low=0.0, return_high=300.0)
    rules = ledger.propose_trial(version, asked)
    assert (rules.deviation, rules.margin, rules.high) == (0.2, 0.1, 300.0)
    assert [step.weight for step in rules.steps] == [0.05, 0.25]
    assert [step.weight for step in ledger.propose_trial(version, asked, 0.4).steps] == [0.4]


def alarm(ledger: Ledger) -> str:
    return ledger.note("drift", {"promise": 0.9}, who=Who("watch", "returns fell"))


def play(trial: Trial, arms: list[int], values: list[float]) -> None:
    for start in range(0, len(arms), 35):
        trial.end(trial.start(arms[start : start + 35]), values[start : start + 35])
        if trial.look():
            break


@pytest.mark.parametrize(
    ("fall", "end"), [((0.0, 0.0), State.EXPIRED), ((200.0, 200.0), State.EXPIRED),
                      ((0.0, 150.0), State.ABORTED), ((200.0, 290.0), State.ABORTED)]
)  # fmt: skip
def test_what_is_lost_while_the_world_moves_is_not_the_canarys(
    ledger: Ledger, steps: Any, fall: tuple[float, float], end: State
) -> None:
    """What both arms lose is not; what the canary alone loses is, whether the alarm is true or not.

    `fall`: what the champion's returns and the canary's lose at the alarm. Undecided, the trial
    expires and keeps its evidence: it counts from the alarm's world, too.
    """
    trial = Trial(ledger, steps, max_episodes=80)
    arms, values = log(700, 300.0)
    trial.end(trial.start(arms[:10]), values[:10])
    drift = alarm(ledger)
    fallen = [value - fall[arm] for arm, value in zip(arms[10:], values[10:], strict=True)]
    play(trial, arms[10:], fallen)
    found = ledger.version(trial.version)
    [event] = [e for e in ledger.events(trial.version) if e.to_state == end]
    assert (found.state, found.quarantined) == (end, end is State.ABORTED)
    assert event.reason.startswith("the world seems to have moved (returns fell): ")
    assert ledger.evidence(str(event.evidence_sha256))["drift"] == drift
    if end is State.EXPIRED:
        running = ledger.trial_state(POLICY, steps.canary(trial.version).epoch)
        assert running is not None
        assert running.state["champion"]["episodes"] + running.state["canary"]["episodes"] == 80
    assert ledger.verify()


def again(ledger: Ledger, steps: Any, version: int) -> int:
    """The version's pass becomes stale, and it wins another; it may go on trial once more."""
    if ledger.version(version).state is not State.STALE:
        ledger.mark_stale(version, who=WHO)
    steps.begin(version)
    steps.judge(version)
    steps.approve(version)
    return version


@pytest.mark.parametrize("how", ["stale", "copy", "rolled back", "recalled"])
def test_no_new_pass_gives_a_genome_new_evidence(ledger: Ledger, steps: Any, how: str) -> None:
    """Five fresh trials promoted a canary that is worse by the margin in .153 of cases."""
    trial = Trial(ledger, steps, max_episodes=30)
    play(trial, *log(30, 270.0))
    assert trial.state is State.EXPIRED
    assert trial.controller.latest is not None
    before = trial.controller.latest[1]
    version = trial.version
    if how == "copy":
        found = ledger.version(version)
        version = steps.approved(manifest={"genome_digest": found.genome, "note": 1})
    elif how in ("rolled back", "recalled"):
        first = ledger.champion().version  # type: ignore[union-attr]
        steps.second()
        if how == "recalled":
            steps.recalled(first)
        else:
            ledger.rollback(who=WHO)
        version = again(ledger, steps, version)
    else:
        version = again(ledger, steps, version)
    running = ledger.trial_state(POLICY, steps.canary(version).epoch)
    assert running is not None
    assert running.state["since"] == 30
    assert np.exp(np.array(running.state["harm"])).min() != 1
    trial.version, trial.canary = version, ledger.canary()  # type: ignore[assignment]
    trial.look()
    assert trial.controller.latest[1].harm == before.harm
    assert ledger.verify()


@pytest.mark.parametrize("hangs", [0, 1])
def test_no_new_pass_saves_a_canary_from_what_no_worker_has_counted_yet(
    trial: Trial, steps: Any, hangs: int
) -> None:
    """Nor from what started after an episode that still runs; that one counts as missing."""
    trial.start([1] * hangs)
    arms, values = log(200, 150.0)
    trial.end(trial.start(arms), values)
    steps.canary(again(trial.ledger, steps, trial.version))
    assert trial.look()
    assert trial.state is State.ABORTED
    reason = trial.ledger.events(trial.version)[-1].reason
    counted = trial.controller.latest[1].episodes  # type: ignore[index]
    assert reason.endswith(f"; {counted} of {counted} episodes are of its earlier trials")


@pytest.mark.parametrize("how", ["champion", "mode"])
def test_another_champion_or_mode_is_another_question(ledger: Ledger, steps: Any, how: str) -> None:
    trial = Trial(ledger, steps, max_episodes=30)
    play(trial, *log(30, 270.0))
    if how == "champion":
        steps.second()
    else:
        ledger.set_mode(POLICY, "flipped", who=WHO)
    epoch = steps.canary(again(ledger, steps, trial.version)).epoch
    running = ledger.trial_state(POLICY, epoch)
    assert running is not None
    assert running.state == {}


def test_an_alarm_before_the_trial_or_one_that_is_over_excuses_nothing(
    ledger: Ledger, steps: Any
) -> None:
    """A candidate for the world that moved is judged by what it does there."""
    alarm(ledger)
    trial = Trial(ledger, steps)
    alarm(ledger)
    ledger.note("drift_over", {}, who=Who("watch", "returns are back"))
    arms, values = log(700, 150.0)
    for start in range(0, 700, 35):
        trial.end(trial.start(arms[start : start + 35]), values[start : start + 35])
        if trial.look():
            break
    assert trial.state is State.ABORTED


def test_a_trial_that_no_episode_joins_expires(ledger: Ledger, steps: Any) -> None:
    trial = Trial(ledger, steps)
    trial.now += trial.canary.rules.idle - 10
    assert not trial.look()
    trial.start([1])  # one that never ends: it joined, and its time begins anew
    trial.now += 1000
    assert not trial.look()
    trial.now += trial.canary.rules.idle
    assert trial.look()
    assert trial.state == "EXPIRED"
    assert not ledger.version(trial.version).quarantined
    event = ledger.events(trial.version, newest=True, limit=1)[0]
    assert event.reason == "no new episode joined the trial within 7 days"
    steps.canary(trial.version)  # it may be tried again
    assert ledger.verify() == ledger.count()


def test_promotions_spend_alpha_over_the_candidates_of_a_champion(
    ledger: Ledger, steps: Any
) -> None:
    """A genome has its share once; a rollback brings the count of the champion back."""
    terms = TrialTerms(spending="candidates", max_episodes=30)
    ledger.set_deployment_rules(DeploymentRules(trial=terms), who=WHO)
    steps.first()

    def share(version: int) -> float:
        found = steps.canary(version).rules.promote_share
        ledger.expire_canary(who=WHO)
        return float(found)

    first, second = steps.approved(), steps.approved()
    assert [share(first), share(second), share(first)] == [spent(0), spent(1), spent(0)]
    copy = {"genome_digest": ledger.version(first).genome, "note": 1}
    assert share(steps.approved(manifest=copy)) == spent(0)
    ledger.set_deployment_rules(DeploymentRules(), who=WHO)
    steps.second()
    ledger.set_deployment_rules(DeploymentRules(trial=terms), who=WHO)
    assert share(steps.approved()) == spent(0)
    ledger.rollback(who=WHO)
    assert share(steps.approved()) == spent(3)  # of the two and the one that was promoted
    ledger.set_mode(POLICY, "flipped", who=WHO)
    assert share(again(ledger, steps, first)) == spent(4)  # another question


@pytest.mark.parametrize("played", [0, 1])
def test_a_genome_whose_trial_began_before_the_rule_gets_a_share_of_alpha_too(
    ledger: Ledger, steps: Any, played: int
) -> None:
    """It kept the whole alpha. Once it has a share, nobody who comes later takes of it."""
    steps.first()
    old = steps.approved()

    def share(version: int) -> float:
        canary = steps.canary(version)
        steps.play(canary, 300.0, 310.0, played)
        ledger.expire_canary(who=WHO)
        return float(canary.rules.promote_share)

    assert [share(old), share(steps.approved())] == [1, 1]
    terms = TrialTerms(spending="candidates")
    ledger.set_deployment_rules(DeploymentRules(trial=terms), who=WHO)
    assert [share(old), share(steps.approved()), share(old)] == [spent(1), spent(2), spent(1)]


def test_one_callers_observations_end_no_trial(trial: Trial) -> None:
    failed = Compared(copies=1, invalid=1)
    for _ in range(20):
        mine = [Posted(failed, "mallory")] * 5
        trial.ledger.add_compared(POLICY, trial.canary.epoch, mine, 0.05)
        assert not trial.look()
    assert trial.ledger.compared(POLICY, trial.version)[1] == failed
    others = [Posted(failed, f"client {n}") for n in range(12)]
    trial.ledger.add_compared(POLICY, trial.canary.epoch, others, 0.05)
    assert trial.look()
    assert trial.state is State.ABORTED
    assert trial.ledger.verify()


def test_who_has_no_token_ends_no_trial_where_the_last_one_met_many_tokens(
    ledger: Ledger, steps: Any
) -> None:
    """In the first seconds of a trial none of them has sent a request."""
    first = Trial(ledger, steps)
    fine = [Posted(Compared(copies=1, timed=1), f"client {n}") for n in range(20)]
    flood = [Posted(Compared(copies=1, invalid=1))] * 50
    ledger.add_compared(POLICY, first.canary.epoch, fine, 0.05)
    ledger.expire_canary(who=WHO)
    canary = steps.canary(first.version)
    ledger.add_compared(POLICY, canary.epoch, flood, 0.05)
    assert ledger.compared(POLICY, first.version)[1].invalid == 1
    ledger.add_compared(POLICY, canary.epoch, flood, 0.05)
    assert ledger.compared(POLICY, first.version)[1].invalid == 1
    ledger.expire_canary(who=WHO)
    ledger.add_compared(POLICY, steps.canary(first.version).epoch, flood, 0.05)
    assert ledger.compared(POLICY, first.version)[1].invalid == 50  # the one before met no token
