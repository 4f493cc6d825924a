"""Every expectation of a run's tables holds for a real run, and breaks for a broken one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from regression_suite.data_docs import alone
from regression_suite.episodes import Played, to_parquet
from regression_suite.expectations import (
    DataQuality,
    judge_tables,
    validate,
    validate_outcomes,
)
from regression_suite.suite import Cell
from regression_suite.tables import RunTables, read
from serving.registry.records import Outcome
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


def lost_rows(run: RunTables) -> RunTables:
    return replace(run, lineage=run.lineage.query("generation != 3").reset_index(drop=True))


def other_world(run: RunTables) -> RunTables:
    extra = pd.DataFrame([["lineage/99.parquet", "another"]], columns=run.worlds.columns)
    return replace(run, worlds=pd.concat([run.worlds, extra], ignore_index=True))


def renamed_column(run: RunTables) -> RunTables:
    return replace(run, lineage=run.lineage.rename(columns={"parent": "mother"}))


def emptied(run: RunTables) -> RunTables:
    return replace(run, lineage=run.lineage.iloc[:0])


def test_a_real_run_is_sound(run: RunTables) -> None:
    quality = validate(run)
    assert quality.success, quality.failed
    assert quality.rows["generations"] == 6
    assert judge_tables(quality).outcome == "passed"


@pytest.mark.parametrize(
    ("damage", "broken", "row"),
    [
        (lineage("parent", 70, 999_999), "every parent exists", "id "),
        (lineage("id", 1, 0), "an individual occurs once in a generation", "generation 0, id 0"),
        (lineage("noise_seed", 16, 1), "an id has one birth", "generation 1"),
        (lineage("parent", 8, 90), "a parent is older than its child", "generation 0, id 8"),
        (
            lineage("birth", 3, 5),
            "no individual is evaluated before its birth",
            "generation 0, id 3",
        ),
        (lineage("fitness", 5, np.nan), "fitness is a number or minus infinity", "id 5"),
        (lineage("fitness", 5, np.inf), "fitness is a number or minus infinity", "id 5"),
        (lineage("rate_mean", 5, np.nan), "mutation rates are finite", "id 5"),
        (lost_generation, "generations have no gaps", "generation 3"),
        (lost_generation, "its generation is in the generations table", "generation 2"),
        (generations("best", 2, -1e9), "best is not below the mean", "generation 2"),
        (generations("best", 2, 1e6), "best is the best of its lineage", "generation 2"),
        (lineage("fitness", 40, 1e6), "mean is the mean of its lineage", "generation 2"),
        (generations("diversity", 2, np.inf), "diversity is finite", "generation 2"),
        (generations("evaluations", 3, 0), "every generation was evaluated", "generation 3"),
        (generations("evaluations", 5, np.nan), "every generation was evaluated", "generation 5"),
        (lost_rows, "best is the best of its lineage", "generation 3"),
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


def test_a_mean_of_equals_that_was_rounded_up_is_sound(run: RunTables) -> None:
    equals = replace(run, lineage=run.lineage.assign(fitness=-4.9))
    table = run.generations.assign(best=-4.9, mean=np.nextafter(-4.9, 0))
    assert validate(replace(equals, generations=table)).success


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
        read(torn)
    with pytest.raises(ArtefactError, match="nowhere"):
        read(tmp_path / "nowhere")


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


# ------------------------------------------------------------- what was played, and data docs


def played(**changes: Any) -> Played:
    """Thirty paired episodes of one cell, as a gate plays them."""
    columns = {
        "seeds": np.arange(30),
        "returns": np.full(30, 9.0),
        "lengths": np.full(30, 9),
        "incumbent_returns": np.full(30, 8.0),
        "incumbent_lengths": np.full(30, 8),
    }
    return Played(Cell("primary", "primary", "normal", 30), **{**columns, **changes})


@pytest.mark.parametrize(
    ("changes", "name", "row"),
    [
        ({"seeds": np.r_[0, np.arange(29)]}, "a seed is played once", "seed 0"),
        ({"returns": np.r_[np.nan, np.zeros(29)]}, "a return is a number", "seed 0"),
        ({"lengths": np.r_[501, np.ones(29, int)]}, "an episode has 1 to 500 steps", "seed 0"),
        ({"incumbent_returns": np.r_[np.nan, np.ones(29)]}, "where a champion plays", "seed 0"),
    ],
)
def test_a_gate_s_own_episodes_are_checked_and_failing_rows_named(
    run: RunTables, changes: dict[str, Any], name: str, row: str
) -> None:
    quality = validate(run, [played(**changes)], 500)
    failed = [e for e in quality.failed if e.table == "episodes"]
    assert [e.name.startswith(name) for e in failed] == [True]
    assert f"cell primary, {row}" in failed[0].rows


def test_crashes_and_a_missing_champion_are_no_fault_of_a_table(run: RunTables) -> None:
    alone = played(incumbent_returns=None, incumbent_lengths=None)
    crashed = replace(
        alone, cell=Cell("x", "perturbed", "normal", 30), returns=np.full(30, -np.inf)
    )
    assert validate(run, [alone, crashed], 500).success


def test_the_columns_that_are_said_are_those_of_the_files(run: RunTables, run_dir: Path) -> None:
    said = {
        e.table: e.name.removeprefix("its columns are ").replace(", beside ", ", ").split(", ")
        for e in validate(run, [played()], 500).expectations
        if e.name.startswith("its columns are ")
    }
    assert said["episodes"] == pq.read_schema(BytesIO(to_parquet([played()]))).names
    for table in ("lineage", "generations"):
        part = next((run_dir / table).glob("*.parquet"))
        assert said[table] == pq.read_schema(part).names


def test_no_rows_are_said_to_break_what_is_about_the_whole_table(run: RunTables) -> None:
    reason = judge_tables(validate(renamed_column(run))).reason
    assert "its columns are" in reason
    assert "rows" not in reason


def outcome(n: int, **changes: Any) -> Outcome:
    told = {"episode_id": f"e{n}", "version": 1, "route": "champion", "epoch": None}
    ended = {"return_": 9.0, "length": 9, "terminated": True, "counted": True}
    return Outcome(n=n, **{**told, **ended, **changes})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"episode_id": "e1"}, "an episode ends once"),
        ({"return_": float("inf")}, "a return is a finite number"),
        ({"length": 0}, "an episode has 1 to 500 steps"),
        ({"version": 7}, "its version is in the ledger"),
    ],
)
def test_outcomes_of_service_are_checked(changes: dict[str, Any], name: str) -> None:
    sound = [outcome(n) for n in range(1, 5)]
    assert validate_outcomes(sound, 500, {1}).success
    quality = validate_outcomes([*sound, outcome(5, **changes)], 500, {1})
    assert [e.name for e in quality.failed] == [name]
    assert quality.failed[0].rows[0].startswith("n 5, episode")


def test_data_docs_stand_alone_and_are_the_same_bytes_again(run: RunTables) -> None:
    first, second = validate(run, [played()], 500), validate(run, [played()], 500)
    assert first.docs == second.docs
    assert "http" not in first.docs
    assert "<script" not in first.docs
    for words in ("<h2>lineage</h2>", "<h2>episodes</h2>", "every parent exists"):
        assert words in first.docs
    broken = validate(run, [played(seeds=np.r_[0, np.arange(29)])], 500)
    assert "a seed is played once in a cell" in broken.docs
    assert broken.docs != first.docs
    passed, failed = 'aria-label="passed">✓<', 'aria-label="failed">✕<'
    assert first.docs.count(passed) > 10  # its icons are of a font from elsewhere
    assert failed not in first.docs
    assert broken.docs.count(failed) == 2  # the expectation, and its table
    for leftover in ("<i ", "Actions", "Show more", "newsletter", " id="):
        assert leftover not in broken.docs


def test_words_that_look_like_an_attribute_stay() -> None:
    text = '<td id="a" class="b">rows with id=42 in</td>'
    assert alone(text) == '<td class="b">rows with id=42 in</td>'


def test_suites_are_kept_as_great_expectations_reads_them(run: RunTables, tmp_path: Path) -> None:
    import great_expectations

    quality = validate(run, [played()], 500)
    quality.keep_suites(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {path.stem for path in written} == {"lineage", "generations", "worlds", "episodes"}
    for path in written:
        data = json.loads(path.read_text())
        assert len(great_expectations.ExpectationSuite(**data).expectations) >= 3
    quality.keep_suites(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
