"""The watch alarms where returns fall below the gate's promise, once, and sees a recovery."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import case, update

from serving.control import watch as watch_module
from serving.control.watch import (
    DRIFT,
    IN_A_ROW,
    MISSING,
    POSTED,
    RECOVERY,
    Watch,
    WatchState,
    within,
)
from serving.registry import episodes, schema
from serving.registry.groups import Spoilt, spoil
from serving.registry.ledger import Ledger
from serving.registry.records import Start, Who
from serving.registry.rules import WatchTerms
from serving.registry.schema import POLICY
from srghn.config import CanaryParams
from srghn.inference.detect import Detector
from tests.serving.conftest import Steps


class Served:
    """A champion that the gate promised 80% of the range, and its episodes."""

    def __init__(self, ledger: Ledger, steps: Any, **verdict: Any) -> None:
        self.ledger, self.policy, self.count = ledger, steps.policy, 0
        self.version = steps.register(
            manifest={"canary": CanaryParams(return_low=0.0, return_high=500.0).model_dump()}
        )
        steps.begin(self.version)
        steps.judge(self.version, **{"promise": 0.8, **verdict})
        steps.approve(self.version)
        ledger.promote(self.version, expected_generation=0, who=Who("ann", "first"))
        rules = ledger.deployment_rules(self.policy)
        terms = WatchTerms(run_length=1000, margin=0.05)
        ledger.set_deployment_rules(
            rules.model_copy(update={"watch": terms}),
            who=Who("ann", "few episodes"),
            policy=self.policy,
        )
        self.watch = Watch(ledger, self.policy)

    def play(self, mean: float, count: int, ended: bool = True) -> None:
        rng = np.random.default_rng(self.count)
        for _ in range(count):
            self.count += 1
            name = f"w-{self.count}"
            self.begin(name, seconds=60.0 if ended else -1.0)
            if ended:
                self.end(name, float(np.clip(500 * mean + rng.uniform(-40, 40), 0, 500)))

    def begin(self, *names: str, seconds: float = 3600.0, trial: int | None = None) -> None:
        """Start episodes with a deadline in so many seconds; below 0 it is past already."""
        now = time.time()
        made = [
            Start(
                name,
                self.version,
                trial=trial,
                generation=1,
                started_at=now,
                deadline=now + seconds,
                policy=self.policy,
            )
            for name in names
        ]
        self.ledger.start_episodes(made)

    def end(self, name: str, return_: float, poster: str | None = None) -> None:
        self.ledger.record_outcome(self.policy, name, return_, 10, True, poster)

    def events(self) -> list[str]:
        kinds = (DRIFT, RECOVERY, MISSING, POSTED)
        return [event.action for event in self.ledger.events() if event.action in kinds]


@pytest.fixture
def served(ledger: Ledger, steps: Any) -> Served:
    return Served(ledger, steps)


def test_returns_that_hold_are_steady(served: Served) -> None:
    served.play(0.8, 150)
    served.watch.look()
    seen = served.watch.view()
    assert (seen.status, seen.outcomes) == ("steady", 150)
    assert seen.promise == pytest.approx(0.75)
    assert served.events() == []


def test_it_is_not_said_that_returns_hold_before_one_counts(served: Served) -> None:
    """An episode that nobody ends, tried by hand, holds back what others posted after it."""
    served.begin("by-hand")
    served.play(0.8, 30)
    served.watch.look()
    seen = served.watch.view()
    assert (seen.status, seen.outcomes) == ("steady", 0)
    assert "no outcome counts yet; one counts once each episode that began before" in seen.why
    served.end("by-hand", 400.0)
    served.watch.look()
    assert served.watch.view().why == "returns hold"


def test_a_fall_alarms_once_and_a_recovery_ends_it(served: Served) -> None:
    served.play(0.8, 60)
    served.watch.look()
    for _ in range(4):
        served.play(0.3, 10)
        served.watch.look()
    assert served.events() == [DRIFT]
    assert served.watch.view().status == "drift"
    [event] = [event for event in served.ledger.events() if event.action == DRIFT]
    assert event.version is None
    assert "fell below 75.0% of the range" in event.reason
    assert served.watch.view().alarm == event.hash
    # of the 100 outcomes by then it says after which one it was sure
    assert event.evidence_sha256 is not None
    assert 60 < served.ledger.evidence(event.evidence_sha256)["outcomes"] < 80
    for _ in range(20):
        served.play(0.95, 10)
        served.watch.look()
    assert served.events() == [DRIFT, RECOVERY]
    assert served.watch.view().status == "steady"


def test_two_policies_may_fall_after_as_many_outcomes(ledger: Ledger, steps: Any) -> None:
    """A cause that both have; the second's event was refused, and its server not ready."""
    ledger.add_policy("other", who=Who("ann", "another one"))
    both = [Served(ledger, made) for made in (steps, Steps(ledger, "other"))]
    for served in both:
        served.play(0.0, 40)
        served.watch.look()
    assert [served.watch.view().status for served in both] == ["drift", "drift"]
    assert both[0].events() == [DRIFT, DRIFT]


