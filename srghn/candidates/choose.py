"""Which finalist of a run becomes its candidate.

Fitness in training is the best of many and so too good: the winner's curse. Finalists are played
again on fresh seeds, and both the choice and the candidate's record rest on those episodes. That
record is optimistic, too, though less so: it is the best of a few. The gate plays other episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srghn import seeding
from srghn.config import EvaluateParams
from srghn.envs import Perturbation, default_cells
from srghn.errors import EvaluationError, expect, expect_function
from srghn.evaluation.base import Crash, Evaluator, WeightedPolicies
from srghn.evaluation.task import Task
from srghn.evolution.run import Run
from srghn.notebook import card

#: Called with (evaluations done, evaluations planned, a note).
Progress = Callable[[int, int, str], None]


class Place(Protocol):
    """A harder world that finalists are tried in; `name` is part of the seed of its episodes."""

    @property
    def name(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def perturbation(self) -> Perturbation | None: ...


@dataclass(frozen=True)
class _Default:
    name: str
    mode: str
    perturbation: Perturbation | None


@dataclass(frozen=True)
class Choice:
    """Row `row` of a run's finalists, chosen by `rules`.

    `validation` holds its mean return over `episodes` fresh episodes and, where cells were played,
    the mean return of its worst cell, unless it crashed in one; the names of cells that were given,
    too. The episodes are those of the choice, so these means are optimistic: each is about the best
    of `rules.finalists`. For an unbiased one, play the candidate (`srghn.play_candidate`).
    """

    row: int
    validation: Mapping[str, Any]
    rules: EvaluateParams

    def _repr_html_(self) -> str:
        rows = {
            "row of the finalists": self.row,
            "mean return, optimistic": float(self.validation["mean"]),
            "worst cell, optimistic": self.validation.get("worst_cell"),
            "fresh episodes": self.validation["episodes"],
            "the best of at most": f"{self.rules.finalists} finalists",
        }
        return card("Choice", rows)


def choose_finalist(
    run: Run,
    evaluator: Evaluator,
    rules: EvaluateParams | None = None,
    progress: Progress | None = None,
    cells: Sequence[Place] | None = None,
) -> Choice:
    """The finalist with the best mean return on fresh seeds; among equals, the best worst cell.

    `rules` says how many finalists and episodes, and what counts as equal (default
    `EvaluateParams()`). `cells` are those that the gate will judge in, default the environment's
    own, on other seeds. The seeds come from the run's root seed and, where it continues a
    candidate, its last generation: the same run always gives the same choice, and no two runs of a
    lineage choose on the same episodes. Raises `EvaluationError` where every finalist crashes on
    the fresh seeds.
    """
    expect(run, Run, "run", "srghn.load_run reads one")
    expect_function(progress, "choose_finalist: progress")
    rules = rules or EvaluateParams()
    cells = cells if rules.cell_episodes else ()
    places = _own(run) if cells is None else cells
    count = min(rules.finalists, len(run.finalists))
    weights = run.finalists.take(np.arange(count)).weights
    mean, worst, crash = _play(run, weights, evaluator, rules, places, progress)
    if not np.isfinite(mean.max()):
        raise EvaluationError(
            f"each of {count} finalists crashed in one of its {rules.episodes} fresh episodes"
            + _told(crash)
        )
    equals = np.flatnonzero(mean >= mean.max() - rules.tolerance * abs(mean.max()))
    # where all crashed in some cell, the mean decides
    best = int(max(equals, key=lambda row: (worst[row], mean[row] * np.isneginf(worst[row]))))
    record: dict[str, Any] = {"mean": float(mean[best]), "episodes": rules.episodes}
    if places and np.isfinite(worst[best]):
        record["worst_cell"] = float(worst[best])
    if cells:
        record["cells"] = [cell.name for cell in cells]
    return Choice(best, record, rules)


def _own(run: Run) -> Sequence[Place]:
    return [_Default(str(cell), run.mode, cell) for cell in default_cells(run.version)]


def _play(
    run: Run,
    weights: NDArray[np.float32],
    evaluator: Evaluator,
    rules: EvaluateParams,
    places: Sequence[Place],
    progress: Progress | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], Crash | None]:
    """Mean returns (finalists,) on nominal episodes and in each one's worst place.

    Last, the first crash on nominal episodes; None without one.
    """
    tell = progress or (lambda done, total, note: None)
    root, version, mode = run.params.evolution.seed, run.version, run.mode
    policies = WeightedPolicies(run.params.network, version.interface, weights)
    # the ancestor was chosen on the episodes of a first run
    later = () if run.params.evolution.ancestor is None else (run.generation,)
    seeds = seeding.seeds(root, "finalist", rules.episodes, *later)
    nominal = evaluator.evaluate(policies, Task(version, mode, seeds))
    mean = nominal.fitness
    tell(1, 1 + len(places), f"best {mean.max():.1f}")
    worst = np.full(len(weights), np.inf)
    for index, place in enumerate(places):
        episodes = seeding.seeds(root, "finalist-cell", rules.cell_episodes, place.name, *later)
        task = Task(version, place.mode, episodes, place.perturbation)
        played = evaluator.evaluate(policies, task)
        worst = np.minimum(worst, played.fitness)
        tell(2 + index, 1 + len(places), place.name)
    return mean, worst, next(iter(nominal.crashes), None)


def _told(crash: Crash | None) -> str:
    """A crash in words that end a message, in one line."""
    if crash is None:
        return ""
    said = " ".join(crash.message.split())
    return f"; the first: seed {crash.seed}, step {crash.step}: {said}"
