"""The works to measure: a world, a policy, and a half-evolved population."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from serving.settings import Settings
from srghn import seeding
from srghn.config import EnvParams, NetworkParams
from srghn.envs import EnvVersion, pin
from srghn.evaluation.base import Float32, Int64, WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.policies import build_policy

#: Random candidates for each individual of a population's better half.
CANDIDATES = 16


@dataclass(frozen=True)
class Work:
    """One row group of the table. Half of the population is random, half is the best of many."""

    name: str
    env: str
    individuals: int
    episodes: int
    network: NetworkParams
    kwargs: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def version(self) -> EnvVersion:
        return pin(EnvParams(id=self.env, kwargs=self.kwargs))

    @cached_property
    def seeds(self) -> Int64:
        return seeding.seeds(0, "bench", self.episodes, self.env)

    @cached_property
    def task(self) -> Task:
        """The bench's episodes in the first mode."""
        return Task(self.version, self.version.modes[0], self.seeds)

    @cached_property
    def population(self) -> WeightedPolicies:
        face = self.version.interface
        module = build_policy(self.network, face.observation_size, face.action_size)
        size = sum(parameter.numel() for parameter in module.parameters())
        half = self.individuals // 2
        found = _random(size, half * CANDIDATES, "candidates")
        with make_evaluator(Settings(), self.version, self.network) as evaluator:
            candidates = WeightedPolicies(self.network, face, found)
            first = Task(self.version, self.version.modes[0], self.seeds[:1])
            lengths = evaluator.evaluate(candidates, first).lengths
        best = np.argsort(-lengths[:, 0], kind="stable")[:half]
        weights = _random(size, self.individuals, "random")
        weights[1 : 2 * half : 2] = found[best]
        return WeightedPolicies(self.network, face, weights)


def _random(size: int, count: int, purpose: str) -> Float32:
    drawn = seeding.stream(0, purpose).standard_normal((count, size), dtype=np.float32)
    return drawn * np.float32(0.3)


def works(quick: bool) -> tuple[Work, ...]:
    """The table's works; `quick`: fewer works, and shorter episodes."""
    cut = {"max_episode_steps": 100} if quick else {}
    small, large = _mlp(32), _mlp(64)
    residual = NetworkParams(module="srghn.policies:ResidualMLP", kwargs={"width": 32, "blocks": 1})
    found = (
        Work("CartPole, P=64", "CartPole-v1", 64, 8, small),
        Work("CartPole, other module, P=64", "CartPole-v1", 64, 8, residual),
        Work("LunarLander, P=64", "LunarLander-v3", 64, 1, large, cut),
        Work("Ant, P=32", "Ant-v5", 32, 1, large, cut),
    )
    slow = (
        Work("CartPole, P=512", "CartPole-v1", 512, 8, small),
        Work("Acrobot (any other), P=64", "Acrobot-v1", 64, 1, small),
    )
    return found if quick else found + slow


def long_works() -> tuple[Work, ...]:
    """Populations that take more than a second even with two workers."""
    large = _mlp(64)
    return (
        Work("LunarLander, P=64, 256 episodes", "LunarLander-v3", 64, 256, large),
        Work("Ant, P=32, 6 episodes", "Ant-v5", 32, 6, large),
    )


def _mlp(width: int) -> NetworkParams:
    return NetworkParams(kwargs={"hidden": [width, width], "activation": "tanh"})
