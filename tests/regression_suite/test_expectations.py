"""Every expectation of a run's tables holds for a real run, and breaks for a broken one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regression_suite.expectations import DataQuality, judge_tables, validate, validate_run
from regression_suite.tables import RunTables, read
from srghn.errors import ArtefactError

Damage = Callable[[RunTables], RunTables]


@pytest.fixture(scope="module")
def run(run_dir: Path) -> RunTables:
    return read(run_dir)


def lineage(column: str, row: int, value: object) -> Damage:
    """The same run with one value of its lineage table changed."""

    def change(run: RunTables) -> RunTables:
        frame = run.lineage.copy()
        frame.loc[row, column] = value
        return replace(run, lineage=frame)

    return change


def generations(column: str, row: int, value: object) -> Damage:
    def change(run: RunTables) -> RunTables:
        frame = run.generations.copy()
        frame.loc[row, column] = value
        return replace(run, generations=frame)

    return change


def lost_generation(run: RunTables) -> RunTables:
    return replace(run, generations=run.generations.drop(index=2))


def other_world(run: RunTables) -> RunTables:
    extra = pd.DataFrame([["lineage/99.parquet", "another"]], columns=run.worlds.columns)
    return replace(run, worlds=pd.concat([run.worlds, extra], ignore_index=True))


def renamed_column(run: RunTables) -> RunTables:
    return replace(run, lineage=run.lineage.rename(columns={"parent": "mother"}))


def emptied(run: RunTables) -> RunTables:
    return replace(run, lineage=run.lineage.iloc[:0])


def test_a_real_run_is_sound(run_dir: Path) -> None:
    quality = validate_run(run_dir)
    assert quality.success, quality.failed
    assert quality.rows["generations"] == 6
    assert judge_tables(quality).outcome == "passed"


@pytest.mark.parametrize(
    ("damage", "broken", "row"),
    [
        (lineage("parent", 70, 999_999), "every parent exists", "id "),
        (lineage("id", 1, 0), "an individual stands once in a generation", "generation 0, id 0"),
        (lineage("noise_seed", 16, 1), "an id has one birth", "generation 1"),
        (lineage("parent", 8, 90), "a parent is older than its child", "generation 0, id 8"),
        (lineage("birth", 3, 5), "nobody is played before its birth", "generation 0, id 3"),
        (lineage("fitness", 5, np.nan), "fitness is a number or minus infinity", "id 5"),
        (lineage("fitness", 5, np.inf), "fitness is a number or minus infinity", "id 5"),
        (lineage("rate_mean", 5, np.nan), "mutation rates are finite", "id 5"),
        (lost_generation, "generations have no gaps", "generation 3"),
        (lost_generation, "its generation is in the generations table", "generation 2"),
        (generations("best", 2, -1e9), "best is not below the mean", "generation 2"),
        (generations("best", 2, 1e6), "best is the best of its lineage", "generation 2"),
        (lineage("fitness", 40, 1e6), "mean is the mean of its lineage", "generation 2"),
        (generations("diversity", 2, np.inf), "diversity is finite", "generation 2"),
        (generations("evaluations", 3, 0), "every generation was played", "generation 3"),
        (other_world, "one environment fingerprint in a run", "lineage/99.parquet"),
        (renamed_column, "its columns are", ""),
        (emptied, "it has rows", ""),
    ],
)
def test_every_broken_row_is_named(run: RunTables, damage: Damage, broken: str, row: str) -> None:
    quality = validate(damage(run))
    found = [e for e in quality.failed if e.name.startswith(broken)]
    assert found, [e.name for e in quality.failed]
    assert row in "; ".join(found[0].rows)
    check = judge_tables(quality)
    assert check.outcome == "failed"


def test_crashed_individuals_are_allowed_and_counted(run: RunTables) -> None:
    crashed = lineage("fitness", 5, -np.inf)(run)
    left = crashed.lineage.query("generation == 0 and fitness > -inf")["fitness"]
    crashed = generations("mean", 0, left.mean())(generations("best", 0, left.max())(crashed))
    assert crashed.nonfinite == run.nonfinite + 1
    assert validate(crashed).success


def test_few_rows_are_named_and_all_are_counted(run: RunTables) -> None:
    broken = replace(run, lineage=run.lineage.assign(fitness=np.nan))
    failed = next(e for e in validate(broken).failed if e.name.startswith("fitness"))
    assert failed.failing == len(run.lineage)
    assert len(failed.rows) == 20


def test_no_expectation_at_all_is_no_success() -> None:
    assert not DataQuality((), {}).success
    assert judge_tables(None).outcome == "failed"


def test_torn_tables_are_refused(run_dir: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(run_dir, torn)
    part = next((torn / "lineage").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ArtefactError, match=r"torn.*--resume"):
        validate_run(torn)
    with pytest.raises(ArtefactError, match="nowhere"):
        validate_run(tmp_path / "nowhere")


def test_a_run_that_met_its_budget_says_so(run_dir: Path, tmp_path: Path) -> None:
    """In words, for the report."""
    assert read(run_dir).end == ""
    spent = tmp_path / "run"
    shutil.copytree(run_dir, spent)
    finalists = json.loads((spent / "finalists.json").read_text())
    end = {"done": 3, "by": "until", "validated": 481.25, "episodes": 64, "individual": 7}
    (spent / "finalists.json").write_text(json.dumps(finalists | {"ended": end}))
    tables = read(spent)
    assert "after 3 generations" in tables.end
    assert "evolution.until" in tables.end
    assert "481.2 over 64 fresh episodes" in tables.end
