"""The quality of a run's own tables, checked by Great Expectations, each failing row named."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import pandas as pd

from regression_suite import data_docs
from regression_suite.episodes import EPISODES, Played
from regression_suite.played_tables import (
    OUTCOMES,
    episode_frame,
    episode_requirements,
    outcome_frame,
    outcome_requirements,
)
from regression_suite.tables import KEYS, RunTables, requirements
from srghn.errors import ArtefactError
from srghn.evolution.lineage import schema
from srghn.evolution.metrics import SCHEMA
from srghn.files import atomic_write
from srghn.inference.verdict import Check
from srghn.quiet import be_quiet

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition

#: Failing rows that are named, per expectation; all are counted.
NAMED = 20
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "lineage": tuple(name for name in schema(1, "").names if name != "returns"),
    "generations": tuple(SCHEMA.names),
    "worlds": ("source", "fingerprint"),
    "episodes": EPISODES,
    "outcomes": OUTCOMES,
}
#: Columns that stay unread, since they are as large as all others: none of them is examined.
_BESIDE = {"lineage": ", beside returns"}


@dataclass(frozen=True)
class Expectation:
    """One expectation of one table: how many rows broke it, and up to `NAMED` of them by name."""

    table: str
    name: str
    success: bool
    failing: int
    rows: tuple[str, ...]


@dataclass(frozen=True)
class DataQuality:
    """What was expected of tables, and what was found. `rows` counts each table's.

    `docs` is Great Expectations' page about it, `suites` its suites, by table, as plain data.
    """

    expectations: tuple[Expectation, ...]
    rows: Mapping[str, int]
    docs: str = ""
    suites: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, without page and suites."""
        return {"expectations": [asdict(e) for e in self.expectations], "rows": dict(self.rows)}

    def keep_suites(self, folder: Path) -> None:
        """Write each suite, as Great Expectations reads it, where it changed."""
        for table, suite in self.suites.items():
            path, data = folder / f"{table}.json", json.dumps(suite, indent=1, sort_keys=True)
            if not path.is_file() or path.read_text(encoding="utf-8") != data:
                atomic_write(path, data)

    @property
    def failed(self) -> tuple[Expectation, ...]:
        return tuple(e for e in self.expectations if not e.success)

    @property
    def success(self) -> bool:
        """Every expectation held; none at all is not a success."""
        return bool(self.expectations) and not self.failed


def validate(run: RunTables, played: Sequence[Played] = (), limit: int = 0) -> DataQuality:
    """The tables of a run, and the gate's episodes, of at most `limit` steps, where there are any.

    Schema and size of every table first; what rows must be only where those hold.
    """
    frames = {"lineage": run.lineage, "generations": run.generations, "worlds": run.worlds}
    episodes = episode_frame(played) if played else None
    if episodes is not None:
        frames["episodes"] = episodes

    def needed() -> dict[str, pd.DataFrame]:
        more = {} if episodes is None else {"episodes": episode_requirements(episodes, limit)}
        return {**requirements(run), **more}

    return _validated(frames, needed)


def validate_outcomes(
    outcomes: Sequence[Any], limit: int, versions: Collection[int]
) -> DataQuality:
    """Outcomes from service: of these versions, ended once, with a finite return, in time."""
    frame = outcome_frame(outcomes)
    return _validated(
        {"outcomes": frame}, lambda: {"outcomes": outcome_requirements(frame, limit, versions)}
    )


def _validated(
    frames: Mapping[str, pd.DataFrame], needed: Callable[[], Mapping[str, pd.DataFrame]]
) -> DataQuality:
    with _ONE_AT_A_TIME:
        validator = _Validator()
        found = [e for name, frame in frames.items() for e in validator.shape(name, frame)]
        if all(e.success for e in found):
            for name, frame in needed().items():
                found += validator.rows(name, frame)
    rows = {name: len(frame) for name, frame in frames.items()}
    return DataQuality(
        tuple(found), rows, data_docs.page(validator.results), dict(validator.suites)
    )


