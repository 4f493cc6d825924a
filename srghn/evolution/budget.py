"""Budgets: what ends a run before its last generation, and the record that it did.

Evaluations and a validated return depend on seeds alone, so they end a run in the same generation
wherever it is played. A time does not: the record says after how many generations it ended, and a
run of so many generations has the same lineage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from srghn import seeding
from srghn.config import RunParams
from srghn.envs.version import EnvVersion
from srghn.evaluation.base import Evaluator, Policies
from srghn.evaluation.task import Task
from srghn.evolution.base import Population
from srghn.evolution.ending import EVALUATIONS, SECONDS, UNTIL, End
from srghn.evolution.metrics import GenerationRecord
from srghn.evolution.selection import clean


@dataclass(frozen=True)
class Budget:
    """The budgets of `params.evolution`, asked after every generation.

    `policies` gives those of some individuals, of each network that the run evolves.
    """

    params: RunParams
    version: EnvVersion
    evaluator: Evaluator
    policies: Callable[[Population], Policies]

    def spent(
        self, done: int, population: Population, record: GenerationRecord, seconds: float
    ) -> End | None:
        """Why the run ends with this generation; None if it continues."""
        evolution = self.params.evolution
        if evolution.until is not None and record.best >= evolution.until:
            end = self._validated(done, population, record)
            if end.validated is not None and end.validated >= evolution.until:
                return end
        if evolution.evaluations is not None and record.evaluations >= evolution.evaluations:
            return End(done, EVALUATIONS)
        if evolution.seconds is not None and seconds >= evolution.seconds:
            return End(done, SECONDS)
        return None

    def _validated(self, done: int, population: Population, record: GenerationRecord) -> End:
        """The generation's best on seeds of their own: its fitness is the best of many."""
        evolution, best = self.params.evolution, int(np.argmax(record.fitness))
        count = evolution.until_episodes
        seeds = seeding.seeds(evolution.seed, "until", count, record.generation)
        policies = self.policies(population.take(np.array([best])))
        played = self.evaluator.evaluate(policies, Task(self.version, record.mode, seeds))
        mean = float(clean(played.fitness)[0])
        return End(done, UNTIL, mean, count, int(population.ids[best]))
