"""A run's tables as data frames, with what each row must be for the tables to be believed.

Every requirement is a column of truth values beside the rows it is about, so that whoever finds a
row that breaks it can name the row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from srghn.errors import ArtefactError
from srghn.evolution import tables
from srghn.evolution.base import NO_PARENT
from srghn.evolution.ending import ended

#: Columns that name a row of each table to a person.
KEYS: Mapping[str, tuple[str, ...]] = {
    "lineage": ("generation", "id"),
    "generations": ("generation",),
    "worlds": ("source",),
    "episodes": ("cell", "seed"),
    "outcomes": ("n", "episode"),
}


@dataclass(frozen=True)
class RunTables:
    """`lineage`: an individual in a generation a row; `generations`: one row each; `worlds`: the
    fingerprint in each file's metadata. `considered` individuals were born, and `nonfinite` rows
    hold a fitness of minus infinity, which is allowed and counted. `end`: what ended the run before
    its last generation, in words, or nothing."""

    lineage: pd.DataFrame
    generations: pd.DataFrame
    worlds: pd.DataFrame
    end: str = ""

    @property
    def considered(self) -> int:
        return int(self.lineage["id"].nunique())

    @property
    def nonfinite(self) -> int:
        return int(np.isneginf(self.lineage["fitness"]).sum())


def read(run_dir: Path) -> RunTables:
    """Read both tables of a run; raises `ArtefactError` where there are none or they are torn."""
    try:
        lineage = tables.read(run_dir / "lineage").drop_columns("returns").to_pandas()
        generations = tables.read(run_dir / "generations").to_pandas()
        worlds = pd.DataFrame(_fingerprints(run_dir), columns=["source", "fingerprint"])
        end = ended(run_dir)
    except Exception as error:  # pyarrow's errors share no base but Exception
        raise ArtefactError(
            f"the tables of run {run_dir.name} cannot be read: {error}; run it again from its "
            "last checkpoint (srghn run --resume)"
        ) from error
    return RunTables(lineage, generations, worlds, str(end or ""))


def requirements(run: RunTables) -> dict[str, pd.DataFrame]:
    """Each table with a column of truth values per requirement, named by what must hold."""
    return {
        "lineage": _lineage(run.lineage, set(run.generations["generation"])),
        "generations": _generations(run.generations, run.lineage),
        "worlds": _worlds(run.worlds),
    }


def _lineage(frame: pd.DataFrame, generations: set[int]) -> pd.DataFrame:
    ids, parents = frame["id"], frame["parent"]
    births = frame.drop_duplicates("id").set_index("id")["birth"]
    founder = parents == NO_PARENT
    older = (parents < ids) & ~(parents.map(births) > frame["birth"])
    first = frame.groupby("id")[["parent", "noise_seed", "birth"]].transform("first")
    same = (frame[["parent", "noise_seed", "birth"]] == first).all(axis=1)
    return frame[["generation", "id"]].assign(
        **{
            "an individual occurs once in a generation": ~frame.duplicated(["generation", "id"]),
            "an id has one birth": same,
            "every parent exists": founder | parents.isin(ids),
            "a parent is older than its child": founder | older,
            "no individual is evaluated before its birth": frame["birth"] <= frame["generation"],
            "fitness is a number or minus infinity": ~(
                frame["fitness"].isna() | np.isposinf(frame["fitness"])
            ),
            "mutation rates are finite": np.isfinite(frame["rate_mean"]),
            "its generation is in the generations table": frame["generation"].isin(generations),
        }
    )


def _generations(frame: pd.DataFrame, lineage: pd.DataFrame) -> pd.DataFrame:
    step, spent = frame["generation"].diff().fillna(1), frame["evaluations"]
    finite = lineage["fitness"].where(np.isfinite(lineage["fitness"]))
    scores = finite.groupby(lineage["generation"]).agg(["max", "mean"])
    scores = scores.reindex(frame["generation"]).reset_index(drop=True)
    # where nobody's fitness is finite both are minus infinity; rows that are gone excuse no figure
    nobody = scores["max"].isna().to_numpy() & ~np.isfinite(frame["best"].to_numpy())
    tied = {
        name: np.isclose(frame[name], scores[column], rtol=1e-9, atol=1e-9) | nobody
        for name, column in (("best", "max"), ("mean", "mean"))
    }
    # a mean of equal numbers may be rounded to above them
    tops = (frame["best"] >= frame["mean"]) | np.isclose(
        frame["best"], frame["mean"], rtol=1e-9, atol=1e-9
    )
    return frame[["generation"]].assign(
        **{
            "generations have no gaps": step == 1,
            "every generation was evaluated": spent.diff().fillna(spent) > 0,
            "best is not below the mean": tops,
            "best is the best of its lineage rows": tied["best"],
            "mean is the mean of its lineage rows": tied["mean"],
            "diversity is finite": np.isfinite(frame["diversity"]),
        }
    )


def _worlds(frame: pd.DataFrame) -> pd.DataFrame:
    usual = frame["fingerprint"].mode().iloc[0]
    same = frame["fingerprint"] == usual
    return frame[["source"]].assign(**{"one environment fingerprint in a run": same})


def _fingerprints(run_dir: Path) -> Iterator[tuple[str, str]]:
    yield "run.json", json.loads((run_dir / "run.json").read_bytes())["fingerprint"]
    for path in sorted(run_dir.glob("*/*.parquet")):
        metadata = pq.read_schema(path).metadata or {}
        yield f"{path.parent.name}/{path.name}", metadata.get(b"fingerprint", b"none").decode()
