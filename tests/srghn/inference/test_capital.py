"""Evidence of a trial: false promotions under drift, what it costs, and state that survives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from srghn.inference.capital import Baseline, Bets, Capital, harm, planned_bets, promotion

ALPHA = 0.05


def crossed(scores: np.ndarray, exposures: np.ndarray, state: Capital) -> np.ndarray:
    """After which episode each trial (trials, n) reached 1/ALPHA; n + 1 for never."""
    sign = 1 if state.side == "above" else -1
    logs = np.stack(
        [
            np.cumsum(np.log1p(sign * bet * exposures * (scores - state.null)), axis=1)
            for bet in state.bets.lambdas
        ]
    )
    mixture = np.log((np.exp(logs) * np.array(state.bets.shares)[:, None, None]).sum(axis=0))
    hit = mixture >= -np.log(ALPHA)
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, hit.shape[1] + 1)


def trials(
    rng: np.random.Generator, means: np.ndarray, effect: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and exposures (trials, n) of returns around `means` (n,), the canary's off by
    `effect` (n,); sd 0.1, baseline 0.5."""
    shape = (600, len(means))
    arms = rng.random(shape) < weights
    returns = np.clip(means + arms * effect + rng.normal(0, 0.1, shape), 0, 1)
    scores = (arms - weights) * (returns - 0.5) / (weights * (1 - weights))
    return scores, np.broadcast_to(np.minimum(weights, 1 - weights), shape)


@pytest.mark.parametrize("drift", ["none", "drop", "swinging effect", "steps of weight"])
def test_a_canary_at_the_margin_is_promoted_with_at_most_alpha(drift: str) -> None:
    n, margin = 1200, 0.05
    t = np.arange(n)
    means = np.where(t < 400, 0.7, 0.3) if drift == "drop" else np.full(n, 0.6)
    # the running mean is always at or below -margin, though half of all effects are above it
    swing = np.where((t // 50) % 2 == 0, -2 * margin, 0.0)
    effect = swing if drift == "swinging effect" else np.full(n, -margin)
    weights = np.select([t < 100, t < 400], [0.05, 0.25], 0.5)
    weights = weights if drift == "steps of weight" else np.full(n, 0.25)
    scores, exposures = trials(np.random.default_rng(1), means, effect, weights)
    state = promotion(margin, planned_bets(margin, 0.25, 0.1))
    assert np.mean(crossed(scores, exposures, state) <= n) <= ALPHA


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.75])
def test_equal_arms_under_a_common_drop_are_not_called_harmful(weight: float) -> None:
    means = np.where(np.arange(1200) < 400, 0.8, 0.3)
    weights = np.full(1200, weight)
    scores, exposures = trials(np.random.default_rng(2), means, np.zeros(1200), weights)
    state = harm(planned_bets(0.05, weight, 0.1))
    assert np.mean(crossed(scores, exposures, state) <= 1200) <= ALPHA


def test_bets_that_adapt_would_be_caught() -> None:
    """The tests above can fail: betting on the recent mean promotes a canary at the margin."""
    n, margin = 1200, 0.05
    effect = np.where((np.arange(n) // 50) % 2 == 0, -2 * margin, 0.0)
    scores, exposures = trials(np.random.default_rng(1), np.full(n, 0.6), effect, np.full(n, 0.5))
    gains = exposures * (scores + margin)
    recent = np.stack([gains[:, max(0, i - 20) : i].mean(axis=1) if i else gains[:, 0] * 0
                       for i in range(n)], axis=1)  # fmt: skip
    wealth = np.cumsum(np.log1p(np.clip(20 * recent, 0, 0.9) * gains), axis=1)
    assert np.mean(wealth.max(axis=1) >= -np.log(ALPHA)) > 2 * ALPHA


def test_equal_arms_are_promoted_and_a_worse_canary_is_aborted_in_time() -> None:
    """w .5, margin .05, sd .1: 172 / 270 in the plan's table; worse by .1: aborted after 89."""
    n, weights = 800, np.full(800, 0.5)
    bets = planned_bets(0.05, 0.5, 0.1)
    rng, means = np.random.default_rng(3), np.full(n, 0.5)
    equal = crossed(*trials(rng, means, np.zeros(n), weights), promotion(0.05, bets))
    assert 120 < np.median(equal) < 230
    assert np.quantile(equal, 0.9) < 350
    worse = crossed(*trials(rng, means, np.full(n, -0.1), weights), harm(bets))
    assert 60 < np.median(worse) < 120


def test_batches_are_the_same_as_one_by_one_and_survive_json() -> None:
    rng = np.random.default_rng(4)
    arms, values = rng.integers(0, 2, 200), rng.random(200)
    weights = np.full(200, 0.25)
    after, scores, exposures = Baseline().score(arms, weights, values)
    once = promotion(0.02, planned_bets(0.02, 0.25, 0.1)).update(scores, exposures)
    baseline, state = Baseline(), promotion(0.02, planned_bets(0.02, 0.25, 0.1))
    for i in range(200):
        part = slice(i, i + 1)
        baseline, d, v = baseline.score(arms[part], weights[part], values[part])
        baseline = Baseline.from_json(json.loads(json.dumps(baseline.to_json())))
        state = Capital.from_json(json.loads(json.dumps(state.update(d, v).to_json())))
    assert baseline == after
    assert state.n == once.n == 200
    assert state.log == pytest.approx(once.log, abs=1e-9)


def test_scores_are_unbiased_and_bounded_at_every_weight() -> None:
    rng = np.random.default_rng(5)
    for weight in (0.05, 0.5, 0.9):
        arms = (rng.random(40_000) < weight).astype(int)
        values = np.where(arms == 1, 0.3, 0.6)
        _, scores, exposures = Baseline().score(arms, np.full(40_000, weight), values)
        assert np.abs(scores * exposures).max() <= 1
        assert scores.mean() == pytest.approx(-0.3, abs=0.03)


def test_long_trials_neither_overflow_nor_vanish() -> None:
    state = promotion(0.05, planned_bets(0.05, 0.5, 0.1))
    for _ in range(20):
        state = state.update(np.full(5000, 2.0), np.full(5000, 0.5))
    assert np.isfinite(state.log)
    assert state.reached(1e-300)
    fallen = harm(state.bets).update(np.full(50_000, 2.0), np.full(50_000, 0.5))
    assert np.isfinite(fallen.log)
    assert not fallen.reached(0.5)


@pytest.mark.parametrize("bad", [np.nan, 1.2, -0.1])
def test_returns_outside_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Baseline().score([1], [0.5], [bad])


def test_bets_and_nulls_that_could_ruin_are_refused() -> None:
    with pytest.raises(ValueError, match="null"):
        promotion(-0.05, planned_bets(0.05, 0.5, 0.1))
    with pytest.raises(ValueError, match="bets lie"):
        harm(Bets((1.5,), (1.0,)))
    with pytest.raises(ValueError, match="planned"):
        planned_bets(0.0, 0.5, 0.1)
