"""Racing: everyone plays a few episodes, and only the better part plays the rest.

One round of successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) over the episodes of
a generation. Who goes on depends on returns alone, so it is the same on any number of workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

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
    they had, but less than anyone's who did.
    """
    first = evaluator.evaluate(policies, replace(task, seeds=task.seeds[: heats.first]))
    before = clean(first.fitness)
    last = np.sort(before)[::-1][max(math.ceil(heats.share * len(before)), 1) - 1]
    rows = np.flatnonzero(before >= last)
    rest = evaluator.evaluate(policies.part(rows), replace(task, seeds=task.seeds[heats.first :]))
    played = _joined(first, rest, rows)
    fitness = before.copy()
    fitness[rows] = clean(played.returns[rows].mean(axis=1))
    out = np.setdiff1d(np.arange(len(before)), rows)
    fitness[out] = np.minimum(before[out], np.nextafter(fitness[rows].min(), -np.inf))
    return played, fitness


def _joined(first: Evaluation, rest: Evaluation, rows: Int64) -> Evaluation:
    """Both as one: returns NaN and lengths 0 for the episodes that were not played."""
    heats, episodes = first.returns.shape[1], first.returns.shape[1] + rest.returns.shape[1]
    returns = np.full((len(first.returns), episodes), np.nan)
    lengths = np.zeros(returns.shape, dtype=np.int64)
    returns[:, :heats], lengths[:, :heats] = first.returns, first.lengths
    returns[rows, heats:], lengths[rows, heats:] = rest.returns, rest.lengths
    later = tuple(replace(crash, individual=int(rows[crash.individual])) for crash in rest.crashes)
    return Evaluation(
        returns=returns,
        lengths=lengths,
        steps=first.steps + rest.steps,
        retries=first.retries + rest.retries,
        crashes=(*first.crashes, *later),
    )
