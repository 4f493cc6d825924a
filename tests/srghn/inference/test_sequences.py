"""The confidence sequence covers the mean at every moment at once, and is not idle."""

from __future__ import annotations

import numpy as np
import pytest

from srghn.inference.sequences import interval, sequence

ALPHA = 0.05


def bernoulli(rng: np.random.Generator, n: int) -> tuple[np.ndarray, float]:
    return (rng.random(n) < 0.3).astype(float), 0.3


def near_the_ceiling(rng: np.random.Generator, n: int) -> tuple[np.ndarray, float]:
    return np.where(rng.random(n) < 0.9, 1.0, 0.2), 0.92


def uniform(rng: np.random.Generator, n: int) -> tuple[np.ndarray, float]:
    return rng.random(n), 0.5


@pytest.mark.parametrize("draw", [bernoulli, near_the_ceiling, uniform])
def test_it_covers_the_mean_at_every_moment(draw: object) -> None:
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(400):
        values, mean = draw(rng, 150)  # type: ignore[operator]
        low, high = sequence(values, ALPHA, grid=200)
        missed += bool(np.any((low > mean) | (high < mean)))
    assert missed / 400 <= ALPHA


def test_a_sequence_that_ignores_looking_would_be_caught() -> None:
    """The test above can fail: a fixed-n interval, looked at after every value, misses far more."""
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(400):
        values, mean = bernoulli(rng, 150)
        n = np.arange(1, 151)
        means = np.cumsum(values) / n
        half = 1.96 * np.sqrt(np.maximum(means * (1 - means), 1e-9) / n)
        missed += bool(np.any(np.abs(means - mean)[10:] > half[10:]))
    assert missed / 400 > 2 * ALPHA


def test_it_closes_in_and_never_opens() -> None:
    values = np.random.default_rng(1).beta(8, 2, 1000)
    low, high = sequence(values, ALPHA)
    assert np.all(np.diff(low) >= 0)
    assert np.all(np.diff(high) <= 0)
    assert high[-1] - low[-1] < 0.06
    assert low[-1] < values.mean() < high[-1]


def test_each_end_knows_only_the_values_so_far() -> None:
    values = np.random.default_rng(2).random(600)  # more than two blocks
    whole, part = sequence(values, ALPHA), sequence(values[:300], ALPHA)
    assert np.array_equal(whole[0][:300], part[0])
    assert np.array_equal(whole[1][:300], part[1])
    assert whole[1][-1] - whole[0][-1] < part[1][-1] - part[0][-1]


@pytest.mark.parametrize("constant", [0.0, 0.37, 1.0])
def test_constant_values_are_found(constant: float) -> None:
    found = interval(np.full(200, 10 * constant), 0.0, 10.0, ALPHA)
    assert found.low <= 10 * constant <= found.high
    assert found.high - found.low < 1.5


def test_no_values_say_nothing() -> None:
    found = interval(np.array([]), -5.0, 5.0, ALPHA)
    assert (found.n, found.low, found.high) == (0, -5.0, 5.0)


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, np.inf])
def test_values_outside_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        sequence(np.array([0.5, bad]), ALPHA)
