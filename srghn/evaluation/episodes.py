"""Episodes in lanes, for backends that step many worlds by themselves.

What is the same in all of them: which episode a lane plays, when it ends, what it earned. A lane
whose episode ends takes the next one, so no step is spent on a finished episode.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn.evaluation.base import Crash, Evaluation, Float32, Float64, Int64, Progress
from srghn.evaluation.policies.forward import IDLE, Forward

Mask = NDArray[np.bool_]


class Episodes(ABC):
    """One call's episodes; number `i` is individual `i // e` on seed `i % e`, e = len(seeds)."""

    def __init__(self, forward: Forward, individuals: int, seeds: Int64, limit: int) -> None:
        self.forward, self.seeds, self.limit = forward, seeds, limit
        count, lanes = individuals * len(seeds), len(forward.who)
        self.shape = (individuals, len(seeds))
        self.returns = np.zeros(count, dtype=np.float64)
        self.lengths = np.zeros(count, dtype=np.int64)
        self.episode = np.full(lanes, IDLE, dtype=np.int64)
        self._crashes: list[Crash] = []
        self._upcoming = self._done = 0

    @abstractmethod
    def begin(self, lane: int, seed: int) -> None:
        """Reset a lane's world with that number in `seeds` (0 to e - 1)."""

    @abstractmethod
    def observe(self) -> Float32:
        """Observations of all lanes, (lanes, size), until the next `begin` or `advance`.

        An idle lane's mean nothing, and are no NaN.
        """

    @abstractmethod
    def advance(self, actions: NDArray[Any], running: Int64) -> tuple[Float64, Mask]:
        """One step of the running lanes (r,): their rewards (r,), and whether they ended (r,)."""

    def run(self, progress: Progress | None) -> Evaluation:
        """Play all of them."""
        for lane in range(len(self.episode)):
            self._next(lane)
        observations = self.observe()
        while (running := self.forward.used()).size:
            observations = self._step(observations, running, progress)
        return Evaluation(
            returns=self.returns.reshape(self.shape),
            lengths=self.lengths.reshape(self.shape),
            steps=int(self.lengths.sum()),
            crashes=tuple(sorted(self._crashes, key=lambda c: (c.individual, c.seed))),
        )

    def _step(self, before: Float32, running: Int64, progress: Progress | None) -> Float32:
        actions, failed = self.forward(before)
        # a policy without an answer takes no step
        acting = running[~np.isin(running, list(failed))] if failed else running
        if acting.size:
            rewards, ended = self.advance(actions, acting)
            playing = self.episode[acting]
            totals, lengths = self.returns[playing] + rewards, self.lengths[playing] + 1
            self.returns[playing], self.lengths[playing] = totals, lengths
            after, ended = self.observe(), ended | (lengths >= self.limit)
            if np.isnan(after.max()) or not np.isfinite(totals).all():
                nan = np.isnan(after[acting]).any(axis=1)
                for k in np.flatnonzero(nan | ~np.isfinite(totals)).tolist():
                    known = math.isfinite(totals[k])
                    failed[int(acting[k])] = (
                        "an observation is NaN" if known else f"the return became {totals[k]}"
                    )
            over = {*acting[ended].tolist(), *failed}
        else:
            after, over = before, set(failed)
        if not over:
            return after
        for lane in sorted(over):
            self._finish(lane, failed.get(lane))
            self._next(lane)
        if progress is not None:
            progress(self._done, len(self.returns))
        return self.observe()

    def _finish(self, lane: int, failure: str | None) -> None:
        episode = int(self.episode[lane])
        self._done += 1
        if failure is not None:
            individual, k = divmod(episode, len(self.seeds))
            step = int(self.lengths[episode])
            self.returns[episode] = -np.inf
            self._crashes.append(Crash(individual, int(self.seeds[k]), step, failure))

    def _next(self, lane: int) -> None:
        """Start the next waiting episode in this lane, or leave the lane idle."""
        if self._upcoming == len(self.returns):
            self.episode[lane] = IDLE
            self.forward.assign(lane, IDLE)
            return
        individual, k = divmod(self._upcoming, len(self.seeds))
        self.episode[lane] = self._upcoming
        self._upcoming += 1
        self.forward.assign(lane, individual)
        self.begin(lane, k)
