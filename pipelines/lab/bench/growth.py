"""Measures how a generation's time grows with population and policy, and its parts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from serving.settings import Settings
from srghn import seeding
from srghn.config import EnvParams, EvolutionParams, NetworkParams, RunParams
from srghn.envs import pin
from srghn.evaluation.base import (
    Evaluation,
    Evaluator,
    Int64,
    Policies,
    Progress,
    WeightedPolicies,
    make_evaluator,
)
from srghn.evaluation.task import Task
from srghn.evolution.loop import evolve
from srghn.evolution.registry import make_strategy

CHILDREN = 7
EPISODES = 8
ROUNDS = 30


@dataclass(frozen=True)
class Curve:
    """CPU-seconds of one generation over `sizes`, and the exponent of the growth at its end."""

    name: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Slope of log seconds over log size through the last three sizes."""
        x, y = np.log(self.sizes[-3:]), np.log(self.seconds[-3:])
        return float(np.polyfit(x, y, 1)[0])


def over_population(sizes: Sequence[int]) -> Curve:
    """One generation of CartPole-Switch, 8 episodes each, policy 4-8-2."""
    times = [_generation(size, 8) for size in sizes]
    return Curve("population size", tuple(sizes), tuple(times))


def over_policy(widths: Sequence[int]) -> Curve:
    """The same for 64 individuals, over the parameters of policies with one hidden layer."""
    times = [_generation(64, width) for width in widths]
    return Curve("policy parameters", tuple(7 * width + 2 for width in widths), tuple(times))


def _generation(population: int, width: int) -> float:
    """CPU-seconds of the fastest of many rounds of the same generation: ask, evaluate, tell."""
    params = _params(population, width, generations=1)
    version, best = pin(params.env), np.inf
    strategy, seeds = make_strategy(params, version.interface), seeding.seeds(0, "bench", EPISODES)
    state = strategy.init(0)
    with make_evaluator(Settings(), version, params.network) as evaluator:
        for round_ in range(ROUNDS + 1):
            begun = time.process_time()
            born = strategy.ask(state)
            policies = WeightedPolicies(params.network, version.interface, weights=born.weights)
            fitness = evaluator.evaluate(policies, Task(version, "normal", seeds)).fitness
            strategy.tell(state, born, fitness)
            if round_:  # the first one warms caches
                best = min(best, time.process_time() - begun)
    return best


def _params(population: int, width: int, generations: int) -> RunParams:
    return RunParams(
        env=EnvParams(id="CartPoleSwitch-v1"),
        network=NetworkParams(kwargs={"hidden": [width], "activation": "tanh"}),
        evolution=EvolutionParams(
            parents=population // (CHILDREN + 1),
            children=CHILDREN,
            episodes=EPISODES,
            generations=generations,
        ),
    )


@dataclass(frozen=True)
class Share:
    """The share of CPU time outside evaluation, overall and with episodes over 400 steps."""

    outside_evaluation: float
    outside_evaluation_when_long: float | None
    milliseconds_outside: float
    mean_steps: float


class _Timed(Evaluator):
    """Wraps an evaluator, and records the CPU time of each call and its episodes' lengths."""

    def __init__(self, inner: Evaluator) -> None:
        self.inner = inner
        self.seconds: list[float] = []
        self.lengths: list[Int64] = []

    def evaluate(
        self,
        policies: Policies,
        task: Task,
        progress: Progress | None = None,
    ) -> Evaluation:
        # births do not count as evaluation
        if isinstance(policies, WeightedPolicies) and policies.recipe is not None:
            policies = WeightedPolicies(policies.network, policies.interface, policies.dense())
        begun = time.process_time()
        found = self.inner.evaluate(policies, task, progress)
        self.seconds.append(time.process_time() - begun)
        self.lengths.append(found.lengths)
        return found

    def describe(self) -> str:
        return self.inner.describe()


def share_outside_evaluation(stretches: int) -> Share:
    """Births, selection and bookkeeping at 64 individuals, 8 episodes of up to 500 steps.

    It is measured in stretches of `checkpoint_every` generations, after one that is not measured.
    Each stretch begins when a part of the tables is due, so it includes a whole part and its
    checkpoint.
    """
    before = EvolutionParams().checkpoint_every
    params, ends = _params(64, 8, before * (1 + stretches)), list[float]()
    version = pin(params.env)
    with (
        make_evaluator(Settings(), version, params.network) as inner,
        TemporaryDirectory() as folder,
    ):
        # a first run imports and compiles everything, so that the measured one does not
        evolve(_params(64, 8, generations=1), version, inner, Path(folder) / "warm")
        timed = _Timed(inner)
        evolve(
            params, version, timed, Path(folder) / "run",
            on_generation=lambda _: ends.append(time.process_time()),
        )  # fmt: skip
    whole = np.diff(ends[before - 1 :])
    played = np.array(timed.seconds[before:])
    lengths = np.array([each.mean() for each in timed.lengths[before:]])
    long = lengths > 400
    return Share(
        outside_evaluation=1 - float(played.sum() / whole.sum()),
        outside_evaluation_when_long=(
            1 - float(played[long].sum() / whole[long].sum()) if long.any() else None
        ),
        milliseconds_outside=float((whole - played).mean() * 1e3),
        mean_steps=float(lengths.mean()),
    )
