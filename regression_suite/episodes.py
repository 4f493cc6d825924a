"""Paired episodes: candidate and incumbent on the same seeds, as they are served, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from regression_suite.suite import Cell
from srghn.evaluation.base import Crash, PolicyFunction

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Float32 = NDArray[np.float32]
#: Called with (episodes finished, episodes planned, what is being played).
Progress = Callable[[int, int, str], None]

#: Columns of the table of episodes: of `episodes.parquet`, and as its quality is checked.
EPISODES = (
    "cell",
    "seed",
    "candidate_return",
    "candidate_length",
    "incumbent_return",
    "incumbent_length",
)
#: Most bytes of observations kept of the candidate's primary episodes.
KEPT = 64 * 2**20


@dataclass(frozen=True)
class Played:
    """A cell's episodes so far, one column an episode; no incumbent for a first champion.

    Seeds int64 (n,), returns float64 (n,), lengths int64 (n,) in steps; a return of minus infinity
    is a crashed episode, of which `crashes` says why (individual 0: candidate, 1: incumbent).
    """

    cell: Cell
    seeds: Int
    returns: Float
    lengths: Int
    incumbent_returns: Float | None = None
    incumbent_lengths: Int | None = None
    crashes: tuple[Crash, ...] = ()

    def __len__(self) -> int:
        return len(self.seeds)

    def plus(self, more: Played) -> Played:
        """These episodes and then those of `more`, of the same cell."""

        def both(first: Any, second: Any) -> Any:
            return None if first is None else np.concatenate([first, second])

        return Played(
            cell=self.cell,
            seeds=both(self.seeds, more.seeds),
            returns=both(self.returns, more.returns),
            lengths=both(self.lengths, more.lengths),
            incumbent_returns=both(self.incumbent_returns, more.incumbent_returns),
            incumbent_lengths=both(self.incumbent_lengths, more.incumbent_lengths),
            crashes=self.crashes + more.crashes,
        )


def answer(
    policy: PolicyFunction, observations: Float32, states: Float32
) -> tuple[NDArray[Any], Float32]:
    """Actions for observations (n, d) in states (n, k), and the next states; k is 0 without any."""
    asked: Any = policy
    if not getattr(policy, "state_size", 0):
        return asked(observations), states
    actions, after = asked.step(observations, states)
    return actions, after


@dataclass(frozen=True)
class Seen:
    """Observations (n, d) that a policy met, and the states (n, k) it was in."""

    observations: Float32
    states: Float32

    def __len__(self) -> int:
        return len(self.observations)


class Recorder:
    """A policy that keeps what it met, up to `KEPT` bytes; it answers as that policy does.

    It is told by `met`, since what it is asked is filled up with rows that no episode showed.
    """

    def __init__(self, policy: PolicyFunction) -> None:
        self._policy = policy
        self.state_size = int(getattr(policy, "state_size", 0))
        self._kept: list[tuple[Float32, Float32]] = []
        self._room = KEPT

    def __call__(self, observations: Float32) -> NDArray[Any]:
        return self._policy(observations)

    def step(self, observations: Float32, states: Float32) -> tuple[NDArray[Any], Float32]:
        return answer(self._policy, observations, states)

    def met(self, observations: Float32, states: Float32) -> None:
        """Keep observations (n, d) and states (n, k); the evaluator calls it before it asks."""
        if not self._kept:  # of observations so large that no batch has room, the first ones
            most = max(1, self._room // (observations[0].nbytes + states[0].nbytes))
            observations, states = observations[:most], states[:most]
        size = observations.nbytes + states.nbytes
        if self._room > size or not self._kept:
            self._kept.append((observations.copy(), states.copy()))
            self._room -= size

    def sample(self, most: int) -> Seen:
        """At most `most` of what it met, evenly spaced, in that order."""
        if not self._kept:
            return Seen(np.empty((0, 0), np.float32), np.empty((0, 0), np.float32))
        everything, states = (np.concatenate(part) for part in zip(*self._kept, strict=True))
        picks = np.linspace(0, len(everything) - 1, min(most, len(everything))).astype(int)
        return Seen(everything[picks], states[picks])


def to_parquet(results: Sequence[Played]) -> bytes:
    """Every episode as one row, the same bytes for the same episodes."""
    columns: dict[str, list[Any]] = {name: [] for name in EPISODES}
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
