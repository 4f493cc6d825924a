"""What a generation is measured by: one row of the generations table, one record for listeners."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from srghn.evolution.base import F32, F64, Population

#: Quantiles of fitness and of mutation rates that are kept.
QUANTILES = {"q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9}
_PLACES = np.array(list(QUANTILES.values()))


@dataclass(frozen=True)
class GenerationRow:
    """Fitness figures leave out individuals whose fitness is not finite; `nonfinite` counts them.

    `rate` is the mean over individuals of their median over nodes; `rate_mean`, `rate_min` and
    `rate_max` are over all individuals and nodes. `evaluations` (episodes) and `steps` are totals
    since the run began. Fitness is minus infinity where nobody's was finite.
    """

    generation: int
    mode: str
    best: float
    mean: float
    worst: float
    q10: float
    q25: float
    median: float
    q75: float
    q90: float
    rate: float
    rate_mean: float
    rate_min: float
    rate_max: float
    diversity: float
    nonfinite: int
    crashes: int
    born: int
    evaluations: int
    steps: int


SCHEMA = pa.schema(
    [
        (name, {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}[str(kind)])
        for name, kind in GenerationRow.__annotations__.items()
    ]
)


@dataclass(frozen=True)
class GenerationRecord:
    """Told to listeners after each generation; `total` generations are planned in this run.

    `rate` is the mean over individuals of their median over nodes; `evaluations` (episodes) and
    `steps` are totals of the run.
    After a resume the generations since the last checkpoint are told again, with equal content.
    """

    generation: int
    total: int
    mode: str
    best: float
    mean: float
    rate: float
    diversity: float
    steps: int
    evaluations: int


def measure(
    population: Population,
    fitness: F64,
    rates: Mapping[str, NDArray[Any]],
    generation: int,
    mode: str,
    *,
    crashes: int,
    evaluations: int,
    steps: int,
) -> GenerationRow:
    """The row of one generation; `fitness` (n,) as it was told, not finite is minus infinity.

    `rates` of each individual, as `over_nodes` gives them.
    """
    finite = np.sort(fitness[np.isfinite(fitness)])
    values = finite if len(finite) else np.array([-np.inf])
    # numpy.quantile's own rule, at a tenth of its price
    quantiles = np.interp(_PLACES * (len(values) - 1), np.arange(len(values)), values)
    return GenerationRow(
        generation=generation,
        mode=mode,
        best=float(values[-1]),
        mean=float(values.mean()),
        worst=float(values[0]),
        **dict(zip(QUANTILES, quantiles.tolist(), strict=True)),
        rate=float(rates["rate"].mean()),
        rate_mean=float(rates["rate_mean"].mean()),
        rate_min=float(rates["rate_min"].min()),
        rate_max=float(rates["rate_max"].max()),
        diversity=diversity(population.weights),
        nonfinite=len(fitness) - len(finite),
        crashes=crashes,
        born=int(np.count_nonzero(population.births == generation)),
        evaluations=evaluations,
        steps=steps,
    )


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


def diversity(weights: F32) -> float:
    """Root mean square difference between the policies of two individuals, per weight.

    Over all pairs of rows of (n, P), which is `2n/(n-1)` times the variance; 0 for one individual.
    Weights that are not finite are left out with their individual.
    """
    finite = np.isfinite(weights)
    rows = (weights if finite.all() else weights[finite.all(axis=1)]).astype(np.float64)
    if len(rows) < 2:
        return 0.0
    rows -= rows.mean(axis=0)
    return math.sqrt(2 / (len(rows) - 1) * float(np.square(rows, out=rows).sum()) / rows.shape[1])


def record(row: GenerationRow, total: int) -> GenerationRecord:
    return GenerationRecord(
        generation=row.generation,
        total=total,
        mode=row.mode,
        best=row.best,
        mean=row.mean,
        rate=row.rate,
        diversity=row.diversity,
        steps=row.steps,
        evaluations=row.evaluations,
    )


def table(rows: Sequence[GenerationRow], fingerprint: str) -> pa.Table:
    """Rows as a table that carries the world's fingerprint in its metadata."""
    schema = SCHEMA.with_metadata({"fingerprint": fingerprint})
    return pa.Table.from_pydict(
        {n: [getattr(row, n) for row in rows] for n in SCHEMA.names}, schema
    )
