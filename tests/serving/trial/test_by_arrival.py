"""What outcomes make of a trial: promote, abort or wait, and never on nothing."""

from __future__ import annotations

import numpy as np
import pytest

from serving.trial.by_arrival import decide
from srghn.config import CanaryParams
from srghn.inference.sequences import sequence

PARAMS = CanaryParams(min_episodes=20, max_episodes=2000, return_high=500.0, margin=0.02)


def returns(value: float, n: int, spread: float = 20.0, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(-spread, spread, n)
    return np.clip(value + noise, 0, 500)


def test_a_better_canary_is_promoted_and_a_worse_one_aborted() -> None:
    good, bad = returns(450, 40, seed=1), returns(50, 40, seed=2)
    assert decide(bad, good, PARAMS).action == "promote"
    worse = decide(good, bad, PARAMS)
    assert worse.action == "abort"
    assert worse.high < 0
    assert "worse" in worse.reason


def test_harm_needs_no_minimum_but_a_promotion_does() -> None:
    good, bad = returns(495, 15, 5), returns(5, 15, 5)
    assert decide(good, bad, PARAMS).action == "abort"
    early = decide(bad, good, PARAMS)
    assert early.action == "wait"
    assert "20 of each are needed" in early.reason


def test_an_equal_canary_is_promoted_when_the_margin_is_cleared() -> None:
    wide = PARAMS.model_copy(update={"margin": 0.2})
    held, tried = returns(450, 300, seed=1), returns(450, 300, seed=2)
    assert decide(held[:30], tried[:30], wide).action == "wait"
    found = decide(held, tried, wide)
    assert found.action == "promote"
    assert "not worse than the margin" in found.reason
    assert found.low < 0


@pytest.mark.parametrize(("held", "tried"), [(0, 0), (0, 100), (100, 0), (500, 3)])
def test_a_missing_arm_never_promotes(held: int, tried: int) -> None:
    found = decide(returns(10, held), returns(490, tried), PARAMS)
    assert found.action == "wait"


def test_it_is_given_up_without_a_decision() -> None:
    few = PARAMS.model_copy(update={"max_episodes": 60})
    found = decide(returns(250, 30, 200, 1), returns(250, 30, 200, 2), few)
    assert found.action == "abort"
    assert "given up" in found.reason
    starved = decide(returns(250, 60, 200), returns(250, 0), few)
    assert starved.action == "abort"


def test_returns_beyond_the_range_are_clipped_and_counted() -> None:
    found = decide(np.full(30, 900.0), np.full(30, -3.0), PARAMS)
    assert found.clipped == 60
    assert (found.champion.mean, found.canary.mean) == (500.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outcomes_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        decide(np.array([bad]), np.array([1.0]), PARAMS)


def test_looking_after_every_outcome_keeps_false_alarms_rare() -> None:
    """Two arms of one policy: 'worse' or 'better' after any of 60 outcomes at most 5% of times."""
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(300):
        held, tried = (np.where(rng.random(60) < 0.8, 1.0, 0.2) for _ in range(2))
        (low, high), (other_low, other_high) = sequence(held, 0.025), sequence(tried, 0.025)
        wrong += bool(np.any((other_low > high) | (other_high < low)))
    assert wrong / 300 <= 0.05
    last = decide(500 * held, 500 * tried, PARAMS)
    assert last.low == pytest.approx(500 * (other_low[-1] - high[-1]))
    assert last.high == pytest.approx(500 * (other_high[-1] - low[-1]))


def test_it_has_a_json_form_without_nan() -> None:
    found = decide(np.array([]), np.array([]), PARAMS).to_json()
    assert found["canary"]["mean"] is None
    assert found["action"] == "wait"
