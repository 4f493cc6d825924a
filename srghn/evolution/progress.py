"""What a run resumes from: the contents of one checkpoint, and the tables that it names.

Where a part of the tables ends, there is a checkpoint. One in between, which the clock asks for,
itself holds the rows that are in no part yet, so the clock decides neither where parts end nor what
a finished run leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from srghn.evolution import checkpoint as checkpoints
from srghn.evolution import tables
from srghn.evolution.base import F64, Population, State, Strategy, pack, unpack
from srghn.evolution.ending import End
from srghn.evolution.tables import Part

CHECKPOINTS, TABLES = "checkpoints", ("lineage", "generations")


@dataclass(frozen=True)
class Progress:
    """The contents of one checkpoint: all that a run resumes from.

    finalists  the best of the last generation, best first, and their fitness (n,) in `mode`
    parts      of each table
    pending    of each table the rows that are in no part yet: none where a part has just ended
    seconds    that evolution has taken up to here, the times between two sittings left out
    end        why the run is finished, where it is before its last generation
    """

    done: int
    state: State
    finalists: Population
    fitness: F64
    mode: str
    evaluations: int
    steps: int
    parts: Mapping[str, tuple[Part, ...]]
    pending: Mapping[str, tuple[pa.Table, ...]]
    seconds: float = 0.0
    end: End | None = None

    def __repr__(self) -> str:
        return (
            f"Progress({self.done} generations done, {len(self.finalists)} finalists in mode "
            f"{self.mode!r}, {self.evaluations} evaluations)"
        )


def save(run_dir: Path, progress: Progress, timed: bool = False) -> None:
    """Write the checkpoint, then remove those that it makes superfluous.

    `timed`: with the seconds, which are the only bytes that differ from one run to the next.
    """
    arrays, scalars = pack(progress.state)
    named = {f"state.{key}": value for key, value in arrays.items()}
    named |= {f"finalists.{key}": value for key, value in vars(progress.finalists).items()}
    named["finalists.fitness"] = progress.fitness
    named |= {f"pending.{key}": _to_bytes(rows) for key, rows in progress.pending.items() if rows}
    meta = {
        "scalars": scalars,
        "mode": progress.mode,
        "evaluations": progress.evaluations,
        "steps": progress.steps,
        "parts": {k: [list(vars(p).values()) for p in v] for k, v in progress.parts.items()},
    }
    meta |= {"seconds": progress.seconds} if timed else {}
    meta |= {} if progress.end is None else {"end": progress.end.to_json()}
    point = checkpoints.Checkpoint(progress.done, named, meta)
    checkpoints.write(run_dir / CHECKPOINTS, point)
    _prune_checkpoints(run_dir, progress)


def prune(run_dir: Path, progress: Progress) -> None:
    """Remove what a killed run left: superfluous checkpoints, and parts beyond those named."""
    _prune_checkpoints(run_dir, progress)
    for table in TABLES:
        tables.prune(run_dir / table, progress.parts[table])


def _prune_checkpoints(run_dir: Path, progress: Progress) -> None:
    """Those where a part ended last; one in between is of no use after the next of them."""
    first = progress.state.generation - progress.done
    ends = [part.last + 1 - first for part in progress.parts["generations"]]
    checkpoints.prune(run_dir / CHECKPOINTS, progress.done, ends)


def _to_bytes(rows: Sequence[pa.Table]) -> NDArray[np.uint8]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows[0].schema) as stream:
        for table in rows:
            stream.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)


def _parts(meta: Mapping[str, Any]) -> dict[str, tuple[Part, ...]]:
    return {k: tuple(Part(*row) for row in v) for k, v in meta["parts"].items()}


def _pending(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[pa.Table, ...]]:
    found = {table: arrays.get(f"pending.{table}") for table in TABLES}
    return {k: () if v is None else (pa.ipc.open_stream(v).read_all(),) for k, v in found.items()}


def rows(run_dir: Path, table: str) -> pa.Table | None:
    """All rows up to the newest valid checkpoint; None if there is none yet."""
    found = checkpoints.newest(run_dir / CHECKPOINTS, lambda _: None)
    if found is None:
        return None
    parts, pending = _parts(found.meta)[table], _pending(found.arrays)[table]
    return tables.read(run_dir / table, parts, *pending)


def restore(run_dir: Path, strategy: Strategy[Any]) -> Progress | None:
    """The newest good checkpoint whose tables are whole; None for a run that has none yet."""

    def check(found: checkpoints.Checkpoint) -> None:
        for table, parts in _parts(found.meta).items():
            tables.verify(run_dir / table, parts)

    found = checkpoints.newest(run_dir / CHECKPOINTS, check)
    return None if found is None else _progress(found, strategy)


def _progress(found: checkpoints.Checkpoint, strategy: Strategy[Any]) -> Progress:
    groups: dict[str, dict[str, Any]] = {"state": {}, "finalists": {}, "pending": {}}
    for name, array in found.arrays.items():
        group, _, field = name.partition(".")
        groups[group][field] = array
    fitness = groups["finalists"].pop("fitness")
    return Progress(
        done=found.step,
        state=unpack(strategy.state_type, groups["state"], found.meta["scalars"]),
        finalists=Population(**groups["finalists"]),
        fitness=fitness,
        mode=found.meta["mode"],
        evaluations=found.meta["evaluations"],
        steps=found.meta["steps"],
        parts=_parts(found.meta),
        pending=_pending(found.arrays),
        seconds=found.meta.get("seconds", 0.0),
        end=End.from_json(found.meta.get("end")),
    )
