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


def test_the_more_outcomes_are_missing_the_sooner_the_alarm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = table("watch-missing.csv")
    shares = [(float(row["accepted"]), float(row["missing"])) for row in rows]
    assert shares == list(watching.ACCEPTED)
    assert all(int(row["unseen"]) == 0 for row in rows)
    for accepted in (0.1, 0.3):
        own = [row for row in rows if float(row["accepted"]) == accepted]
        told = [int(row["median"]) for row in own if row["event"] == "alarm"]
        assert told == sorted(told, reverse=True)
    ends = [int(row["median"]) for row in rows if row["event"] == "end of one"]
    assert ends == sorted(ends, reverse=True)
    # the cheapest ones, made again
    monkeypatch.setattr(watching, "MOST", 500)
    monkeypatch.setattr(watching, "ACCEPTED", ((0.1, 1.0), (0.8, 0.2)))
    again = [{key: str(value) for key, value in row.items()} for row in watching.missing_rows()]
    assert again == [rows[4], rows[-1]]


def test_clients_that_begin_at_once_raise_no_false_alarm_in_order_of_start() -> None:
    """In order of arrival they raise one in most services, since failures are short."""
    rows = table("watch-starts.csv")
    still = [row for row in rows if float(row["more_fail"]) == 0]
    assert {row["returns"] for row in still} == {each.name for each in watching.SERVICES}
    for row in still:
        expected = int(row["runs"]) * int(row["episodes"]) / watching.RUN_LENGTH
        assert (
            int(row["alarms_by_start"]) <= int(row["at_most"]) == watching.poisson_bound(expected)
        )
    assert any(int(row["alarms_by_arrival"]) > 0.5 * int(row["runs"]) for row in still)
    for row in rows:
        if float(row["more_fail"]) >= 0.2:
            assert row["alarms_by_start"] == row["runs"]
            assert int(row["median_by_start"]) < watching.CLIENTS  # in the first round already


@pytest.mark.parametrize(("more", "seen"), [(0.0, False), (0.4, True)])
def test_a_look_ahead_sees_a_fall_while_most_episodes_run(more: float, seen: bool) -> None:
    of, early = watching.SERVICES[0], 0
    for run in range(5):
        rows = watching.service(of, np.random.default_rng(run), more)
        assert (rows[1:, 0] >= rows[:-1, 0]).all()
        assert (rows[:200, 0] == 0).all()
        early += watching.by_arrival(rows, 0.9) is not None
        found = watching.by_start(rows, 0.9)
        assert (found is not None) is seen
        assert found is None or found < 200
    assert early >= 4


def test_a_token_within_the_margin_decides_nothing() -> None:
    """It posts four lies for each honest outcome, and may have a share of the evidence."""
    rows = {
        (float(row["poster_share"]), float(row["lie"])): row for row in table("watch-liars.csv")
    }
    assert set(rows) == {(share, lie) for share in watching.SHARES for lie in (0.0, 1.0)}
    runs = watching.LIAR_RUNS
    assert int(rows[0.05, 0.0]["alarms"]) == 0
    assert int(rows[0.1, 0.0]["alarms"]) > 0.9 * runs  # beyond the margin: a lie is not told apart
    assert int(rows[0.05, 1.0]["alarms"]) == runs
    assert int(rows[1.0, 1.0]["alarms"]) == 0


def test_a_row_of_liars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LIAR_RUNS", 2)
    monkeypatch.setattr(watching, "TOLD", 400)
    assert watching.liar_row(0.05, 0.0)["alarms"] == 0
    assert watching.liar_row(1.0, 0.0)["alarms"] == 2
    assert watching.liar_row(0.05, 1.0)["alarms"] == 2
    assert watching.liar_row(1.0, 1.0)["alarms"] == 0


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
