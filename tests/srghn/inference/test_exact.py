"""Failure-rate bounds: coverage at every moment, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from srghn.inference.exact import log_rate_capital, rate_bounds

ALPHA = 0.05


@pytest.mark.parametrize(("failures", "n"), [(-1, 5), (6, 5)])
def test_counts_that_cannot_be_are_refused(failures: int, n: int) -> None:
    with pytest.raises(ValueError, match="episode"):
        rate_bounds([failures], [n], ALPHA)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3, 0.97])
def test_anytime_bounds_cover_the_rate_at_every_moment(rate: float) -> None:
    rng = np.random.default_rng(3)
    failures = np.cumsum(rng.random((1500, 400)) < rate, axis=1)
    n = np.broadcast_to(np.arange(1, 401), failures.shape)
    too_low = log_rate_capital(failures, n, rate).max(axis=1) >= -np.log(ALPHA)
    too_high = log_rate_capital(n - failures, n, 1 - rate).max(axis=1) >= -np.log(ALPHA)
    assert max(too_low.mean(), too_high.mean()) <= ALPHA


def clopper_pearson_upper(failures: np.ndarray, n: int) -> np.ndarray:
    """Exact where n was fixed beforehand (Clopper & Pearson 1934); no rate is above 1."""
    return np.nan_to_num(beta.ppf(1 - ALPHA, failures + 1, n - failures), nan=1.0)


def test_an_exact_bound_that_is_looked_at_often_would_be_caught() -> None:
    """The test above can fail: Clopper-Pearson after every episode is wrong far too often."""
    rng, rate, looks = np.random.default_rng(3), 0.3, range(20, 151, 20)
    failures = np.cumsum(rng.random((500, 150)) < rate, axis=1)
    highs = {n: clopper_pearson_upper(np.arange(n + 1), n) for n in looks}
    wrong = [[highs[n][row[n - 1]] < rate for n in looks] for row in failures]
    assert np.any(wrong, axis=1).mean() > 2 * ALPHA


def test_bounds_close_in_on_the_rate_and_agree_with_the_capital() -> None:
    low, high = rate_bounds([0, 3, 30, 300], [0, 60, 600, 600], ALPHA)
    assert (low[0], high[0]) == (0.0, 1.0)
    assert np.all(low <= [0, 0.05, 0.05, 0.5])
    assert np.all(high >= [0, 0.05, 0.05, 0.5])
    assert high[2] < 0.085
    assert log_rate_capital(30, 600, high[2]) == pytest.approx(-np.log(ALPHA), abs=1e-6)


def test_failures_and_successes_mirror_each_other() -> None:
    low, high = rate_bounds([7], [50], ALPHA)
    other_low, other_high = rate_bounds([43], [50], ALPHA)
    np.testing.assert_allclose([low, high], [1 - other_high, 1 - other_low])


def test_a_first_champion_that_never_fails_is_known_in_time() -> None:
    """Limit 5%: 59 episodes would do for one look; looking freely costs some 20 more."""
    n = np.arange(1, 200)
    sure = log_rate_capital(np.zeros(199), n, 0.05) >= -np.log(ALPHA)
    assert 59 <= int(n[sure][0]) <= 90
