"""Two samples of one distribution look alike, two of different ones do not; ties cost nothing."""

from __future__ import annotations

import numpy as np
import pytest

from srghn.inference.sameness import compare


def sample(seed: int, mean: float, count: int) -> np.ndarray:
    draws = np.random.default_rng(seed)
    values = draws.normal(mean, 1.0, count)
    return np.stack([values, 3 * values], axis=1)


def test_one_distribution_is_rejected_as_often_as_said() -> None:
    """300 pairs of samples: p below 0.1 in a tenth of them (binomial bound at 1 in 10,000)."""
    found = [
        compare(sample(2 * i, 0, 20), sample(2 * i + 1, 0, 40), np.random.default_rng(i), 199).p
        for i in range(300)
    ]
    low = sum(p <= 0.1 for p in found)
    assert 12 <= low <= 52


def test_another_mean_is_told() -> None:
    found = compare(sample(1, 0, 40), sample(2, 1, 200), np.random.default_rng(0))
    assert found.p == 0.001
    assert found.distance > 0.2


def test_ties_and_constants_say_nothing() -> None:
    """A ceiling: all episodes alike in both."""
    same = np.full((40, 2), 500.0)
    assert compare(same, same[:20], np.random.default_rng(0)).p == 1.0
    other = same.copy()
    other[:, 0] = 9.0
    assert compare(same, other, np.random.default_rng(0)).p == 0.001


def test_the_distance_is_the_energy_distance() -> None:
    """By the definition, written out; one column of unit spread."""
    a, b = np.array([[0.0], [1.0], [5.0]]), np.array([[2.0], [2.5]])
    spread = np.concatenate([a, b]).std()
    between = np.abs(a - b.T).mean()
    expected = (2 * between - np.abs(a - a.T).mean() - np.abs(b - b.T).mean()) / spread
    assert compare(a, b, np.random.default_rng(0), 9).distance == pytest.approx(expected)


def test_a_sample_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 2 rows each, got 1 and 3"):
        compare(np.zeros((1, 1)), np.zeros((3, 1)), np.random.default_rng(0))