def test_workers_count_each_outcome_once(served: Served) -> None:
    served.play(0.8, 30)
    other = Watch(served.ledger)
    served.watch.look()
    other.look()
    assert other.view().outcomes == served.watch.view().outcomes == 30


def test_silence_is_blind_and_never_steady(served: Served) -> None:
    served.play(0.8, 30, ended=False)
    served.watch.look()
    seen = served.watch.view()
    assert seen.status == "blind"
    assert "0 of the last 30 episodes" in seen.why
    for watch in (served.watch, served.watch, Watch(served.ledger)):  # told once, by whichever
        watch.tell_silence(seen)
    told = served.ledger.notes(POLICY, "blind")
    assert [event.reason for event in told] == [seen.why]


def test_silence_is_blind_though_old_answers_outnumber_what_was_not_deleted(
    served: Served,
) -> None:
    """Starts without an outcome are deleted after a week; those with one are kept for ever."""
    _expect(served, missing=0.9)
    served.play(0.8, 200)
    served.watch.look()
    served.play(0.8, 30, ended=False)
    served.watch.look()
    assert served.watch.view().status == "steady"
    with served.ledger.database().write() as connection:
        old = schema.starts.c.arrived.is_not(None)
        long_ago = time.time() - 8 * 24 * 3600
        connection.execute(update(schema.starts).where(old).values(started_at=long_ago))
    assert served.watch.view().status == "blind"


def _expect(served: Served, missing: float) -> None:
    rules = served.ledger.deployment_rules(POLICY)
    terms = {"watch": rules.watch.model_copy(update={"missing": missing})}
    who = Who("ann", f"up to {missing} more are switched off")
    served.ledger.set_deployment_rules(rules.model_copy(update=terms), who=who, policy=POLICY)


def test_what_is_steady_is_not_told_as_silence(served: Served) -> None:
    served.play(0.8, 30)
    served.watch.look()
    served.watch.tell_silence(served.watch.view())
    assert served.ledger.notes(POLICY, "blind") == []


def test_without_a_promise_nothing_is_claimed(ledger: Ledger, steps: Any) -> None:
    served = Served(ledger, steps, promise=None)
    served.play(0.1, 30)
    served.watch.look()
    view = served.watch.view()
    assert view.status == "unwatched"
    assert "no range of returns and no promised mean; gate a candidate" in view.why


def test_the_state_is_plain_json(served: Served) -> None:
    served.play(0.3, 40)
    served.watch.look()
    running = served.ledger.watch_state()
    assert running is not None
    assert json.loads(json.dumps(running.state))["generation"] == 1


def test_returns_outside_the_range_are_clipped_and_counted(served: Served) -> None:
    for number, value in enumerate((900.0, 500.0, 0.0, -1.0)):
        served.begin(f"x-{number}")
        served.end(f"x-{number}", value)
    served.watch.look()
    seen = served.watch.view()
    assert (seen.outcomes, seen.outside, seen.mean) == (4, 2, 0.5)


