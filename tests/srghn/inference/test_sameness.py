"""Two samples of one distribution look alike, two of different ones do not; ties cost nothing."""

from __future__ import annotations

import numpy as np
import pytest

from srghn.inference.sameness import compare, compare_moves


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


def moving(seed: int, slope: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The next value follows from this one by a slope, almost; a second one by no law."""
    draws = np.random.default_rng(seed)
    before = draws.normal(0, 1, (count, 2))
    after = np.stack([slope * before[:, 0], draws.normal(0, 1, count)], axis=1)
    return before, after + draws.normal(0, 1e-4, (count, 2))


def test_another_law_of_motion_is_told() -> None:
    """Slopes of 1 and 1.05: values are as spread as ever, and never on one line."""
    ours, theirs, again = moving(1, 1.0, 40), moving(2, 1.05, 200), moving(3, 1.0, 200)
    draws = np.random.default_rng(0)
    assert compare(ours[1], theirs[1], draws).p > 0.05
    assert compare_moves(ours, theirs, draws).p == 0.001
    assert compare_moves(ours, again, draws).p > 0.05


def test_a_law_that_is_exact_says_nothing_by_its_rounding() -> None:
    """What came of it is what came before, in one sample to four digits."""
    before = [np.random.default_rng(n).normal(0, 1, (60 * n, 1)) for n in (1, 2)]
    ours, theirs = (before[0], before[0].round(4)), (before[1], before[1])
    assert compare_moves(ours, theirs, np.random.default_rng(0)).p > 0.05


def test_one_law_is_rejected_as_often_as_said() -> None:
    """300 pairs of samples, and a law of more numbers than the rows it is found by."""
    found = []
    for i in range(300):
        draws = np.random.default_rng(i)
        ours, theirs = (
            (draws.normal(0, 1, (count, 30)), draws.normal(0, 1, (count, 2))) for count in (20, 40)
        )
        found.append(compare_moves(ours, theirs, draws, 199).p)
    assert 12 <= sum(p <= 0.1 for p in found) <= 52


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
