"""Racing: everyone plays a few episodes, and only the better part plays the rest.

One round of successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) over the episodes of
a generation. Who goes on depends on returns alone, so it is the same on any number of workers. Not
in the paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn.evaluation.base import (
    Evaluation,
    Evaluator,
    Int64,
    SeveralPolicies,
    WeightedPolicies,
)
from srghn.evaluation.task import Task
from srghn.evolution.base import F64
from srghn.evolution.selection import clean


@dataclass(frozen=True)
class Heats:
    """`first` episodes for all, then the others for the best `share` of individuals."""

    first: int
    share: float


def race(
    evaluator: Evaluator, policies: WeightedPolicies | SeveralPolicies, task: Task, heats: Heats
) -> tuple[Evaluation, F64]:
    """What was played, NaN where an episode was not, and fitness (n,).

    All who are as good as the last one to go on go on, too. Of those who do not, fitness is what
    they had, but less than anyone's who did and did not crash.
    """
    first = evaluator.evaluate(policies, replace(task, seeds=task.seeds[: heats.first]))
    before = clean(first.fitness)
    on = max(math.ceil(heats.share * len(before) - 1e-9), 1)  # 0.07 of 100 is 7, in floats more
    last = np.sort(before)[::-1][on - 1]
    rows = np.flatnonzero(before >= last)
    rest = evaluator.evaluate(policies.part(rows), replace(task, seeds=task.seeds[heats.first :]))
    networks = len(policies.parts) if isinstance(policies, SeveralPolicies) else 1
    played = _joined(first, rest, rows, networks)
    fitness = before.copy()
    fitness[rows] = clean(played.returns[rows].mean(axis=1))
    finite = fitness[rows][np.isfinite(fitness[rows])]
    if len(finite):
        out = np.setdiff1d(np.arange(len(before)), rows)
        fitness[out] = np.minimum(before[out], np.nextafter(finite.min(), -np.inf))
    return played, fitness


def _joined(first: Evaluation, rest: Evaluation, rows: Int64, networks: int) -> Evaluation:
    """Both as one, the episodes of each network in turn.

    Returns are NaN and lengths 0 for the episodes that were not played.
    """

    def whole(early: NDArray[Any], late: NDArray[Any], unplayed: float) -> NDArray[Any]:
        early, late = (a.reshape(len(a), networks, -1) for a in (early, late))
        filled = np.full((len(early), *late.shape[1:]), unplayed, dtype=early.dtype)
        filled[rows] = late
        return np.concatenate([early, filled], axis=2).reshape(len(early), -1)

    later = tuple(replace(crash, individual=int(rows[crash.individual])) for crash in rest.crashes)
    return Evaluation(
        returns=whole(first.returns, rest.returns, np.nan),
        lengths=whole(first.lengths, rest.lengths, 0),
        steps=first.steps + rest.steps,
        retries=first.retries + rest.retries,
        crashes=(*first.crashes, *later),
    )
