"""One run of srghn until it has solved the goal or used its CPU-seconds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.lab.bench.solve.goals import Goal
from pipelines.lab.bench.solve.watch import FAR, FIRST
from srghn import seeding
from srghn.config import EngineSettings, RunParams, parse_params
from srghn.envs import EnvVersion, pin
from srghn.evaluation.base import Evaluator, WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution import GenerationRecord, evolve
from srghn.evolution.base import F64, I64, Population

#: Fresh episodes over which the mean must reach the bar.
EPISODES = 100


@dataclass(frozen=True)
class Attempt:
    """A run. `score`: mean return of the last test, NaN without one; `solved`: within the limit.

    `cpu_seconds` and `steps` leave out the benchmark's own tests. Both are up to the end of the
    run, and `cpu_seconds` is NaN where a peer's program failed. `settings` tells runs with other
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


class _Judge:
    """Tests a generation's best if its own episodes reach the bar."""

    def __init__(
        self, inner: Evaluator, goal: Goal, params: RunParams, version: EnvVersion, limit: float,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.inner, self.goal, self.params, self.version = inner, goal, params, version
        self.limit, self.clock, self.begun = limit, clock, clock()
        self.solved, self.score, self.steps, self.spent = False, float("nan"), 0, 0.0

    def heard(self, record: GenerationRecord, champion: Population) -> None:
        self.steps, self.spent = record.steps, self.clock() - self.begun
        if record.best >= self.goal.bar and self.spent < self.limit:
            self.score = self._test(record.generation, champion)
            self.solved = self.score >= self.goal.bar
            self.begun = self.clock() - self.spent

    def over(self, record: GenerationRecord) -> bool:
        return self.solved or self.spent >= self.limit

    def _test(self, generation: int, champion: Population) -> float:
        """The mean return over fresh episodes, or of the first ones if these are far below."""
        seeds = seeding.seeds(self.params.evolution.seed, "solve-test", EPISODES, generation)
        first = self._returns(seeds[:FIRST], champion)
        if first.mean() < self.goal.bar - FAR * abs(self.goal.bar):
            return float(first.mean())
        return float(np.append(first, self._returns(seeds[FIRST:], champion)).mean())

    def _returns(self, seeds: I64, champion: Population) -> F64:
        face = self.version.interface
        policies = WeightedPolicies(self.params.network, face, champion.weights)
        task = Task(self.version, self.version.modes[0], seeds)
        returns: F64 = self.inner.evaluate(policies, task).returns[0]
        return returns


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
        run = Path(folder) / "run"
        evolve(params, version, inner, run, on_champion=judge.heard, stop=judge.over)
    return Attempt(goal.env, strategy, seed, judge.solved, judge.spent, judge.steps, judge.score)
