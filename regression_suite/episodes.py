"""Paired episodes: candidate and incumbent play the same seeds, as they are served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from regression_suite.suite import Cell
from srghn import seeding
from srghn.candidates.candidate import Candidate
from srghn.envs import EnvVersion
from srghn.evaluation.base import Crash, Evaluator, PolicyFunction
from srghn.evaluation.task import Task

Float = NDArray[np.float64]
Int = NDArray[np.int64]
#: Called with (episodes finished, episodes planned, what is being played).
Progress = Callable[[int, int, str], None]

#: Most bytes of observations kept of the candidate's primary episodes.
KEPT = 64 * 2**20


@dataclass(frozen=True)
class Played:
    """A cell's episodes, one column an episode; no incumbent for a first champion."""

    cell: Cell
    seeds: Int
    returns: Float
    lengths: Int
    incumbent_returns: Float | None = None
    incumbent_lengths: Int | None = None
    crashes: tuple[Crash, ...] = ()

    @property
    def differences(self) -> Float | None:
        """Candidate's return less the incumbent's, episode by episode; NaN where one crashed."""
        if self.incumbent_returns is None:
            return None
        sound = np.isfinite(self.returns) & np.isfinite(self.incumbent_returns)
        gap = np.full(len(self.returns), np.nan)
        np.subtract(self.returns, self.incumbent_returns, out=gap, where=sound)
        return gap


class Recorder:
    """A policy that keeps the observations it was shown, up to `KEPT` bytes."""

    def __init__(self, policy: PolicyFunction) -> None:
        self._policy = policy
        self._kept: list[NDArray[np.float32]] = []
        self._room = KEPT

    def __call__(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        if self._room > observations.nbytes:
            self._kept.append(observations.copy())
            self._room -= observations.nbytes
        return self._policy(observations)

    def sample(self, most: int) -> NDArray[np.float32]:
        """At most `most` of the observations (n, d), evenly spaced in the order they were met."""
        if not self._kept:
            return np.empty((0, 0), np.float32)
        everything = np.concatenate(self._kept)
        picks = np.linspace(0, len(everything) - 1, min(most, len(everything))).astype(int)
        sample: NDArray[np.float32] = everything[picks]
        return sample


def gate_root(salt: str, candidate: Candidate, attempt: int) -> int:
    """Root seed of one attempt, known only once the candidate's digest is fixed."""
    return seeding.text_seed(salt, candidate.digest, str(attempt))


def play(
    cells: Sequence[Cell],
    candidate: PolicyFunction,
    incumbent: PolicyFunction | None,
    version: EnvVersion,
    evaluator: Evaluator,
    root: int,
    progress: Progress | None = None,
) -> tuple[tuple[Played, ...], Recorder]:
    """Candidate and incumbent, if there is one, play every cell.

    Gives the results and what the candidate saw in the first cell.
    """
    recorder = Recorder(candidate)
    players = [candidate] if incumbent is None else [candidate, incumbent]
    planned = sum(cell.episodes for cell in cells) * len(players)
    results: list[Played] = []
    done = 0
    for index, cell in enumerate(cells):
        first = recorder if index == 0 else candidate
        results.append(_play_cell(cell, [first, *players[1:]], version, evaluator, root))
        done += cell.episodes * len(players)
        if progress is not None:
            progress(done, planned, cell.name)
    return tuple(results), recorder


def _play_cell(
    cell: Cell,
    players: Sequence[PolicyFunction],
    version: EnvVersion,
    evaluator: Evaluator,
    root: int,
) -> Played:
    seeds = seeding.seeds(root, "gate", cell.episodes, cell.name)
    found = evaluator.evaluate(players, Task(version, cell.mode, seeds, cell.perturbation))
    paired = len(players) > 1
    return Played(
        cell=cell,
        seeds=seeds,
        returns=found.returns[0],
        lengths=found.lengths[0],
        incumbent_returns=found.returns[1] if paired else None,
        incumbent_lengths=found.lengths[1] if paired else None,
        crashes=found.crashes,
    )


def to_parquet(results: Sequence[Played]) -> bytes:
    """Every episode as one row, the same bytes for the same episodes."""
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "cell",
            "seed",
            "candidate_return",
            "candidate_length",
            "incumbent_return",
            "incumbent_length",
        )
    }
    for played in results:
        n = len(played.seeds)
        columns["cell"] += [played.cell.name] * n
        columns["seed"] += played.seeds.tolist()
        columns["candidate_return"] += played.returns.tolist()
        columns["candidate_length"] += played.lengths.tolist()
        for name, values in (
            ("incumbent_return", played.incumbent_returns),
            ("incumbent_length", played.incumbent_lengths),
        ):
            columns[name] += [None] * n if values is None else values.tolist()
    types = [pa.string(), pa.int64(), pa.float64(), pa.int64(), pa.float64(), pa.int64()]
    schema = pa.schema(list(zip(columns, types, strict=True)))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=schema), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data