def test_early_failures_of_a_sound_champion_raise_no_alarm(served: Served) -> None:
    """One in ten fails, and reports before the others, which all began at the same time."""
    names = [f"s-{n}" for n in range(200)]
    served.begin(*names)
    for name in names[::10]:
        served.end(name, 0.0)
    served.watch.look()
    for name in sorted(set(names) - set(names[::10])):
        served.end(name, 450.0)
    served.watch.look()
    assert served.events() == []
    assert served.watch.view().outcomes == 200


def test_an_alarm_does_not_wait_for_an_episode_that_still_runs(served: Served) -> None:
    served.begin("long", *(f"s-{n}" for n in range(60)))
    for n in range(60):
        served.end(f"s-{n}", 0.0)
    served.watch.look()
    assert served.events() == [DRIFT]


def test_workers_that_look_at_different_moments_tell_an_alarm_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one has read fewer outcomes, so it places the alarm elsewhere."""
    served.begin("long", *(f"s-{n}" for n in range(60)))
    for n in range(60):
        served.end(f"s-{n}", 0.0)
    other, mine = Watch(served.ledger), served.watch._turn

    def slowly(*args: Any) -> bool:
        served.end("long", 0.0)
        other.look()
        return mine(*args)

    monkeypatch.setattr(served.watch, "_turn", slowly)
    served.watch.look()
    assert served.events() == [DRIFT]
    state = served.ledger.watch_state()
    assert state is not None
    [event] = [event for event in served.ledger.events() if event.action == DRIFT]
    assert state.state["alarm"] == event.hash
    assert served.watch.view().outcomes == 60 + 1


@pytest.mark.parametrize("often", [True, False])
def test_what_counts_does_not_depend_on_when_the_watch_looks(served: Served, often: bool) -> None:
    """A late outcome never counts, and one of an episode that was spoilt always does."""

    def looks(times: int = 1) -> None:
        for _ in range(times if often else 0):
            served.watch.look()

    served.begin("spoilt", "next")
    with served.ledger.database().write() as connection:
        spoil(connection, [Spoilt(POLICY, ("spoilt",))])
    served.end("next", 500.0)
    looks()
    served.end("spoilt", 100.0)
    looks()
    served.begin("late", seconds=-1.0)
    served.begin("last")
    served.end("last", 300.0)
    looks()
    served.end("late", 0.0)
    served.watch.look()
    seen = served.watch.view()
    assert (seen.outcomes, seen.mean) == (3, pytest.approx(0.6))


def test_a_state_that_counted_in_order_of_arrival_goes_on_with_the_next_starts(
    served: Served,
) -> None:
    """Those that ran then are left out with the others: alone they would be the long ones."""
    served.play(0.0, 40)
    served.watch.look()
    old = served.ledger.watch_state()
    assert old is not None
    assert served.watch.view().status == "drift"
    served.begin("ran")
    kept = {key: value for key, value in old.state.items() if key != "order"}
    kept["detector"] = {**kept["detector"], "levels": [900.0] * 4}
    assert served.ledger.advance_watch(POLICY, old.n, 12, kept)  # the 12th to arrive
    for watch in (served.watch, Watch(served.ledger)):
        watch.look()
        assert (watch.view().outcomes, watch.view().level) == (40, 0.0)
    served.end("ran", 500.0)
    served.play(1.0, 4)
    served.watch.look()
    assert served.watch.view().outcomes == 44
    assert served.watch.view().status == "drift"
    assert served.events() == [DRIFT]


def test_the_first_state_without_a_promise_is_in_order_of_start_too(
    ledger: Ledger, steps: Any
) -> None:
    served = Served(ledger, steps, promise=None)
    assert ledger.advance_watch(POLICY, 0, 3, {})
    served.play(0.5, 5)
    served.watch.look()
    state = ledger.watch_state()
    assert state is not None
    assert (state.n, state.state) == (5, {"order": "start"})


def test_an_episode_that_hangs_costs_little_at_most_looks(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds back is read again at each look, so most looks read a part."""
    monkeypatch.setattr(watch_module, "PAGE", 10)
    read, now, whole = [], [time.time()], episodes.after

    def after(*args: Any) -> Any:
        found = whole(*args)
        read.append(len(found))
        return found

    monkeypatch.setattr(episodes, "after", after)
    watch = Watch(served.ledger, clock=lambda: now[0])
    served.begin("hangs")
    served.play(0.8, 50)
    for _ in range(3):
        watch.look()
    served.play(0.0, 50)
    watch.look()
    assert read == [51, 10, 10, 10]
    assert served.events() == []
    now[0] += watch_module.AGAIN
    watch.look()
    assert served.events() == [DRIFT]


