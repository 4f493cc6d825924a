"""Capital from constant bets: valid under drift at every moment, and the same however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from srghn.inference.capital import Mixture

HALF = Mixture.mostly_on(0.3, 0.5, 0.9, 6)


def test_a_mean_that_never_rises_above_zero_seldom_makes_capital() -> None:
    """Steps of mean zero, looked at after each of 400: above 20 in at most 5% of 1,000 logs."""
    rng = np.random.default_rng(0)
    steps = rng.choice([-1.0, 0.25, 1.0], (1000, 400), p=[0.4, 0.8 / 3, 1 / 3])
    assert abs((0.4 * -1) + 0.25 * 0.8 / 3 + 1 / 3) < 1e-9
    high = [HALF.log_capital(HALF.paths(np.zeros(7), row)).max() for row in steps]
    assert np.mean(np.array(high) >= np.log(20)) <= 0.05


def test_a_drift_that_cancels_makes_no_capital_where_it_has_cancelled() -> None:
    """First worse by 0.5, then better by 0.5: while the sum is below zero there is no evidence."""
    steps = np.concatenate([np.full(100, -0.5), np.full(99, 0.5)])
    capital = HALF.log_capital(HALF.paths(np.zeros(7), steps))
    assert capital.max() < 0


def test_capital_grows_where_the_mean_is_positive() -> None:
    steps = np.full(100, 0.1)
    assert HALF.log_capital(HALF.paths(np.zeros(7), steps))[-1] > np.log(20)


def test_parts_give_the_bytes_of_the_whole() -> None:
    steps = np.random.default_rng(1).uniform(-1, 1, 50)
    whole = HALF.paths(np.zeros(7), steps)
    first = HALF.paths(np.zeros(7), steps[:17])
    rest = HALF.paths(first[-1], steps[17:])
    assert np.concatenate([first, rest]).tobytes() == whole.tobytes()


def test_a_mean_is_refuted_from_below_up() -> None:
    steps = np.full(300, 0.2)
    found = HALF.against(steps, np.full(300, 0.5), np.linspace(-1, 1, 21))
    assert np.all(np.diff(found) < 0)
    assert found[0] > np.log(20) > found[-1]


def test_what_is_not_refuted_is_not_either_where_the_mean_is_higher() -> None:
    """Bets that shrank with the mean lost less to six ruinous steps: .4 stood, and .41 did not."""
    steps = np.concatenate([np.full(20, 0.9), np.full(6, -0.9)])
    bold = Mixture.mostly_on(0.95, 0.85, 0.95, 6)
    found = bold.against(steps, np.full(26, 0.02), np.linspace(0.01, 1, 100))
    assert np.all(np.diff(found) < 0)


@pytest.mark.parametrize(
    ("bets", "shares", "match"), [([1.0], [1.0], r"\(0, 1\)"), ([0.5], [0.9], "sum to 1")]
)
def test_bets_that_could_ruin_are_refused(
    bets: list[float], shares: list[float], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        Mixture(np.array(bets), np.array(shares))