def judge_tables(quality: DataQuality | None, problem: str = "") -> Check:
    """A candidate without sound tables shows nothing of how it was bred: that never passes."""
    name, remedy = "data quality", "Evolve again, or resume the run from its last checkpoint."
    if quality is None:
        return Check(name, "failed", problem or "no run tables were given", remedy=remedy)
    count = len(quality.expectations)
    if quality.success:
        reason = f"all {count} expectations of {quality.rows['lineage']:,} lineage rows hold"
        return Check(name, "passed", reason)
    worst = quality.failed[0]
    reason = (
        f"{len(quality.failed)} of {count} expectations failed; first, in {worst.table}: "
        f"'{worst.name}'"
    )
    if worst.failing:
        reason += f" broken by {worst.failing:,} rows"
    if worst.rows:
        reason += f", such as {worst.rows[0]}"
    return Check(name, "failed", reason, remedy=remedy)


#: Great Expectations has one context in a process, whatever the thread.
_ONE_AT_A_TIME = Lock()


@lru_cache(maxsize=1)
def _frames() -> BatchDefinition[Any]:
    """What makes a batch of a frame: nothing on disk, nothing sent, nothing drawn.

    One for all frames, because Great Expectations writes its whole configuration anew for each.
    """
    be_quiet()
    from great_expectations import get_context  # costs 6 s
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("run").add_dataframe_asset("table")
    return asset.add_batch_definition_whole_dataframe("all")


class _Validator:
    """Checks tables one after another, and keeps Great Expectations' results and suites."""

    def __init__(self) -> None:
        self._frames = _frames()
        import great_expectations

        self._gx = great_expectations
        self.results: list[tuple[str, Any]] = []
        self.suites: dict[str, Any] = {}

    def shape(self, table: str, frame: pd.DataFrame) -> list[Expectation]:
        """The table has its columns, in order, and at least one row."""
        known = self._gx.expectations
        expectations = {
            f"its columns are {', '.join(COLUMNS[table])}{_BESIDE.get(table, '')}": (
                known.ExpectTableColumnsToMatchOrderedList(column_list=list(COLUMNS[table]))
            ),
            "it has rows": known.ExpectTableRowCountToBeBetween(min_value=1),
        }
        return self._validate(table, frame, expectations)

    def rows(self, table: str, frame: pd.DataFrame) -> list[Expectation]:
        """Every column of truth values is true throughout."""
        known = self._gx.expectations
        expectations = {
            name: known.ExpectColumnValuesToBeInSet(column=name, value_set=[True])
            for name in frame.columns
            if name not in KEYS[table]
        }
        return self._validate(table, frame, expectations)

    def _validate(
        self, table: str, frame: pd.DataFrame, expectations: Mapping[str, Any]
    ) -> list[Expectation]:
        batch = self._frames.get_batch(batch_parameters={"dataframe": frame})
        names = list(expectations)
        suite = self._gx.ExpectationSuite(table, expectations=list(expectations.values()))
        keys = [key for key in KEYS[table] if key in frame.columns]
        form = {"result_format": "COMPLETE", "unexpected_index_column_names": keys}
        result = batch.validate(suite, result_format=form)
        self.results.append((table, result))
        self._keep(table, suite)
        results = result.results
        return [_read(table, name, r, keys) for name, r in zip(names, results, strict=True)]

    def _keep(self, table: str, suite: Any) -> None:
        """Shape and rows of a table as one suite."""
        data = suite.to_json_dict()
        if table in self.suites:
            before = self.suites[table]["expectations"]
            data["expectations"] = [*before, *data["expectations"]]
        self.suites[table] = data


def _read(table: str, name: str, result: Any, keys: Sequence[str]) -> Expectation:
    """One result; an expectation that raised is a failed one."""
    if result.exception_info.get("raised_exception"):
        raise ArtefactError(
            f"table {table}: '{name}' could not be checked: "
            f"{result.exception_info['exception_message']}"
        )
    found = result.result
    rows = found.get("unexpected_index_list") or []
    return Expectation(
        table=table,
        name=name,
        success=bool(result.success),
        failing=int(found.get("unexpected_count", 0)),
        rows=tuple(", ".join(f"{key} {row[key]}" for key in keys) for row in rows[:NAMED]),
    )
