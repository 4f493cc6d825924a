"""Bounds of what the gate estimates: they cover where bootstraps do not, and know their range."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from regression_suite.bounds import (
    Scale,
    gap_bound,
    mean_bound,
    middle_mean,
    rate_bound,
    rate_gap_bound,
    tail_gap_bound,
    tail_mean,
)
from regression_suite.episodes import Played
from regression_suite.estimates import estimate, scale_of
from regression_suite.evidence import Evidence
from regression_suite.report import views
from regression_suite.suite import Cell
from srghn.config import GateParams

SCALE = Scale(0.0, 500.0, 0.05)


def rare(rng: np.random.Generator, n: int, rate: float) -> np.ndarray:
    """A policy that mostly scores 500 and now and then falls at once."""
    return np.where(rng.random(n) < rate, rng.uniform(0, 50, n), 500.0)


@pytest.mark.parametrize(("rate", "n"), [(0.02, 20), (0.02, 30), (0.05, 20)])
def test_rare_catastrophes_are_covered_where_bootstraps_are_not(rate: float, n: int) -> None:
    """Percentile bootstraps of these covered .31, .42 and .69 at a nominal 95%."""
    rng, truth = np.random.default_rng(1), 500 - rate * 475
    held, boot = 0, 0
    for _ in range(400):
        x = rare(rng, n, rate)
        bound = mean_bound(x, SCALE)
        held += bound.low <= truth <= bound.high
        means = x[rng.integers(0, n, (300, n))].mean(axis=1)
        boot += np.quantile(means, 0.025) <= truth <= np.quantile(means, 0.975)
    assert held / 400 >= 1 - 2 * SCALE.alpha
    assert boot / 400 < 0.8  # this test would find a bootstrap out


def test_rates_and_differences_of_rare_catastrophes_are_covered_too() -> None:
    """Against a champion that never fails; a bootstrap of these sees nothing in most samples."""
    rng, n, rate = np.random.default_rng(6), 30, 0.02
    never, truth, held = np.zeros(n, bool), (-475 * rate, rate, rate), np.zeros(3)
    for _ in range(120):
        x = rare(rng, n, rate)
        found = (
            gap_bound(x, np.full(n, 500.0), SCALE),
            rate_bound(x <= 100, SCALE),
            rate_gap_bound(x <= 100, never, SCALE),
        )
        held += [b.low <= true <= b.high for b, true in zip(found, truth, strict=True)]
    assert (held / 120 >= 1 - 2 * SCALE.alpha).all()


def test_the_worst_tenth_is_covered() -> None:
    """Two policies whose worst tenths differ by 100: bootstraps covered .31 to .66."""
    rng, low, high = np.random.default_rng(2), 0, 0
    for _ in range(60):
        theirs = np.where(rng.random(120) < 0.1, 200.0, 450.0)
        mine = np.where(rng.random(120) < 0.1, 100.0, 450.0)
        bound = tail_gap_bound(mine, theirs, SCALE)
        low += bound.low > -100
        high += bound.high < -100
    assert low / 60 <= SCALE.alpha
    assert high / 60 <= SCALE.alpha


def test_the_worst_tenth_of_equals_is_known_after_some_hundred_episodes() -> None:
    x = np.random.default_rng(3).normal(300, 60, 600)
    bound = tail_gap_bound(x, x, SCALE)
    assert bound.low <= 0 <= bound.high
    assert bound.width < 100
    worse = tail_gap_bound(x - 100, x, SCALE)
    assert worse.value < -90
    assert worse.low < worse.value < worse.high


def test_returns_are_clipped_to_the_declared_range_and_crashes_lie_at_its_foot() -> None:
    bound = mean_bound(np.array([-np.inf, 900.0, 250.0] * 20), SCALE)
    assert bound.value == pytest.approx(250)
    assert gap_bound(np.full(30, 1e9), np.full(30, 500.0), SCALE).value == 0


def test_gaps_are_signed_and_failures_are_counted() -> None:
    mine, theirs = np.full(80, 400.0), np.full(80, 450.0)
    gap = gap_bound(mine, theirs, SCALE)
    assert gap.value == pytest.approx(-50)
    assert gap.low < -50 < gap.high
    failed = np.arange(200) % 50 == 0
    assert rate_bound(failed, SCALE).value == pytest.approx(0.02)
    more = rate_gap_bound(failed, np.zeros(200, bool), SCALE)
    assert more.value == pytest.approx(0.02)
    assert more.low < 0.02 < more.high
    fewer = rate_gap_bound(np.zeros(200, bool), failed, SCALE)
    assert (fewer.low, fewer.high) == pytest.approx((-more.high, -more.low))


def test_bounds_do_not_depend_on_the_order_of_pairs() -> None:
    rng = np.random.default_rng(4)
    mine, theirs, order = rng.uniform(0, 500, 90), rng.uniform(0, 500, 90), rng.permutation(90)
    for bound in (gap_bound, tail_gap_bound):
        one, other = bound(mine, theirs, SCALE), bound(mine[order], theirs[order], SCALE)
        assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_an_interval_closes_in_as_episodes_are_added() -> None:
    x = np.random.default_rng(5).uniform(200, 400, 800)
    widths = [mean_bound(x[:n], SCALE).width for n in (50, 200, 800)]
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 40


def test_slices_of_a_sample_count_edges_in_part() -> None:
    x = np.arange(1.0, 6.0)
    assert tail_mean(x) == 1.0
    assert tail_mean(np.arange(1.0, 16.0)) == pytest.approx((1 + 0.5 * 2) / 1.5)
    assert middle_mean(x) == 3.0
    assert middle_mean(np.array([0.0, 0.0, 10.0, 1000.0])) == 5.0


def test_returns_outside_the_declared_range_are_counted_and_said() -> None:
    params = GateParams(return_low=0.0, return_high=500.0, failure_return=10.0)
    steps = np.arange(60)
    mine, theirs = np.full(60, 250.0), np.full(60, 500.0)
    mine[:3], theirs[:2] = (501.0, -1.0, 0.0), (-np.inf, 900.0)  # a crash lies at the foot: none
    played = Played(Cell("primary", "primary", "normal", 60), steps, mine, steps, theirs, steps)
    found = estimate(played, params, scale_of(params), tail=False)
    assert found.candidate is not None
    assert found.incumbent is not None
    assert (found.candidate.outside, found.incumbent.outside) == (2, 1)
    inside = replace(found, candidate=replace(found.candidate, outside=0), incumbent=None)
    alone = replace(found, cell=replace(found.cell, name="force:1.2"), incumbent=None)
    evidence = SimpleNamespace(cells=[found, inside, alone])
    assert views.outside(cast("Evidence", evidence)) == [
        views.Outside(found.cell.name, "2 of 60", "1 of 60"),
        views.Outside("force:1.2", "2 of 60", ""),
    ]
