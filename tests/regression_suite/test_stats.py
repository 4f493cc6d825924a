"""Estimands against hand-worked and library values, coverage by simulation, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from regression_suite.stats import (
    IQM,
    LEAST,
    MEAN,
    WORST_TENTH,
    Float,
    failure_rate,
    improvement,
    point,
    resamples,
    slice_difference,
    slice_interval,
    slice_weights,
    unusable,
)
from srghn.errors import EvaluationError
from srghn.seeding import stream


def draw(*shape: int, seed: int = 0) -> Float:
    return stream(seed, "test-stats").normal(size=shape)


def test_slices_of_a_known_sample() -> None:
    values = np.arange(40.0)
    assert point(values, MEAN) == pytest.approx(19.5)
    assert point(values, IQM) == pytest.approx(trim_mean(values, 0.25))
    assert point(values, WORST_TENTH) == pytest.approx(1.5)  # of 0, 1, 2, 3


def test_a_slice_may_end_inside_an_observation() -> None:
    values = np.arange(25.0)  # the worst tenth is two observations and half of the third
    assert point(values, WORST_TENTH) == pytest.approx((0 + 1 + 0.5 * 2) / 2.5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=LEAST, max_size=80), st.randoms())
def test_order_does_not_matter_and_slices_are_ordered(values: list[float], random: object) -> None:
    sample = np.array(values)
    shuffled = sample[np.random.default_rng(1).permutation(len(sample))]
    for part in (MEAN, IQM, WORST_TENTH):
        assert point(sample, part) == pytest.approx(point(shuffled, part), abs=1e-6)
    assert point(sample, WORST_TENTH) <= point(sample, MEAN) + 1e-6


def test_counts_are_the_resample_itself() -> None:
    """Weights from counts give what sorting the resampled values gives."""
    values, rng = np.sort(draw(40)), stream(0, "counts")
    counts = resamples(40, 50, rng)
    fast = (slice_weights(counts, IQM) * values).sum(axis=1)
    slow = [trim_mean(np.repeat(values, row), 0.25) for row in counts]
    np.testing.assert_allclose(fast, slow)


@pytest.mark.parametrize(("part", "truth"), [(MEAN, 0.0), (IQM, 0.0)])
@pytest.mark.parametrize("n", [20, 100])
def test_intervals_cover_the_truth(part: tuple[float, float], truth: float, n: int) -> None:
    """A 95% interval holds the truth in 92-97% of 800 samples (the paper's n >= 20 rule)."""
    weights = slice_weights(resamples(n, 1000, stream(1, "coverage")), part)
    draws = np.sort(draw(800, n, seed=2), axis=1) @ weights.T
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    assert 0.92 <= np.mean((low <= truth) & (truth <= high)) <= 0.97


def test_five_episodes_would_not_cover() -> None:
    """Why fewer than `LEAST` are refused."""
    weights = slice_weights(resamples(5, 1000, stream(1, "few")), MEAN)
    low, high = np.quantile(draw(800, 5, seed=3) @ weights.T, [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.9


def test_pairs_are_resampled_together() -> None:
    """A shared seed effect cancels: the paired interval is narrower than the arms' spread."""
    shared, noise = 10 * draw(100, seed=4), draw(2, 100, seed=5)
    first, second = shared + noise[0] + 0.5, shared + noise[1]
    options = {"confidence": 0.95, "count": 1000}
    paired = slice_difference(first, second, MEAN, rng=stream(0, "a"), **options)  # type: ignore[arg-type]
    alone = slice_interval(first, MEAN, rng=stream(0, "b"), **options)  # type: ignore[arg-type]
    assert paired.width < alone.width / 4
    assert paired.value == pytest.approx(np.mean(first - second))


def test_the_interval_is_a_function_of_its_generator() -> None:
    values = draw(50)
    one, two, other = (
        slice_interval(values, IQM, confidence=0.95, count=500, rng=stream(s, "same"))
        for s in (1, 1, 2)
    )
    assert one == two
    assert one != other


def test_wider_confidence_and_smaller_effects() -> None:
    values = draw(50)
    narrow, wide = (
        slice_interval(values, IQM, confidence=c, count=2000, rng=stream(0, "w"))
        for c in (0.8, 0.99)
    )
    assert narrow.width < wide.width
    assert 0 < narrow.detectable < wide.detectable


def test_improvement_counts_ties_as_half() -> None:
    differences = np.array([1.0] * 10 + [0.0] * 10 + [-1.0] * 20)
    share = improvement(differences, confidence=0.95, count=500, rng=stream(0, "i"))
    assert share.value == pytest.approx(0.375)


def test_failures_include_crashes() -> None:
    assert failure_rate(np.array([500.0, 400.0, -np.inf, np.nan]), 475.0) == 0.75


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([]), "0 episodes"),
        (np.zeros(LEAST - 1), "19 episodes"),
        (np.r_[np.zeros(30), np.nan], "1 of 31"),
        (np.r_[np.zeros(30), -np.inf, np.inf], "2 of 32"),
    ],
)
def test_missing_values_are_refused(values: Float, reason: str) -> None:
    assert reason in str(unusable(values))
    with pytest.raises(EvaluationError, match=reason):
        slice_interval(values, MEAN, confidence=0.95, count=200, rng=stream(0, "x"))


def test_twenty_finite_values_are_usable() -> None:
    assert unusable(np.zeros(LEAST)) is None
