"""The plan says how long a trial takes, and says when it cannot be decided."""

from __future__ import annotations

from serving.trial.plan import plan
from serving.trial.rules import TrialRules, WeightStep


def test_the_defaults_take_at_most_400_episodes_and_1300_where_returns_spread_more() -> None:
    usual, wide = plan(TrialRules()), plan(TrialRules(deviation=0.2))
    assert usual.equal.nine_in_ten is not None
    assert usual.equal.nine_in_ten <= 400
    assert wide.equal.nine_in_ten is not None
    assert wide.equal.nine_in_ten <= 1300
    assert usual.problem is None


def test_better_and_worse_canaries_are_seen_sooner_than_equal_ones() -> None:
    found = plan(TrialRules())
    assert found.better.median is not None
    assert found.worse.median is not None
    assert found.equal.median is not None
    assert max(found.better.median, found.worse.median) < found.equal.median


def test_a_trial_that_cannot_be_decided_says_so_before_it_starts() -> None:
    small = TrialRules(steps=(WeightStep(weight=0.02),), deviation=0.3, max_episodes=500)
    assert plan(small).equal.median is None
    assert "stays undecided in most trials" in str(plan(small).problem)


def test_missing_outcomes_make_a_trial_longer() -> None:
    some, none = plan(TrialRules(missing=0.05)), plan(TrialRules())
    assert some.equal.median is not None
    assert none.equal.median is not None
    assert some.equal.median > none.equal.median
