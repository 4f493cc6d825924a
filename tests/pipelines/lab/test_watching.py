"""The tables of the watch: the committed ones hold, and their program makes such rows."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from pipelines.lab import watching
from srghn.inference.detect import Detector

RESULTS = Path(__file__).parents[3] / "docs" / "results"


def table(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_alarms_of_returns_that_hold_are_within_their_bound() -> None:
    """Five distributions with the mean exactly at the promise, 100,000 episodes each."""
    rows = table("watch-alarms.csv")
    assert len({row["returns"] for row in rows}) == 5
    for row in rows:
        assert int(row["episodes"]) == 100_000
        expected = int(row["episodes"]) / int(row["run_length"])
        assert int(row["at_most"]) == watching.poisson_bound(expected)
        assert int(row["alarms"]) <= int(row["at_most"])


def test_observations_that_stand_still_are_seldom_said_to_move() -> None:
    rows = table("watch-observations.csv")
    still = [row for row in rows if float(row["moved_by"]) == 0]
    assert {int(row["elements"]) for row in still} == set(watching.ELEMENTS)
    for row in still:
        assert int(row["told"]) <= int(row["at_most"]) == watching.poisson_bound(5.0)
    moved = [row for row in rows if float(row["moved_by"]) >= 0.6]
    assert all(int(row["told"]) > 0.9 * int(row["looks"]) for row in moved)


def test_a_row_of_observations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOKS", 20)
    monkeypatch.setattr(watching, "ELEMENTS", (2,))
    monkeypatch.setattr(watching, "SHIFTS", (0.0, 3.0))
    still, moved = watching.observation_rows()
    assert (still["looks"], still["told"]) == (20, 0)
    assert (moved["looks"], moved["told"]) == (2, 2)


def test_the_larger_the_drop_the_sooner_the_alarm() -> None:
    rows = table("watch-delay.csv")
    medians = [int(row["median"]) for row in rows]
    assert medians == sorted(medians, reverse=True)
    assert all(int(row["unseen"]) == 0 for row in rows)
    assert medians[-1] <= 10


def test_a_row_is_as_committed() -> None:
    """The cheapest ones, made again: nothing of the detector changed under the table."""
    drop = table("watch-delay.csv")[-1]
    found = sorted(watching.delay(float(drop["drop"]), run) or 0 for run in range(watching.RUNS))
    assert found[len(found) // 2] == int(drop["median"])


@pytest.mark.parametrize("draw", watching.DISTRIBUTIONS)
def test_each_distribution_has_the_mean_it_promises(draw: watching.Draw) -> None:
    values = draw(np.random.default_rng(0), 200_000, 0.9)
    assert values.min() >= 0
    assert values.max() <= 1
    assert values.mean() == pytest.approx(0.9, abs=0.003)


def test_alarms_are_counted_one_by_one() -> None:
    values = np.zeros(100)
    _, at = Detector(0.9, "fall").until(values, 1000.0)
    assert at is not None
    assert watching.alarms(values, 0.9, 1000.0) == 100 // at
    assert watching.alarms(np.ones(3000), 0.9, 1000.0) == 0


def test_poissons_bound() -> None:
    assert [watching.poisson_bound(mean) for mean in (1, 10, 100)] == [4, 18, 124]
