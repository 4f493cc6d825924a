"""The program that counts right diagnoses diagnoses as service does."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.lab import diagnosing
from pipelines.lab.diagnosing import Sandbox, World

Float = NDArray[np.float64]
RESULTS = Path(__file__).parents[3] / "docs" / "results"


class Balanced:
    """Stands for a champion: it sees four numbers and always does the same."""

    observation_size, state_size = 4, 0

    def policy(self) -> Balanced:
        return self

    def __call__(self, observations: Float) -> Float:
        return np.zeros(len(observations))


def test_a_diagnosis_of_the_table_is_one_of_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same comparison and conclusion, on samples that stand for play."""
    draws = np.random.default_rng(0)

    def sample(candidate: object, world: World, count: int, seed: int) -> diagnosing.Sample:
        level = 9.0 if world.mode == "flipped" else 400.0
        level += 100.0 * bool(world.moved)
        pairs = np.stack([draws.normal(level, 3, count)] * 2, axis=1)
        return diagnosing.Sample(pairs, np.abs(draws.normal(level, 3, (count, 9))))

    monkeypatch.setattr(diagnosing, "sample", sample)
    pinned = [World("", "normal"), World("", "flipped")]
    pools = {each: sample(None, each, diagnosing.POOL, 0) for each in pinned}
    sandbox = Sandbox(Balanced(), pools)  # type: ignore[arg-type]
    known, alone = diagnosing.shift(sandbox, pinned[1], 1)
    assert (alone["evidence"], alone["right"]) == ("returns", True)
    assert (known["diagnosis"], known["named"], known["right"]) == (
        "known",
        "as it is flipped",
        True,
    )
    strange, _ = diagnosing.shift(sandbox, World("gravity:9", "flipped"), 2)
    assert (strange["diagnosis"], strange["named"], strange["right"]) == ("none", "", True)
    assert known["episodes"] == strange["episodes"] == diagnosing.ENOUGH


def test_while_several_worlds_fit_more_episodes_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pinned worlds in which returns are the same: they stay two, up to the most there are."""
    draws = np.random.default_rng(0)

    def sample(candidate: object, world: World, count: int, seed: int) -> diagnosing.Sample:
        level = 400.0 if world == World("", "normal") else 9.0
        pairs = np.stack([draws.normal(level, 3, count)] * 2, axis=1)
        return diagnosing.Sample(pairs, np.abs(draws.normal(level, 3, (count, 9))))

    monkeypatch.setattr(diagnosing, "sample", sample)
    pinned = [World("", "normal"), World("a", "normal"), World("b", "normal")]
    pools = {each: sample(None, each, diagnosing.POOL, 0) for each in pinned}
    sandbox = Sandbox(Balanced(), pools)  # type: ignore[arg-type]
    _, found = diagnosing.shift(sandbox, pinned[1], 1)
    assert (found["diagnosis"], found["episodes"]) == ("ambiguous", diagnosing.MOST)
    assert list(diagnosing.counted([found])) == [
        "returns and observations, known: 0 of 0 right",
        "returns and observations, unknown: 0 of 0 right",
        "returns, known: 0 of 1 right",
        "  1 x a normal: ambiguous",
        "returns, unknown: 0 of 0 right",
    ]


def test_diagnoses_are_right_in_95_of_100_shifts() -> None:
    """The committed table: known worlds are named, and unknown ones are said to be unknown."""
    with (RESULTS / "diagnosis.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["evidence"] != "returns"]
    strange = {f"{moved} {mode}" for moved in diagnosing.UNKNOWN for mode in diagnosing.MODES}
    for known in ("True", "False"):
        those = [row for row in rows if row["known"] == known]
        assert len(those) >= 100
        assert sum(row["right"] == "True" for row in those) >= 0.95 * len(those)
    assert {row["world"] for row in rows if row["known"] == "False"} <= strange


def test_the_figure_is_the_same_every_time(tmp_path: Path) -> None:
    with (RESULTS / "diagnosis.csv").open(encoding="utf-8", newline="") as file:
        rows = [{**row, "right": row["right"] == "True"} for row in csv.DictReader(file)]
    diagnosing.draw(rows, tmp_path / "diagnosis.svg")
    assert (tmp_path / "diagnosis.svg").read_bytes() == (RESULTS / "diagnosis.svg").read_bytes()
