"""One run of srghn until it has solved the goal or used its CPU-seconds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.lab.bench.solve.goals import Goal
from srghn import seeding
from srghn.config import EngineSettings, RunParams, parse_params
from srghn.envs import EnvVersion, pin
from srghn.evaluation.base import Evaluation, Evaluator, Progress, WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution import GenerationRecord, evolve

#: Fresh episodes over which the mean must reach the bar.
EPISODES = 100


@dataclass(frozen=True)
class Attempt:
    """A run. `score`: mean return of the last test, NaN without one; `solved`: within the limit.

    `cpu_seconds` and `steps` leave out the benchmark's own tests. `settings` tells runs with other
    settings or another limit apart.
    """

    env: str
    contestant: str
    seed: int
    solved: bool
    cpu_seconds: float
    steps: int
    score: float
    settings: str = ""


class _Judge(Evaluator):
    """Evaluates for the run, and tests a generation's best if its own episodes reach the bar."""

    def __init__(
        self, inner: Evaluator, goal: Goal, params: RunParams, version: EnvVersion, limit: float,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.inner, self.goal, self.params, self.version = inner, goal, params, version
        self.limit, self.clock, self.begun = limit, clock, clock()
        self.champion: Any = None
        self.solved, self.score, self.steps = False, float("nan"), 0

    @property
    def spent(self) -> float:
        return self.clock() - self.begun

    def evaluate(self, policies: Any, task: Task, progress: Progress | None = None) -> Evaluation:
        played = self.inner.evaluate(policies, task, progress)
        best = int(np.argmax(np.nan_to_num(played.fitness, nan=-np.inf)))
        self.champion = policies.dense()[best : best + 1]
        return played

    def describe(self) -> str:
        return self.inner.describe()

    def stop(self, record: GenerationRecord) -> bool:
        self.steps = record.steps
        if record.best >= self.goal.bar:
            before = self.clock()
            self.score = self._test(record.generation)
            self.solved = self.score >= self.goal.bar
            self.begun += self.clock() - before
        return self.solved or self.spent >= self.limit

    def _test(self, generation: int) -> float:
        seeds = seeding.seeds(self.params.evolution.seed, "solve-test", EPISODES, generation)
        policies = WeightedPolicies(self.params.network, self.version.interface, self.champion)
        task = Task(self.version, self.version.modes[0], seeds)
        return float(self.inner.evaluate(policies, task).fitness[0])


def attempt(
    goal: Goal,
    strategy: str,
    seed: int,
    limit: float,
    clock: Callable[[], float] = time.process_time,
) -> Attempt:
    """Evolve until solved, at most `limit` CPU-seconds; compiling beforehand is not counted."""
    params = parse_params(goal.params(strategy, seed), f"bench solve {goal.env}")
    version = pin(params.env)
    with (
        make_evaluator(EngineSettings(), version, params.network) as inner,
        tempfile.TemporaryDirectory() as folder,
    ):
        once = params.evolution.model_copy(update={"generations": 1})
        warm = params.model_copy(update={"evolution": once})
        evolve(warm, version, inner, Path(folder) / "warm")
        judge = _Judge(inner, goal, params, version, limit, clock)
        evolve(params, version, judge, Path(folder) / "run", stop=judge.stop)
        spent = judge.spent
    return Attempt(goal.env, strategy, seed, judge.solved, spent, judge.steps, judge.score)
