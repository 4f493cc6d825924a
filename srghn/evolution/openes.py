"""OpenAI's evolution strategy (Salimans et al. 2017, arXiv:1703.03864) on the policy's weights.

Antithetic Gaussian noise, centered ranks, Adam or SGD with momentum, weight decay. The mean itself
is played too, as row 0, so that it can be a champion; it takes no part in the gradient.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from srghn import seeding
from srghn.config import Params, RunParams
from srghn.envs.interface import Interface
from srghn.evolution.base import F32, F64, Population, State, check_told
from srghn.evolution.direct import PolicyWeights, drawn, normal
from srghn.evolution.one_thread import one_thread
from srghn.evolution.options import options
from srghn.evolution.selection import clean

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Adam's usual constants (Kingma and Ba 2015)


class OpenESOptions(Params):
    sigma: float = Field(0.1, gt=0, description="standard deviation of the noise")
    learning_rate: float = Field(0.05, gt=0)
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(
        0.0, ge=0, lt=1, description="share by which the mean shrinks per step"
    )


@dataclass(frozen=True)
class OpenESState(State):
    """mean (P,), first and second moments (P,) of the gradient, steps taken."""

    mean: F32
    first: F32
    second: F32
    steps: int


@dataclass(frozen=True)
class OpenES:
    layout: PolicyWeights
    options: OpenESOptions
    pairs: int

    name = "openes"
    state_type = OpenESState
    node_names = ("sigma",)
    encoding = None

    @property
    def digest(self) -> str:
        return self.layout.digest(self.name)

    def init(self, seed: int, genome: F32 | None = None, generation: int = 0) -> OpenESState:
        mean = self.layout.start(seed, genome)
        zeros = np.zeros_like(mean)
        return OpenESState(seed, generation, 0, mean, zeros, zeros, 0)

    def ask(self, state: OpenESState) -> Population:
        """The mean, then `mean + sigma * noise` of every pair, then `mean - sigma * noise`."""
        seeds = [seeding.seed(state.seed, "birth", state.generation, i) for i in range(self.pairs)]
        step = np.float32(self.options.sigma) * normal(seeds, self.layout.size)
        weights = state.mean + np.concatenate([np.zeros_like(step[:1]), step, -step])
        return drawn(state, weights, self.options.sigma, [0, *seeds, *seeds])

    @one_thread()
    def tell(self, state: OpenESState, population: Population, fitness: F64) -> OpenESState:
        check_told(population, fitness)
        shaped = centered_ranks(fitness[1:])
        contrast = (shaped[: self.pairs] - shaped[self.pairs :]).astype(np.float32)
        noise = normal(population.noise_seeds[1 : self.pairs + 1], self.layout.size)
        gradient = contrast @ noise / np.float32(2 * self.pairs * self.options.sigma)
        step, first, second = self._optimise(state, gradient)
        keep = np.float32(1 - self.options.weight_decay)
        return dataclasses.replace(
            state,
            generation=state.generation + 1,
            next_id=state.next_id + len(population),
            mean=state.mean * keep + np.float32(self.options.learning_rate) * step,
            first=first,
            second=second,
            steps=state.steps + 1,
        )

    def _optimise(self, state: OpenESState, gradient: F32) -> tuple[F32, F32, F32]:
        """(direction to step in, first moment, second moment), each (P,)."""
        if self.options.optimizer == "sgd":
            first = np.float32(self.options.momentum) * state.first + gradient
            return first, first, state.second
        first = np.float32(BETA_1) * state.first + np.float32(1 - BETA_1) * gradient
        second = np.float32(BETA_2) * state.second + np.float32(1 - BETA_2) * gradient**2
        taken = state.steps + 1
        size = np.sqrt(second / np.float32(1 - BETA_2**taken)) + np.float32(EPSILON)
        return first / np.float32(1 - BETA_1**taken) / size, first, second


def centered_ranks(fitness: F64) -> F64:
    """Ranks scaled to [-0.5, 0.5], (n,); equals share the mean of their ranks.

    Differs from the paper's code, which ranks equals by row: on a plateau that is a gradient made
    of nothing.
    """
    cleaned = clean(fitness)
    _, group, counts = np.unique(cleaned, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    ranks: F64 = middle[group] / max(len(cleaned) - 1, 1) - 0.5
    return ranks


def openes(params: RunParams, interface: Interface) -> OpenES:
    """Plays as many individuals as `parents * (1 + children)` allows: the mean and whole pairs."""
    chosen = options(OpenESOptions, params.evolution)
    pairs = max((params.evolution.parents * (1 + params.evolution.children) - 1) // 2, 1)
    return OpenES(PolicyWeights(params.network, interface), chosen, pairs)
