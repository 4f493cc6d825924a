"""The gate between equals, and as a true gain grows."""

from __future__ import annotations

import numpy as np

from regression_suite.power import lower_bounds, simulate, superior_share
from regression_suite.stats import IQM, Float, slice_interval
from srghn.seeding import stream

ALPHA = 0.05
GATES = 2000


def pairs(kind: str) -> Float:
    """Paired differences (GATES, 100) of two copies of one policy, each playing by itself."""
    rng = stream(0, "aa", kind)
    if kind == "ceiling":  # half of all episodes reach the ceiling of 500
        returns = np.minimum(rng.gamma(3, 200, size=(2, GATES, 100)), 500)
    elif kind == "heavy":
        returns = rng.standard_t(2.5, size=(2, GATES, 100)) * 50
    else:
        returns = rng.exponential(100, size=(2, GATES, 100))
    return np.asarray(returns[0] - returns[1])


def test_a_copy_is_superior_at_most_alpha_of_the_time() -> None:
    """The A/A test, 2,000 gates for each of three shapes of returns."""
    for kind in ("exponential", "ceiling", "heavy"):
        share = superior_share(pairs(kind), confidence=1 - ALPHA, count=1000, rng=stream(1, kind))
        assert share <= ALPHA, kind


def test_identical_play_is_never_superior() -> None:
    same = np.zeros((1000, 100))
    assert superior_share(same, confidence=0.95, count=500, rng=stream(0, "same")) == 0


def test_three_attempts_together_keep_alpha() -> None:
    """Each attempt spends its share of alpha, so retrying until it passes does not pay."""
    shared = 1 - ALPHA / 3
    tries = [
        lower_bounds(pairs(kind), confidence=shared, count=2000, rng=stream(2, kind)) > 0
        for kind in ("exponential", "ceiling", "heavy")
    ]
    assert np.mean(np.any(tries, axis=0)) <= ALPHA


def test_the_simulated_bound_is_the_gate_s_own() -> None:
    values = np.sort(stream(3, "one").normal(size=60))
    bound = lower_bounds(values[None], confidence=0.95, count=500, rng=stream(4, "b"))[0]
    real = slice_interval(values, IQM, confidence=0.95, count=500, rng=stream(4, "b"))
    assert abs(bound - real.low) < 1e-12


def test_power_grows_with_the_gain() -> None:
    differences = stream(5, "d").normal(3, 40, size=100)
    found = simulate(differences, confidence=0.95, count=500, gates=1000, rng=stream(5, "p"))
    power = found.at([0, 5, 10, 40])
    assert power[0] <= ALPHA
    assert abs(found.at([found.detectable])[0] - 0.8) < 0.01
    assert power[-1] > 0.99
    assert (np.diff(power) > 0).all()