def test_an_alarm_does_not_wait_for_one_that_hangs_behind_many_others(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where outcomes get lost some episode always hangs, and a busy service starts many behind."""
    monkeypatch.setattr(watch_module, "PAGE", 10)
    monkeypatch.setattr(watch_module, "AT_ONCE", 40)
    now = [time.time()]
    watches = [Watch(served.ledger, clock=lambda: now[0]) for _ in range(2)]

    def look() -> Any:
        now[0] += watch_module.AGAIN
        for watch in watches:
            watch.look()
        return served.ledger.watch_state()

    served.begin("hangs")
    served.play(0.8, 60)
    look()
    assert served.events() == []
    served.play(0.0, 20)
    at = look()
    assert served.events() == [DRIFT]  # told once
    [event] = [event for event in served.ledger.events() if event.action == DRIFT]
    seen = served.ledger.evidence(str(event.evidence_sha256))["outcomes"]
    assert 20 < seen < 40  # of the newest, of which 20 are bad
    # recovery counts from the start after it
    assert (at.n, at.state["detector"]["n"]) == (81, 40 - seen)
    assert at.state["detector"]["side"] == "recovery"
    served.begin("hangs too")
    served.play(0.0, 50)
    assert look().n == 81
    served.play(1.0, 30)
    last = look()
    assert served.events() == [DRIFT, RECOVERY]
    assert 132 < last.n <= 162
    assert served.watch.view().status == "steady"


def _cap(served: Served, share: float) -> None:
    rules = served.ledger.deployment_rules(POLICY).model_copy(update={"poster_share": share})
    served.ledger.set_deployment_rules(rules, who=Who("ann", "no client decides"), policy=POLICY)


def _post(served: Served, posters: list[str], return_: float) -> None:
    served.count += len(posters)
    names = [f"p-{served.count}-{n}" for n in range(len(posters))]
    served.begin(*names)
    for name, poster in zip(names, posters, strict=True):
        served.end(name, return_, poster)


HONEST = [f"client {n}" for n in range(40)]


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_no_token_raises_or_hides_an_alarm_beyond_its_share(served: Served, share: float) -> None:
    """A few lies in a row are enough otherwise, however many honest outcomes went before."""
    _cap(served, share)
    _post(served, HONEST * 5, 450.0)
    _post(served, ["mallory"] * 12, 0.0)
    served.watch.look()
    assert served.events() == ([DRIFT] if share == 1 else [])
    assert served.watch.view().outcomes == (212 if share == 1 else 202)
    if share < 1:
        for client in HONEST * 2:
            _post(served, [client], 300.0)
            _post(served, ["mallory"] * 5, 500.0)
        served.watch.look()
        assert served.events() == [DRIFT]  # hidden by his praise otherwise


def test_an_alarm_names_the_token_that_makes_most_of_the_loss(served: Served) -> None:
    _post(served, HONEST * 5, 450.0)
    _post(served, ["mallory"] * 30, 0.0)
    served.watch.look()
    [event] = [event for event in served.ledger.events() if event.action == DRIFT]
    assert "; 100% of the loss is in " in event.reason
    assert event.reason.endswith(" of 200 outcomes, by mallory")


def test_a_fall_that_all_clients_see_is_no_tokens(served: Served) -> None:
    _post(served, HONEST, 450.0)
    _post(served, HONEST, 100.0)
    served.watch.look()
    [event] = [event for event in served.ledger.events() if event.action == DRIFT]
    assert event.reason == "returns fell below 75.0% of the range"


def test_a_cap_that_too_few_tokens_can_meet_is_said(served: Served) -> None:
    _cap(served, 0.05)
    _post(served, ["one", "two", "three"] * 10, 0.0)
    served.watch.look()
    seen = served.watch.view()
    assert (seen.status, seen.outcomes) == ("blind", 6)
    assert "6 of 30 outcomes count; the others are beyond" in seen.why


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_of_any_outcomes_in_a_row_a_token_has_its_share(served: Served, share: float) -> None:
    """Counted in one look or in many, the same outcomes count."""
    rng = np.random.default_rng(3)
    posters = rng.choice(["a", "b", "c", "d"], 300, p=[0.7, 0.1, 0.1, 0.1]).tolist()
    rows = [SimpleNamespace(poster=poster, arrived=1) for poster in posters]
    begun = WatchState(1, Detector(0.5, "fall"))
    kept, due = within(rows, begun, share)  # type: ignore[arg-type]
    parts, state = [], begun
    for at in range(0, 300, 7):
        some, owed = within(rows[at : at + 7], state, share)  # type: ignore[arg-type]
        parts += some
        state = replace(state, outcomes=state.outcomes + len(some), due=owed)
    assert (parts, state.due) == (kept, due)
    mine = np.concatenate([[0], np.cumsum([row.poster == "a" for row in kept])])
    for length in range(1, len(kept) + 1):
        assert (mine[length:] - mine[:-length]).max() <= share * length + IN_A_ROW + 1e-9
    everything, nothing = within(rows, begun, 1.0)  # type: ignore[arg-type]
    assert (everything, nothing) == (rows, {})


def test_failures_that_post_nothing_are_told_as_missing_outcomes(served: Served) -> None:
    """Every second episode crashes its client; all others return what was promised."""
    served.play(0.8, 40)
    for _ in range(15):
        served.play(0.8, 1, ended=False)
        served.play(0.8, 1)
    served.watch.look()
    assert served.events() == [MISSING]
    [event] = [event for event in served.ledger.events() if event.action == MISSING]
    assert event.reason == (
        "outcomes are missing or late: more than 10.0% of the episodes have none by their deadline"
    )
    seen = served.watch.view()
    assert (seen.status, seen.missing) == ("missing", event.hash)
    assert seen.why == (
        "outcomes are missing or late: 15 of the last 70 episodes have none by their deadline, "
        "at most 10.0% are expected"
    )
    served.play(0.8, 200)
    served.watch.look()
    assert served.events() == [MISSING, POSTED]
    assert served.watch.view().status == "steady"
    assert served.watch.view().outcomes == 40 + 15 + 200


def test_both_alarms_may_stand_and_each_is_told(served: Served) -> None:
    served.play(0.8, 40)
    for _ in range(40):
        served.play(0.2, 1, ended=False)
        served.play(0.2, 1)
    served.watch.look()
    assert sorted(served.events()) == [DRIFT, MISSING]
    seen = served.watch.view()
    assert seen.status == "drift"
    assert "outcomes are missing or late: 40 of the last 120 episodes have none" in seen.why


def test_clients_that_never_post_outcomes_raise_no_alarm(served: Served) -> None:
    for _ in range(4):
        served.play(0.8, 100, ended=False)
        served.watch.look()
    assert served.events() == []
    assert served.watch.view().status == "blind"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("before", [0, 220])
def test_the_share_that_was_missing_in_service_before_is_expected(
    served: Served, before: int, late: bool
) -> None:
    """Two of five clients never post, or do so late, and did under the champion before."""

    def play(count: int) -> None:
        served.play(0.8, 3 * count)
        served.play(0.8, 2 * count, ended=False)
        for number in range(served.count - 2 * count if late else served.count, served.count):
            served.end(f"w-{number + 1}", 400.0)

    play(before // 5)
    old = time.time() - 2 * 3600
    with served.ledger.database().write() as connection:
        early = {"started_at": old, "deadline": old + 600, "version": 99}
        seen = schema.starts.c
        ended = [(seen.ended_at <= seen.deadline, old + 60), (seen.ended_at.is_(None), None)]
        connection.execute(update(schema.starts).values(ended_at=case(*ended, else_=old + 1200)))
        connection.execute(update(schema.starts).values(**early))
    for _ in range(15):
        play(1)
    served.watch.look()
    assert served.events() == ([] if before else [MISSING])
    if not before:
        assert "30 of the last 75 episodes have none by their" in served.watch.view().why


def test_a_share_of_missing_outcomes_that_is_accepted_ends_the_alarm(served: Served) -> None:
    """A new service whose clients leave a third of their episodes has no champion before it."""

    def play() -> None:
        for _ in range(20):
            served.play(0.8, 2)
            served.play(0.8, 1, ended=False)
        served.watch.look()

    play()
    assert served.events() == [MISSING]
    _expect(served, missing=0.8)
    play()
    assert served.events() == [MISSING, POSTED]
    assert served.watch.view().status == "steady"
    _expect(served, missing=0.1)
    play()
    assert served.events() == [MISSING, POSTED, MISSING]
    _expect(served, missing=0.0)  # nothing may be missing: no share to bet on, but no error
    play()
    assert served.events() == [MISSING, POSTED, MISSING]


def test_what_raised_the_alarm_for_missing_outcomes_is_not_expected_of_the_next_champion(
    served: Served,
) -> None:
    """A promotion ended the alarm, and half of all outcomes could be missing from then on."""

    def play(lost: bool) -> None:
        for _ in range(40):
            served.play(0.8, 2)
            served.play(0.8, 1, ended=not lost)
        served.watch.look()

    play(lost=True)
    assert served.events() == [MISSING]
    running = served.ledger.watch_state()
    assert running is not None
    of_another = {**running.state, "generation": 0}
    assert served.ledger.advance_watch(POLICY, running.n, running.n, of_another)
    assert served.watch.view().status == "missing"
    assert served.watch.view().outcomes == 0
    play(lost=True)
    assert (served.events(), served.watch.view().status) == ([MISSING], "missing")
    play(lost=False)
    assert (served.events(), served.watch.view().status) == ([MISSING, POSTED], "steady")
    play(lost=True)
    assert served.events() == [MISSING, POSTED, MISSING]


def test_what_was_missing_before_is_measured_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at every look while a champion's first episodes run: it reads a busy service's hour."""
    asked = []
    monkeypatch.setattr(episodes, "missing", lambda *args: asked.append(args) or 0.2)
    served.begin("runs")
    served.play(0.8, 1)
    for watch in (served.watch, Watch(served.ledger)):
        watch.look()
    _expect(served, missing=0.5)
    served.watch.look()
    state = served.ledger.watch_state()
    assert state is not None
    assert state.state["answers"]["mean"] == pytest.approx(1 - 0.2 - 0.5)
    assert (state.n, len(asked)) == (0, 1)


@pytest.mark.parametrize("seconds", [300.0, 3600.0])
def test_an_episode_with_less_time_than_outside_trials_is_not_missing(
    served: Served, seconds: float
) -> None:
    """In a trial `trial.deadline` decides, and what is expected was measured outside trials."""
    served.play(0.8, 20)
    served.begin(*(f"t-{n}" for n in range(40)), seconds=seconds, trial=5)
    Watch(served.ledger, clock=lambda: time.time() + 4000).look()
    assert served.events() == ([MISSING] if seconds == 3600 else [])


def test_outcomes_that_are_all_late_are_no_outcomes(served: Served) -> None:
    """No return counts, so the watch must not say that returns hold."""
    served.play(0.8, 30, ended=False)
    for number in range(30):
        served.end(f"w-{number + 1}", 400.0)
    served.watch.look()
    seen = served.watch.view()
    assert (seen.outcomes, seen.status) == (0, "blind")
    assert "0 of the last 30 episodes have an outcome by their deadline" in seen.why
