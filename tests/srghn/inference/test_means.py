"""Mixture bets on bounded means: coverage at every moment, invariances, and batches."""

from __future__ import annotations

import numpy as np
import pytest

from srghn.inference.sequences import bounds, capital_path, log_capital

ALPHA = 0.05


def draws(name: str, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    if name == "rare":  # a catastrophe in a hundred episodes
        return np.where(rng.random(shape) < 0.01, 0.0, 0.9), 0.891
    if name == "coin":
        return (rng.random(shape) < 0.3).astype(float), 0.3
    return rng.beta(2, 5, shape), 2 / 7


@pytest.mark.parametrize("name", ["rare", "coin", "beta"])
def test_each_end_is_wrong_with_at_most_alpha_at_every_moment(name: str) -> None:
    x, mean = draws(name, np.random.default_rng(5), (1200, 300))
    low = capital_path(x, mean).max(axis=1) >= -np.log(ALPHA)
    high = capital_path(1 - x, 1 - mean).max(axis=1) >= -np.log(ALPHA)
    assert max(low.mean(), high.mean()) <= ALPHA


def test_a_bootstrap_would_be_caught() -> None:
    """The test above can fail: percentile bootstraps of 30 rare catastrophes cover 3 in 10."""
    x, mean = draws("rare", np.random.default_rng(5), (300, 30))
    rng, wrong = np.random.default_rng(0), 0
    for row in x:
        means = row[rng.integers(0, 30, (400, 30))].mean(axis=1)
        wrong += bool(np.quantile(means, ALPHA) > mean)
    assert wrong / 300 > 5 * ALPHA


def test_bounds_are_where_the_capital_reaches_its_limit() -> None:
    x = np.random.default_rng(1).beta(8, 2, (3, 400))
    low, high = bounds(x, ALPHA)
    assert np.all((low < x.mean(axis=1)) & (x.mean(axis=1) < high))
    assert np.all(high - low < 0.08)
    np.testing.assert_allclose(log_capital(x, low), -np.log(ALPHA), atol=1e-6)
    np.testing.assert_allclose(log_capital(1 - x, 1 - high), -np.log(ALPHA), atol=1e-6)


def test_order_and_missing_values_change_nothing_and_mirroring_mirrors() -> None:
    rng = np.random.default_rng(2)
    x = rng.random((1, 90))
    padded = np.concatenate([np.full((1, 10), np.nan), x[:, rng.permutation(90)]], axis=1)
    np.testing.assert_allclose(bounds(padded, ALPHA), bounds(x, ALPHA), atol=1e-10)
    low, high = bounds(1 - x, ALPHA)
    np.testing.assert_allclose((1 - high, 1 - low), bounds(x, ALPHA), atol=1e-10)


def test_cells_do_not_know_of_each_other() -> None:
    x = np.random.default_rng(3).random((4, 60))
    together, alone = bounds(x, ALPHA), [bounds(row[None], ALPHA) for row in x]
    np.testing.assert_array_equal(together[0], [low[0] for low, _ in alone])


def test_nothing_seen_says_nothing() -> None:
    low, high = bounds(np.full((2, 0), 0.5), ALPHA)
    assert low.tolist() == [0, 0]
    assert high.tolist() == [1, 1]


@pytest.mark.parametrize("constant", [0.0, 0.4, 1.0])
def test_constants_are_found(constant: float) -> None:
    low, high = bounds(np.full((1, 300), constant), ALPHA)
    assert low[0] <= constant <= high[0]
    assert high[0] - low[0] < 0.08


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.inf])
def test_values_outside_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        bounds(np.array([[0.5, bad]]), ALPHA)
