"""Metrics of a generation: a row of the generations table, and what listeners receive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from srghn.compiled import compiled
from srghn.evolution.base import F32, F64, I64

#: Quantiles of fitness that are kept.
QUANTILES = {"q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9}
_PLACES = np.array(list(QUANTILES.values()))

#: Fitness figures leave out individuals whose fitness is not finite; `nonfinite` counts them, and
#: where nobody's is finite they are minus infinity. `rate` is the mean over individuals of their
#: median over nodes; `rate_mean`, `rate_min` and `rate_max` are over all individuals and nodes.
#: They are of these individuals' births; `Population` says in which unit.
#: `evaluations` (episodes) and `steps` are totals since the run began. `first_crash` says who
#: crashed first (individual, seed, step) and why; in the lineage table all crashed episodes have a
#: return of minus infinity.
SCHEMA = pa.schema(
    [
        ("generation", pa.int64()),
        ("mode", pa.string()),
        *((name, pa.float64()) for name in ("best", "mean", "worst", *QUANTILES)),
        *((name, pa.float64()) for name in ("rate", "rate_mean", "rate_min", "rate_max")),
        ("diversity", pa.float64()),
        *((name, pa.int64()) for name in ("nonfinite", "crashes", "born", "evaluations", "steps")),
        ("first_crash", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class GenerationRecord:
    """An evaluated generation, as listeners receive it and as tables are made from it.

    After a resume the generations since the last checkpoint are told again, with equal content. The
    arrays are not copies: changing them changes the run.

    total        generations planned in this run
    fitness      (n,) float64, minus infinity where it was not finite
    returns      (n, episodes) float64
    diversity    of the policies' weights
    crashes      crashed episodes of this generation
    first_crash  the first of them in words, empty without any
    evaluations, steps   episodes and steps of the run so far

    From `ids` to `rates` as in its `Population`.
    """

    generation: int
    total: int
    mode: str
    ids: I64
    parents: I64
    noise_seeds: I64
    births: I64
    rates: F32
    fitness: F64
    returns: F64
    diversity: float
    crashes: int
    first_crash: str
    evaluations: int
    steps: int

    def __repr__(self) -> str:
        return (
            f"GenerationRecord({self.generation}, mode {self.mode!r}, {len(self.ids)} individuals, "
            f"best {self.best:g}, mean {self.mean:g}, rate {self.rate:.3g})"
        )

    @cached_property
    def row(self) -> dict[str, Any]:
        """Its row of the generations table."""
        return {name: column[0] for name, column in _columns([self]).items()}

    @property
    def best(self) -> float:
        return float(self.row["best"])

    @property
    def mean(self) -> float:
        return float(self.row["mean"])

    @property
    def rate(self) -> float:
        return float(self.row["rate"])


def table(records: Sequence[GenerationRecord], fingerprint: str) -> pa.Table:
    """Their rows, with the world's fingerprint as metadata.

    Many at once: of 256 each takes a thirtieth of the time that one takes alone.
    """
    schema = SCHEMA.with_metadata({"fingerprint": fingerprint})
    alike = (list(group) for _, group in groupby(records, key=lambda r: len(r.ids)))
    return pa.concat_tables(pa.Table.from_pydict(_columns(group), schema) for group in alike)


def _columns(records: Sequence[GenerationRecord]) -> dict[str, Any]:
    """The table's columns, for generations of equally many individuals.

    Each (generations,), and each entry has the same bytes whatever the others are.
    """
    shape = len(records), len(records[0].ids)
    kept = over_nodes(np.concatenate([record.rates for record in records]))
    rates = {name: values.reshape(shape) for name, values in kept.items()}
    generation = np.array([record.generation for record in records])
    births = np.array([record.births for record in records])
    return {
        "generation": generation,
        "mode": [record.mode for record in records],
        **_of_fitness(np.array([record.fitness for record in records])),
        "rate": rates["rate"].mean(axis=1),
        "rate_mean": rates["rate_mean"].mean(axis=1),
        "rate_min": rates["rate_min"].min(axis=1),
        "rate_max": rates["rate_max"].max(axis=1),
        "diversity": [record.diversity for record in records],
        "crashes": [record.crashes for record in records],
        "born": (births == generation[:, None]).sum(axis=1),
        "evaluations": [record.evaluations for record in records],
        "steps": [record.steps for record in records],
        "first_crash": [record.first_crash for record in records],
    }


def _of_fitness(fitness: F64) -> dict[str, Any]:
    """Of (generations, n): best, mean, worst and quantiles of what is finite."""
    ordered = np.sort(fitness, axis=1)  # minus infinity first
    finite = np.isfinite(ordered)
    count, values = finite.sum(axis=1), np.where(finite, ordered, 0)
    first, last = fitness.shape[1] - np.maximum(count, 1), fitness.shape[1] - 1
    places = first[:, None] + _PLACES * (last - first)[:, None]  # numpy.quantile's own rule
    below = places.astype(np.int64)
    low = np.take_along_axis(values, below, axis=1)
    high = np.take_along_axis(values, np.minimum(below + 1, last), axis=1)
    figures = {
        "best": values[:, -1],
        "mean": values.sum(axis=1) / np.maximum(count, 1),
        "worst": values[np.arange(len(values)), first],
        **dict(zip(QUANTILES, (low + (high - low) * (places - below)).T, strict=True)),
    }
    anyone = {name: np.where(count > 0, column, -np.inf) for name, column in figures.items()}
    return anyone | {"nonfinite": fitness.shape[1] - count}


def over_nodes(rates: F32) -> dict[str, NDArray[Any]]:
    """What is kept of rates (n, nodes), each (n,): median (`rate`), mean, least and largest.

    An individual's rate is the median and not the mean: the few nodes whose rate has a high floor
    would hide what all the others do.
    """
    ordered, middle = np.sort(rates, axis=1), (rates.shape[1] - 1) // 2
    return {
        "rate": ordered[:, middle : rates.shape[1] // 2 + 1].mean(axis=1, dtype=np.float64),
        "rate_mean": rates.mean(axis=1, dtype=np.float64),
        "rate_min": ordered[:, 0],
        "rate_max": ordered[:, -1],
    }


@compiled
def diversity(weights: F32) -> float:
    """Root mean square difference between the policies of two individuals, per weight.

    Over all pairs of rows of (n, P), which is `2n/(n-1)` times the variance; 0 for one individual.
    Weights that are not finite are left out with their individual.
    """
    n, size = weights.shape
    finite, count = np.empty(n, dtype=np.bool_), 0
    middle, squares = np.zeros(size), np.zeros(size)
    for i in range(n):
        finite[i] = True
        for p in range(size):
            finite[i] &= np.isfinite(weights[i, p])
        if finite[i]:
            count += 1
            for p in range(size):
                middle[p] += weights[i, p]
    for i in range(n):
        if finite[i]:
            for p in range(size):
                squares[p] += (weights[i, p] - middle[p] / count) ** 2
    return np.sqrt(2 / (count - 1) * squares.sum() / size) if count > 1 else 0.0
