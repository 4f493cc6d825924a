"""Starts and outcomes in their order, and the state that workers move on together."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from serving.registry import episodes
from serving.registry.episodes import MEASURED, UnknownEpisode
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Start, Who
from serving.registry.rules import DeploymentRules
from serving.registry.trial_log import to_log
from serving.trial import evidence
from serving.trial.decision import advance
from serving.trial.rules import CAP_FROM, TrialRules, TrialTerms, WeightStep
from srghn.config import CanaryParams
from srghn.errors import TransitionRefused
from tests.serving.conftest import Steps

ANN = Who("ann", "because")

BOTH_DATABASES = True


def begin(ledger: Ledger, *names: str, trial: int | None = 7, **more: Any) -> list[int]:
    starts = [Start(name, 1, trial=trial, weight=0.5, deadline=100.0, **more) for name in names]
    return ledger.start_episodes(starts)


def test_a_group_of_starts_is_numbered_in_its_order(ledger: Ledger) -> None:
    assert begin(ledger, "c", "a", "b") == [1, 2, 3]
    assert begin(ledger, "d", "a") == [4, 2]  # an episode starts once
    assert begin(ledger, "e", "e") == [5, 5]
    found = ledger.find_episode("a")
    assert found is not None
    assert (found.n, found.version, found.weight, found.arrived) == (2, 1, 0.5, None)


def test_the_same_episode_of_another_policy_is_another_one(ledger: Ledger) -> None:
    ledger.add_policy("other", who=ANN)
    assert begin(ledger, "a") + begin(ledger, "a", policy="other") == [1, 2]
    ledger.record_outcome("other", "a", 5.0, 10, True)
    assert ledger.find_episode("a").arrived is None  # type: ignore[union-attr]


def test_an_outcome_counts_once_and_is_never_changed(ledger: Ledger) -> None:
    begin(ledger, "a")
    first = ledger.record_outcome(POLICY, "a", 5.0, 10, True, "client")
    assert (first.n, first.return_, first.counted, first.poster) == (1, 5.0, True, "client")
    assert ledger.record_outcome(POLICY, "a", 5.0, 10, True, "stranger") == first
    with pytest.raises(TransitionRefused, match="already ended with return 5 after 10 steps"):
        ledger.record_outcome(POLICY, "a", 500.0, 10, True)
    with pytest.raises(UnknownEpisode, match="no action was asked for"):
        ledger.record_outcome(POLICY, "b", 5.0, 10, True)


def test_outcomes_arrive_in_an_order_of_their_own(ledger: Ledger) -> None:
    begin(ledger, "a", "b", "c")
    for name in "cab":
        ledger.record_outcome(POLICY, name, 1.0, 1, True)
    assert [outcome.episode_id for outcome in ledger.outcomes()] == ["c", "a", "b"]
    assert [outcome.n for outcome in ledger.outcomes(since=1, limit=1)] == [2]


def test_evidence_is_the_longest_prefix_in_order_of_start(ledger: Ledger) -> None:
    begin(ledger, "a", "b", "c", "d")
    begin(ledger, "x", trial=None)

    def prefix(after: int, now: float, limit: int = 10) -> list[str]:
        return [row.episode for row in ledger.resolved(POLICY, 7, after, now, limit)]

    assert prefix(0, 50.0) == []
    ledger.record_outcome(POLICY, "b", 1.0, 1, True)
    assert prefix(0, 50.0) == []  # a still runs: b waits for it
    ledger.record_outcome(POLICY, "a", 1.0, 1, True)
    assert prefix(0, 50.0) == ["a", "b"]
    assert prefix(0, 100.5, 3) == ["a", "b", "c"]  # c passed its deadline: missing
    assert prefix(2, 100.5) == ["c", "d"]
    assert ledger.resolved(POLICY, 7, 2, 100.5)[0].return_ is None


def test_one_worker_moves_a_trial_on(ledger: Ledger, steps: Any) -> None:
    steps.first()
    epoch = steps.canary(steps.approved()).epoch
    state = ledger.trial_state(POLICY)
    assert state is not None
    assert (state.trial, state.n, dict(state.state)) == (epoch, 0, {})
    won: list[int] = []

    def advance(worker: int) -> None:
        if ledger.advance_trial(POLICY, epoch, 0, 12, {"by": worker}):
            won.append(worker)

    threads = [threading.Thread(target=advance, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    after = ledger.trial_state(POLICY, epoch)
    assert after is not None
    assert (after.n, after.state["by"]) == (12, won[0])
    assert not ledger.advance_trial(POLICY, epoch, 0, 13, {})


def test_a_trial_tried_again_keeps_its_state(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = steps.approved()
    running = steps.canary(version)
    one = running.epoch
    steps.play(running, 300.0, 310.0, 9)
    found = ledger.resolved(POLICY, one, 0, 0.0)
    kept, _ = advance(evidence.begin(running.rules), to_log(found, running.rules), running.rules)
    assert kept.canary.outcomes == kept.champion.outcomes == 9
    made_up = replace(kept, promote=np.full((2, 7), 3.5), canary=evidence.ArmCount(99))
    ledger.advance_trial(POLICY, one, 0, 40, made_up.to_json())  # a row: its starts say what holds
    assert ledger.expire_canary(who=ANN) == version
    assert ledger.canary() is None
    assert ledger.version(version).state == "EXPIRED"
    assert not ledger.version(version).quarantined
    two = steps.canary(version).epoch
    state = ledger.trial_state(POLICY)
    assert state is not None
    assert two > one
    assert (state.trial, state.n) == (two, 0)
    assert dict(state.state) == {**kept.to_json(), "since": 18}
    ledger.verify()


def test_a_trial_tried_again_by_other_weights_keeps_its_bets(ledger: Ledger, steps: Any) -> None:
    """Bets are constant from the first episode on: what one won is not bet by another."""
    ledger.set_deployment_rules(DeploymentRules(trial=TrialTerms(missing=0.2)), who=ANN)
    steps.first()
    version = steps.approved()
    first = steps.canary(version)
    state = evidence.begin(first.rules)
    steps.play(first, 300.0, 310.0, 1)
    ledger.expire_canary(who=ANN)
    terms = TrialTerms(steps=(WeightStep(weight=0.1, outcomes=20),), missing=0.2)
    ledger.set_deployment_rules(DeploymentRules(trial=terms), who=ANN)
    again = steps.canary(version)
    assert again.rules.weight == 0.1
    kept = ledger.trial_state(POLICY)
    assert kept is not None
    assert kept.state["bets"] == state.to_json()["bets"]
    assert kept.state["bets"] != evidence.begin(again.rules).to_json()["bets"]


@pytest.mark.parametrize("played", [0, 1])
def test_a_trial_tried_again_takes_new_rules_for_what_comes_later(
    ledger: Ledger, steps: Any, played: int
) -> None:
    """A deadline that was wrong stayed so for ever. Without evidence no rule is kept."""
    wrong = TrialTerms(deadline=60.0, idle=100.0, margin=0.04)
    ledger.set_deployment_rules(DeploymentRules(trial=wrong, poster_share=0.05), who=ANN)
    steps.first()
    version = steps.approved()
    steps.play(steps.canary(version), 300.0, 310.0, played)
    ledger.expire_canary(who=ANN)
    right = TrialTerms(deadline=7200.0, idle=300.0, margin=0.1)
    ledger.set_deployment_rules(DeploymentRules(trial=right, poster_share=0.5), who=ANN)
    asked = CanaryParams(min_episodes=5, return_low=0.0, return_high=500.0)
    planned, before = ledger.propose_trial(version, asked), ledger.carried(version)
    rules = steps.canary(version).rules
    assert (rules, 2 * played) == (planned, before)
    assert (rules.deadline, rules.idle, rules.poster_share) == (7200.0, 300.0, 0.5)
    assert rules.margin == (0.04 if played else 0.1)  # chosen before the evidence
    kept = ledger.trial_state(POLICY)
    assert kept is not None
    assert bool(kept.state) is bool(played)


def test_a_trial_is_planned_with_the_outcomes_that_are_missing_in_service(tmp_path: Any) -> None:
    now = [1000.0]
    ledger = Ledger(f"sqlite:///{tmp_path / 'l.db'}", clock=lambda: now[0])
    steps = Steps(ledger)
    steps.first()
    version, asked = steps.approved(), CanaryParams(return_low=0.0, return_high=500.0)
    deadline = ledger.propose_trial(version, asked).deadline
    names = [f"e{n}" for n in range(MEASURED)]
    ledger.start_episodes([Start(name, 1, started_at=1000.0, deadline=9e9) for name in names])
    for name in names[: MEASURED // 2]:
        ledger.record_outcome(POLICY, name, 1.0, 1, True)
    now[0] += deadline
    assert ledger.propose_trial(version, asked).missing == 0  # none is older than the deadline
    now[0] += 1
    ledger.record_outcome(POLICY, names[-1], 1.0, 1, True)  # too late
    assert ledger.propose_trial(version, asked).missing == 0.5
    ledger.set_deployment_rules(DeploymentRules(trial=TrialTerms(missing=0.1)), who=ANN)
    assert ledger.propose_trial(version, asked).missing == 0.1
    ledger.close()


def test_an_expired_trial_ends_with_its_pass(tmp_path: Any, steps: Any) -> None:
    now = [1000.0]
    ledger = Ledger(f"sqlite:///{tmp_path / 'l.db'}", clock=lambda: now[0])
    steps = type(steps)(ledger)
    steps.first()
    version = steps.approved()
    steps.canary(version)
    ledger.expire_canary(who=ANN)
    now[0] += 31 * 24 * 3600
    with pytest.raises(TransitionRefused, match="STALE"):
        steps.canary(version)
    ledger.close()


def test_a_start_is_read_alike_in_any_order(ledger: Ledger) -> None:
    """Pages of many starts are read by place, which is quicker than by name."""
    begin(ledger, "a", "b")
    ledger.record_outcome(POLICY, "b", -2.5, 7, True, "ann")
    by_name = [ledger.find_episode(name) for name in ("a", "b")]
    with ledger.database().read() as connection:
        assert episodes.after(connection, POLICY, 0, 9) == by_name
        assert episodes.newest(connection, POLICY, 9) == by_name[::-1]


def test_the_watch_counts_each_outcome_once(ledger: Ledger) -> None:
    assert ledger.watch_state() is None
    assert ledger.advance_watch(POLICY, 0, 5, {"r": 1.0})
    assert not ledger.advance_watch(POLICY, 0, 6, {"r": 2.0})
    assert ledger.advance_watch(POLICY, 5, 6, {"r": 2.0})
    state = ledger.watch_state()
    assert state is not None
    assert (state.n, state.state["r"]) == (6, 2.0)


def test_one_poster_is_no_more_than_a_share_of_the_evidence(ledger: Ledger) -> None:
    """In order of start, in whichever order outcomes arrive."""
    rules = TrialRules(poster_share=0.5)
    half = CAP_FROM // 2
    names = [f"e{n}" for n in range(3 * CAP_FROM)]
    in_time: dict[str, Any] = {"trial": 7, "weight": 0.5, "deadline": 1e12}
    ledger.start_episodes([Start(name, 1, **in_time) for name in names])
    for name in reversed(names):
        ledger.record_outcome(POLICY, name, 1.0, 1, True, "one")
    found = ledger.resolved(POLICY, 7, 0, 50.0)
    state, _ = advance(evidence.begin(rules), to_log(found, rules), rules)
    assert (state.episodes, state.outcomes, state.posted) == (3 * CAP_FROM, half, {"one": half})
    for n in range(CAP_FROM):
        ledger.start_episodes([Start(f"f{n}", 1, **in_time)])
        ledger.record_outcome(POLICY, f"f{n}", 1.0, 1, True, "two" if n < half else f"new {n}")
    more = ledger.resolved(POLICY, 7, found[-1].n, 50.0)
    after, _ = advance(state, to_log(more, rules), rules)
    assert after.posted == {"one": half, "two": half} | {
        f"new {n}": 1 for n in range(half, 2 * half)
    }
    whole, _ = advance(evidence.begin(rules), to_log([*found, *more], rules), rules)
    assert whole.to_json() == after.to_json()


def test_the_cap_is_part_of_the_rules_that_a_trial_begins_with(steps: Steps) -> None:
    steps.ledger.set_deployment_rules(DeploymentRules(poster_share=0.2), who=ANN)
    steps.first()
    assert steps.canary(steps.approved()).rules.poster_share == 0.2


def test_what_never_ended_is_forgotten_and_a_trials_evidence_is_not(tmp_path: Any) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'l.db'}", clock=lambda: 1000.0)
    begin(ledger, "trial")
    begin(ledger, "lost", "over", trial=None)
    ledger.record_outcome(POLICY, "over", 1.0, 1, True)
    assert ledger.prune_starts(POLICY, older_than=500, newest=1000, limit=9) == 1
    assert [ledger.find_episode(name) is None for name in ("trial", "lost", "over")] == [
        False, True, False,
    ]  # fmt: skip
    ledger.close()


def test_an_outcome_that_comes_before_its_episode_is_forgotten_is_kept(ledger: Ledger) -> None:
    begin(ledger, "lost", "late", trial=None)
    with ledger.database().read() as connection:
        found = episodes.stale(connection, POLICY, time.time(), time.time(), 1000, 9)
    assert len(found) == 2
    ledger.record_outcome(POLICY, "late", 1.0, 1, True)
    with ledger.database().write() as connection:
        episodes.forget(connection, found)
    assert [ledger.find_episode(name) is None for name in ("lost", "late")] == [True, False]


def test_no_transaction_forgets_more_than_a_few(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.registry.episode_log.TOGETHER", 2)
    begin(ledger, *"abcdef", trial=None)
    groups: list[tuple[str, ...]] = []

    def forget(connection: Any, numbers: Any) -> None:
        original(connection, numbers)
        groups.append(tuple(name for name in "abcdef" if ledger.find_episode(name)))
        assert connection.in_transaction()

    original = episodes.forget
    monkeypatch.setattr(episodes, "forget", forget)
    assert ledger.prune_starts(POLICY, older_than=0, newest=1000, limit=5) == 5
    # another connection sees those of the transactions before
    assert groups == [tuple("abcdef"), tuple("cdef"), tuple("ef")]
    assert [name for name in "abcdef" if ledger.find_episode(name)] == ["f"]


def test_of_many_that_never_end_only_the_newest_are_kept_once_they_are_late(ledger: Ledger) -> None:
    """Whoever may ask for actions could fill the disk for a week."""
    now = time.time()
    ledger.add_policy("rare", who=ANN)
    begin(ledger, "rare", trial=None, started_at=now, policy="rare")
    ledger.start_episodes([Start("running", 1, started_at=now, deadline=now + 1000)])
    begin(ledger, "a", "over", "b", "c", trial=None, started_at=now)
    begin(ledger, "trial", started_at=now)
    begin(ledger, "new 1", "new 2", trial=None, started_at=now)
    ledger.record_outcome(POLICY, "over", 1.0, 1, True)
    assert [ledger.prune_starts(POLICY, 500, newest=2, limit=2) for _ in range(3)] == [2, 1, 0]
    assert ledger.prune_starts("rare", 500, newest=2, limit=2) == 0
    assert ledger.find_episode("rare", "rare") is not None
    names = ("running", "a", "over", "b", "c", "trial", "new 1", "new 2")
    kept = [name for name in names if ledger.find_episode(name)]
    assert kept == ["running", "over", "trial", "new 1", "new 2"]
