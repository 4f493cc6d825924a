"""What a run goes on from: all that one checkpoint holds, and the tables that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srghn import checkpoint as checkpoints
from srghn.evolution import tables
from srghn.evolution.base import F64, Population, State, Strategy, pack, unpack
from srghn.evolution.tables import Part

CHECKPOINTS, TABLES = "checkpoints", ("lineage", "generations")


@dataclass(frozen=True)
class Progress:
    """All that a run goes on from: what one checkpoint holds.

    finalists  the best of the last generation, best first, and their fitness (n,) in `mode`
    parts      of each table
    """

    done: int
    state: State
    finalists: Population
    fitness: F64
    mode: str
    evaluations: int
    steps: int
    parts: Mapping[str, tuple[Part, ...]]


def save(run_dir: Path, progress: Progress) -> None:
    """Write the checkpoint, then remove table parts that no kept checkpoint names."""
    arrays, scalars = pack(progress.state)
    named = {f"state.{key}": value for key, value in arrays.items()}
    named |= {f"finalists.{key}": value for key, value in vars(progress.finalists).items()}
    named["finalists.fitness"] = progress.fitness
    meta = {
        "scalars": scalars,
        "mode": progress.mode,
        "evaluations": progress.evaluations,
        "steps": progress.steps,
        "parts": {k: [list(vars(p).values()) for p in v] for k, v in progress.parts.items()},
    }
    point = checkpoints.Checkpoint(progress.done, named, meta)
    checkpoints.write(run_dir / CHECKPOINTS, point)
    prune(run_dir)


def prune(run_dir: Path) -> None:
    """Drop old checkpoints, and table parts that no kept one names: those beyond the last, too."""
    checkpoints.prune(run_dir / CHECKPOINTS)
    kept = [_parts(meta) for meta in checkpoints.metas(run_dir / CHECKPOINTS)]
    for table in TABLES:
        tables.prune(run_dir / table, [part for parts in kept for part in parts[table]])


def _parts(meta: Mapping[str, Any]) -> dict[str, tuple[Part, ...]]:
    return {k: tuple(Part(*row) for row in v) for k, v in meta["parts"].items()}


def restore(run_dir: Path, strategy: Strategy[Any]) -> Progress | None:
    """The newest good checkpoint whose tables are whole; None for a run that has none yet."""

    def check(found: checkpoints.Checkpoint) -> None:
        for table, parts in _parts(found.meta).items():
            tables.verify(run_dir / table, parts)

    found = checkpoints.newest(run_dir / CHECKPOINTS, check)
    return None if found is None else _progress(found, strategy)


def _progress(found: checkpoints.Checkpoint, strategy: Strategy[Any]) -> Progress:
    groups: dict[str, dict[str, Any]] = {"state": {}, "finalists": {}}
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
    )
