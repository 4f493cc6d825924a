"""Plays until it knows: cells in batches, each until its checks are decided or its budget is spent.

What decided cells saved goes to those that are undecided. That is sound because every bound holds
at every moment at once: a cell may stop, or go on, for any reason that does not look ahead.
Within a batch, arms and seeds start in a random order drawn from the gate's own stream, so a world
that changes while it is played changes for both arms alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from regression_suite.episodes import Int, Played, Progress, Recorder
from regression_suite.suite import Cell
from srghn import seeding
from srghn.envs import EnvVersion
from srghn.evaluation.base import Evaluator, PolicyFunction
from srghn.evaluation.task import Task

#: Paired episodes between two looks; two arms of them fit the lanes of a backend.
BATCH = 50
#: (episodes of a cell, whether all that is planned was played) -> whether it is decided.
Decided = Callable[[Played, bool], bool]


def distinct_seeds(root: int, cell: str, count: int) -> Int:
    """A cell's first `count` seeds (count,) from `root`, no two alike.

    Among 600 draws in [0, 2**31) two are alike once in 12,000 cells: a seed that was drawn before
    is passed over.
    """
    drawn = count
    while True:
        found = seeding.seeds(root, "gate", drawn, cell)
        places = np.sort(np.unique(found, return_index=True)[1])
        if len(places) == count:
            return found[places]
        drawn += count - len(places)


class Arena:
    """Candidate and incumbent, if there is one, in one pinned version; seeds from `root`."""

    def __init__(
        self,
        candidate: PolicyFunction,
        incumbent: PolicyFunction | None,
        version: EnvVersion,
        evaluator: Evaluator,
        root: int,
    ) -> None:
        self.recorder = Recorder(candidate)
        self._players = [candidate] if incumbent is None else [candidate, incumbent]
        self._version, self._evaluator, self._root = version, evaluator, root

    def play(
        self, cells: Sequence[Cell], decided: Decided, progress: Progress | None = None
    ) -> tuple[Played, ...]:
        """Every cell's episodes, the primary cell's first."""
        planned = sum(cell.episodes for cell in cells)
        results: list[Played] = []
        for cell in cells:
            results.append(self._play_cell(cell, decided))
            if progress is not None:
                progress(sum(map(len, results)), planned, cell.name)
        self._spend(results, decided, progress, planned)
        if progress is not None:
            progress(planned, planned, "all cells")
        return tuple(results)

    def batch(self, cell: Cell, first: int, count: int) -> Played:
        """`count` paired episodes of a cell, from its seed number `first` on."""
        seeds = distinct_seeds(self._root, cell.name, first + count)[first:]
        players = [self.recorder if cell.kind == "primary" else self._players[0]]
        players += self._players[1:]
        order = seeding.stream(self._root, "order", cell.name, first)
        shuffled = order.permutation(len(players) * count)
        task = Task(self._version, cell.mode, seeds, cell.perturbation, shuffled)
        found = self._evaluator.evaluate(players, task)
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

    def _play_cell(self, cell: Cell, decided: Decided) -> Played:
        played = self.batch(cell, 0, min(BATCH, cell.episodes))
        while len(played) < cell.episodes and not decided(played, False):
            played = self._more(played, cell.episodes - len(played))
        return played

    def _more(self, played: Played, most: int) -> Played:
        return played.plus(self.batch(played.cell, len(played), min(BATCH, most)))

    def _spend(
        self,
        results: list[Played],
        decided: Decided,
        progress: Progress | None,
        planned: int,
    ) -> None:
        """Play what binding cells saved, a batch at a time, in those that are undecided."""
        saved = sum(p.cell.episodes - len(p) for p in results if p.cell.binding)
        open_ = [i for i, p in enumerate(results) if p.cell.binding and not decided(p, True)]
        while saved > 0 and open_:
            for index in open_:
                before = len(results[index])
                if saved > 0:
                    results[index] = self._more(results[index], saved)
                saved -= len(results[index]) - before
            open_ = [i for i in open_ if not decided(results[i], True)]
            if progress is not None:
                progress(sum(map(len, results)), planned, "undecided cells")
