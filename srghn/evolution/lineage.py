"""Every individual ever born, and how any of them is made again from a founder's seed.

The lineage table has one row per individual and generation in which it was played: what it is
(id, parent, birth, noise seed, a summary of its nodes' rates) and what it scored there. A world is
named by fingerprint (in the table's metadata) and mode (a column), so fitness is never without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from srghn.errors import ArtefactError
from srghn.evolution import tables
from srghn.evolution.ancestry import Ancestor
from srghn.evolution.base import F32, F64, I64, NO_PARENT
from srghn.evolution.metrics import GenerationRecord, over_nodes
from srghn.evolution.tables import Part


def schema(episodes: int, fingerprint: str) -> pa.Schema:
    """`fitness` is what was selected on; `returns` are its episodes, rounded to float32.

    `rate` is the individual's median over nodes (`metrics.over_nodes`).
    """
    return pa.schema(
        [
            ("generation", pa.int32()),
            ("id", pa.int64()),
            ("parent", pa.int64()),
            ("birth", pa.int32()),
            ("noise_seed", pa.int64()),
            ("rate", pa.float32()),
            ("rate_mean", pa.float32()),
            ("rate_min", pa.float32()),
            ("rate_max", pa.float32()),
            ("mode", pa.string()),
            ("fitness", pa.float64()),
            ("returns", pa.list_(pa.float32(), episodes)),
        ],
        metadata={"fingerprint": fingerprint},
    )


def table(generations: Sequence[GenerationRecord], fingerprint: str) -> pa.Table:
    """Generations as one table: making one for each would cost as much as the births."""

    def whole(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(generation, name) for generation in generations])

    sizes = [len(generation.ids) for generation in generations]
    row = np.repeat(np.arange(len(generations)), sizes)
    returns = whole("returns")
    columns = {
        "generation": np.array([generation.generation for generation in generations])[row],
        "id": whole("ids"),
        "parent": whole("parents"),
        "birth": whole("births"),
        "noise_seed": whole("noise_seeds"),
        **over_nodes(whole("rates")),
        "mode": pa.array([generation.mode for generation in generations]).take(row),
        "fitness": whole("fitness"),
    }
    kept = schema(returns.shape[1], fingerprint)
    arrays = [pa.array(columns[f.name], f.type, safe=False) for f in kept if f.name in columns]
    flat = pa.array(returns.ravel(), pa.float32(), safe=False)
    return pa.table([*arrays, pa.FixedSizeListArray.from_arrays(flat, returns.shape[1])], kept)


@dataclass(frozen=True)
class Lineage:
    """The lineage table as arrays, one entry per individual and generation played.

    generation, id, parent, birth, noise_seed, rate, fitness (n,);
    returns (n, episodes); mode (n,) str; `fingerprint` of the world.
    """

    fingerprint: str
    generation: I64
    id: I64
    parent: I64
    birth: I64
    noise_seed: I64
    rate: F32
    fitness: F64
    returns: F32
    mode: np.ndarray[tuple[int], np.dtype[np.str_]]

    def __len__(self) -> int:
        return len(self.id)

    def __repr__(self) -> str:
        individuals = len(np.unique(self.id))
        return f"Lineage({individuals} individuals, {len(self)} rows, {self.fingerprint[:12]})"

    def chain(self, individual: int) -> list[Ancestor]:
        """From the founder to `individual`, each as it stood in the generation of its birth.

        Raises `ArtefactError` for an id that was never born.
        """
        ids, first = np.unique(self.id, return_index=True)
        found: list[Ancestor] = []
        while individual != NO_PARENT:
            place = int(np.searchsorted(ids, individual))
            if place == len(ids) or ids[place] != individual:
                raise ArtefactError(
                    f"individual {individual} is not in this lineage; "
                    f"it holds {len(ids)} with ids from {ids[0]} to {ids[-1]}"
                )
            row = int(first[place])
            found.append(self._ancestor(row))
            individual = int(self.parent[row])
        return found[::-1]

    def _ancestor(self, row: int) -> Ancestor:
        fitness = float(self.fitness[row])
        return Ancestor(
            generation=int(self.birth[row]),
            id=int(self.id[row]),
            noise_seed=int(self.noise_seed[row]),
            fitness=fitness if math.isfinite(fitness) else None,
            rate=float(self.rate[row]),
            fingerprint=self.fingerprint,
            mode=str(self.mode[row]),
        )


def load(run_dir: Path, parts: Iterable[Part] | None = None, *more: pa.Table) -> Lineage:
    """Read `run_dir/lineage`, as `tables.read` does; a second for 10,000 generations of 64."""
    table = tables.read(run_dir / "lineage", parts, *more)
    returns = table["returns"].combine_chunks()
    mode = table["mode"].combine_chunks().dictionary_encode()
    names = np.array(mode.dictionary.to_pylist(), dtype=np.str_)
    plain = ("generation", "id", "parent", "birth", "noise_seed")
    return Lineage(
        fingerprint=table.schema.metadata[b"fingerprint"].decode(),
        **{name: table[name].to_numpy().astype(np.int64) for name in plain},
        rate=table["rate"].to_numpy(),
        fitness=table["fitness"].to_numpy(),
        returns=returns.values.to_numpy().reshape(len(table), -1),
        mode=names[mode.indices.to_numpy()],
    )
