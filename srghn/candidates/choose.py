"""Which finalist of a run becomes its candidate.

Fitness in training is the best of many and so too good: the winner's curse. Finalists are played
again on fresh seeds, and both the choice and the candidate's record rest on those episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn import seeding
from srghn.config import EvaluateParams
from srghn.envs import default_cells
from srghn.evaluation.base import Evaluator, WeightedPolicies
from srghn.evaluation.task import Task
from srghn.evolution.run import Run

#: Called with (evaluations done, evaluations planned, a note).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Choice:
    """Row `row` of a run's finalists, chosen by `rules`.

    `validation` holds its mean return over `episodes` fresh episodes and, where cells were played,
    the mean return of its worst perturbed cell.
    """

    row: int
    validation: Mapping[str, Any]
    rules: EvaluateParams


def choose_finalist(
    run: Run,
    evaluator: Evaluator,
    rules: EvaluateParams | None = None,
    progress: Progress | None = None,
) -> Choice:
    """The finalist with the best mean return on fresh seeds; among equals, the best worst cell.

    `rules` says how many finalists and episodes, and what counts as equal (default
    `EvaluateParams()`). The perturbed cells are those of the gate on other seeds. The seeds come
    from the run's root seed, so the same run always gives the same choice.
    """
    rules = rules or EvaluateParams()
    count = min(rules.finalists, len(run.finalists))
    weights = run.finalists.take(np.arange(count)).weights
    mean, worst = _play(run, weights, evaluator, rules, progress)
    equals = mean >= mean.max() - rules.tolerance * abs(mean.max())
    best = int(np.argmax(np.where(equals, worst, -np.inf)))
    record: dict[str, Any] = {"mean": float(mean[best]), "episodes": rules.episodes}
    if rules.cell_episodes and default_cells(run.version):
        record["worst_cell"] = float(worst[best])
    return Choice(best, record, rules)


def _play(
    run: Run,
    weights: NDArray[np.float32],
    evaluator: Evaluator,
    rules: EvaluateParams,
    progress: Progress | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean returns (finalists,) on nominal episodes and in each one's worst perturbed cell."""
    tell = progress or (lambda done, total, note: None)
    root, version, mode = run.params.evolution.seed, run.version, run.mode
    policies = WeightedPolicies(run.params.network, version.interface, weights)
    cells = default_cells(version) if rules.cell_episodes else ()
    seeds = seeding.seeds(root, "finalist", rules.episodes)
    mean = evaluator.evaluate(policies, Task(version, mode, seeds)).fitness
    tell(1, 1 + len(cells), f"best {mean.max():.1f}")
    worst = np.full(len(weights), np.inf)
    for index, cell in enumerate(cells):
        episodes = seeding.seeds(root, "finalist-cell", rules.cell_episodes, str(cell))
        played = evaluator.evaluate(policies, Task(version, mode, episodes, cell))
        worst = np.minimum(worst, played.fitness)
        tell(2 + index, 1 + len(cells), str(cell))
    return mean, worst
