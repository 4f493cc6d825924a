"""One run of srghn until it has solved the goal or used its CPU-seconds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.lab.bench.solve.goals import Goal
from srghn import seeding
from srghn.config import EngineSettings, RunParams, parse_params
from srghn.envs import EnvVersion, pin
from srghn.evaluation.base import Evaluator, WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution import GenerationRecord, evolve
from srghn.evolution.base import Population

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


class _Judge:
    """Tests a generation's best if its own episodes reach the bar."""

    def __init__(
        self, inner: Evaluator, goal: Goal, params: RunParams, version: EnvVersion, limit: float,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.inner, self.goal, self.params, self.version = inner, goal, params, version
        self.limit, self.clock, self.begun = limit, clock, clock()
        self.solved, self.score, self.steps = False, float("nan"), 0

    @property
    def spent(self) -> float:
        return self.clock() - self.begun

    def heard(self, record: GenerationRecord, champion: Population) -> None:
        self.steps = record.steps
        if record.best >= self.goal.bar:
            before = self.clock()
            self.score = self._test(record.generation, champion)
            self.solved = self.score >= self.goal.bar
            self.begun += self.clock() - before

    def over(self, record: GenerationRecord) -> bool:
        return self.solved or self.spent >= self.limit

    def _test(self, generation: int, champion: Population) -> float:
        seeds = seeding.seeds(self.params.evolution.seed, "solve-test", EPISODES, generation)
        network, face = self.params.network, self.version.interface
        policies = WeightedPolicies(network, face, champion.weights)
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
        run = Path(folder) / "run"
        evolve(params, version, inner, run, on_champion=judge.heard, stop=judge.over)
        spent = judge.spent
    return Attempt(goal.env, strategy, seed, judge.solved, spent, judge.steps, judge.score)
