"""The chance that a gate finds a true gain, as the report shows it."""

from __future__ import annotations

import numpy as np
import pytest

from regression_suite.bounds import Scale
from regression_suite.power import POWER, simulate

SCALE = Scale(0.0, 500.0, 0.05 / 3)


def test_power_grows_with_the_gain_and_the_smallest_seen_has_it() -> None:
    gaps = np.random.default_rng(0).normal(0, 50, 200)
    power = simulate(gaps, 300, 5.0, SCALE, np.random.default_rng(1))
    assert power.share(0.0) <= SCALE.alpha
    shares = power.at([0.0, 20.0, 40.0, 120.0])
    assert np.all(np.diff(shares) >= 0)
    assert shares[-1] == 1
    assert power.share(power.detectable) >= POWER
    assert 10 < power.detectable < 60


def test_more_episodes_see_smaller_gains() -> None:
    gaps = np.random.default_rng(0).normal(0, 50, 200)
    few, many = (
        simulate(gaps, n, 5.0, SCALE, np.random.default_rng(1)).detectable for n in (50, 600)
    )
    assert many < few


def test_the_same_gaps_give_the_same_curve() -> None:
    gaps = np.random.default_rng(0).normal(0, 50, 50)
    first, second = (
        simulate(gaps, 100, 0.0, SCALE, np.random.default_rng(1)).detectable for _ in range(2)
    )
    assert first == pytest.approx(second)
