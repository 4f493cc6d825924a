"""Shared by all engines: sharding a population, retries, and which individual is at fault.

A shard is a few individuals. One that fails (its worker died, hung, raised, or answered with NaN)
is asked again; one that fails again is halved, until a single individual is left that ends its
worker every time: its returns become minus infinity, and the run goes on. Results are put where
their individuals belong, so the order in which they come does not matter.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from srghn.config import NetworkParams
from srghn.envs.interface import Interface
from srghn.evaluation.base import (
    Crash,
    Evaluation,
    Float32,
    Int64,
    Progress,
    Recipe,
    WeightedPolicies,
)
from srghn.evaluation.task import Task

#: Failures of one shard before it is halved, or its only individual is given up.
ATTEMPTS = 2
#: Least episodes of a shard, as long as every worker gets one: backends play them abreast.
EPISODES_PER_SHARD = 16


@dataclass(frozen=True)
class Work:
    """What every shard of one call has in common; each worker is sent it once."""

    backend: str
    network: NetworkParams
    interface: Interface
    task: Task
    recipe: Recipe | None

    @classmethod
    def of(cls, backend: str, policies: WeightedPolicies, task: Task) -> Work:
        # an order is of all the call's episodes, and decides nothing but when each is started
        unordered = replace(task, order=None)
        return cls(backend, policies.network, policies.interface, unordered, policies.recipe)


@dataclass(frozen=True)
class Shard:
    """Individuals (k,) of one call, how often they failed together, and why the last time."""

    indices: Int64
    failures: int = 0
    reason: str = ""

    def halves(self) -> tuple[Shard, ...]:
        """Two shards; each is halved at its next failure, a single individual tried afresh."""
        parts = np.array_split(self.indices, 2)
        return tuple(Shard(part, ATTEMPTS - 1 if len(part) > 1 else 0) for part in parts)


class Shards(Protocol):
    """What workers are dealt shards from, and where their answers go."""

    waiting: deque[Shard]

    @property
    def size(self) -> int:
        """Individuals."""

    @property
    def finished(self) -> bool: ...

    def weights(self, shard: Shard) -> Float32 | None: ...

    def done(self, shard: Shard, result: Evaluation) -> None: ...

    def failed(self, shard: Shard, reason: str) -> None: ...


class Alone:
    """A shard of another process's board, tried once: `answer` is its result, or why it has none.

    `weights`: what came with it, if anything.
    """

    def __init__(self, indices: Int64, weights: Float32 | None) -> None:
        self.waiting, self.size = deque([Shard(indices)]), len(indices)
        self.answer: Evaluation | str | None = None
        self._weights = weights

    @property
    def finished(self) -> bool:
        return self.answer is not None

    def weights(self, shard: Shard) -> Float32 | None:
        return self._weights

    def done(self, shard: Shard, result: Evaluation) -> None:
        self.answer = result

    def failed(self, shard: Shard, reason: str) -> None:
        self.answer = reason


@dataclass
class Board:
    """The state of one call: shards still waiting, results received."""

    policies: WeightedPolicies
    seeds: Int64
    progress: Progress | None
    waiting: deque[Shard] = field(default_factory=deque)
    retries: int = 0

    def __post_init__(self) -> None:
        shape = (len(self.policies), len(self.seeds))
        self._returns = np.zeros(shape, dtype=np.float64)
        self._lengths = np.zeros(shape, dtype=np.int64)
        self._steps, self._open = 0, len(self.policies)
        self._crashes: list[Crash] = []

    @classmethod
    def plan(
        cls, policies: WeightedPolicies, seeds: Int64, progress: Progress | None, workers: int
    ) -> Board:
        """Cut a population into rounds: one shard a worker, all equal, of half of what is left.

        Large ones first are few, for every shard ends in a few long episodes that fill few lanes;
        small ones last end at about the same time (factoring, Hummel, Schonberg and Flynn 1992).
        """
        board, rest = cls(policies, seeds, progress), np.arange(len(policies), dtype=np.int64)
        least = min(-(-EPISODES_PER_SHARD // max(1, len(seeds))), -(-len(policies) // workers))
        while len(rest):
            size = max(least, len(rest) // (2 * workers))
            half, rest = np.split(rest, [size * workers])
            board.waiting.extend(map(Shard, np.split(half, range(size, len(half), size))))
        return board

    @property
    def size(self) -> int:
        return len(self.policies)

    @property
    def finished(self) -> bool:
        return self._open == 0

    def weights(self, shard: Shard) -> Float32 | None:
        """What to send with a shard: its weights, or nothing where workers have the recipe."""
        return None if self.policies.recipe is not None else self.policies.take(shard.indices)

    def done(self, shard: Shard, result: Evaluation) -> None:
        """Take a shard's result; one with NaN in it is a failure."""
        shape = (len(shard.indices), len(self.seeds))
        if result.returns.shape != shape or np.isnan(result.returns).any():
            self.failed(shard, "the worker returned NaN or an array of another shape")
            return
        self._returns[shard.indices], self._lengths[shard.indices] = result.returns, result.lengths
        self._steps += result.steps
        self._crashes += [
            replace(crash, individual=int(shard.indices[crash.individual]))
            for crash in result.crashes
        ]
        self._close(shard)

    def failed(self, shard: Shard, reason: str) -> None:
        """A shard did not come back: try again, halve it, or give its individual up."""
        shard = replace(shard, failures=shard.failures + 1, reason=reason)
        if shard.failures < ATTEMPTS:
            self.waiting.append(shard)
        elif len(shard.indices) > 1:
            self.waiting.extend(shard.halves())
        else:
            self._give_up(shard)
            return
        self.retries += 1

    def _give_up(self, shard: Shard) -> None:
        self._returns[shard.indices] = -np.inf
        message = f"given up after {shard.failures} attempts: {shard.reason}"
        individual = int(shard.indices[0])
        self._crashes += [Crash(individual, seed, 0, message) for seed in self.seeds.tolist()]
        self._close(shard)

    def _close(self, shard: Shard) -> None:
        self._open -= len(shard.indices)
        if self.progress is not None:
            episodes, total = len(self.seeds), self._returns.size
            self.progress(total - self._open * episodes, total)

    def result(self) -> Evaluation:
        """The whole population's evaluation, crashes in order of individual."""
        assert self.finished
        return Evaluation(
            returns=self._returns,
            lengths=self._lengths,
            steps=self._steps,
            retries=self.retries,
            crashes=tuple(sorted(self._crashes, key=lambda crash: crash.individual)),
        )
