"""Observations that moved are told from those that did not, one dimension at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from srghn.inference.whereabouts import GRID, farthest, quantiles


def rows(seed: int, count: int, shift: float = 0.0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 1, (count, 3))
    values[:, 1] += shift
    return values


def test_the_dimension_that_moved_is_named() -> None:
    moved = farthest(rows(1, 200, 0.8), quantiles(rows(2, 400)), 400)
    assert moved.dimension == 1
    assert 0.2 < moved.distance < 0.5
    assert moved.p < 1e-6
    assert farthest(rows(1, 200), quantiles(rows(2, 400)), 400).p > 0.01


def test_it_is_the_test_of_kolmogorov_and_smirnov() -> None:
    """Quantiles stand for the sample they were taken of, but for a hundredth."""
    ours, theirs = rows(1, 300, 0.2)[:, 1:2], rows(2, GRID)[:, 1:2]
    found = farthest(ours, quantiles(theirs), GRID)
    expected = ks_2samp(ours[:, 0], theirs[:, 0])
    assert found.distance == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, rel=0.1)


def test_flags_are_compared_by_how_often_they_are_set() -> None:
    draws = np.random.default_rng(0)
    kept = quantiles((draws.random((400, 1)) < 0.2).astype(float))
    still, moved = (farthest((draws.random((200, 1)) < p) * 1.0, kept, 400) for p in (0.2, 0.6))
    assert still.p > 0.05
    assert moved.distance == pytest.approx(0.4, abs=0.08)
    assert moved.p < 1e-6


def test_a_constant_that_stays_says_nothing() -> None:
    same = np.ones((100, 2))
    assert farthest(same, quantiles(same), 100).p == 1.0
    assert farthest(same + 1e-3, quantiles(same), 100).p < 1e-6
