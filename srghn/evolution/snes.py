"""Separable natural evolution strategy (Wierstra et al. 2014, JMLR 15, 'SNES', table 1).

A Gaussian over the policy's weights with a step size for each, moved by the ranks of its samples.
The mean is played, too, as row 0, so that it can be a champion; it takes no part in the update.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

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

#: Steps stay within these, in which float32 can still tell a sample from the mean.
LEAST, MOST = 1e-12, 1e6


class SNESOptions(Params):
    sigma: float = Field(0.5, gt=0, description="initial step size")
    mean_rate: float = Field(1.0, gt=0, description="learning rate of the mean")
    sigma_rate: float = Field(
        0.0,
        ge=0,
        description="learning rate of the step sizes; 0: (3 + ln weights) / (5 sqrt weights)",
    )


@dataclass(frozen=True)
class SNESState(State):
    """mean (P,) and step sizes (P,), float64."""

    mean: F64
    sigma: F64


@dataclass(frozen=True)
class SNES:
    layout: PolicyWeights
    options: SNESOptions
    samples: int

    name = "snes"
    state_type = SNESState
    node_names = ("sigma",)
    encoding = None

    @property
    def digest(self) -> str:
        return self.layout.digest(self.name)

    def init(self, seed: int, genome: F32 | None = None, generation: int = 0) -> SNESState:
        mean = self.layout.start(seed, genome).astype(np.float64)
        return SNESState(seed, generation, 0, mean, np.full_like(mean, self.options.sigma))

    def ask(self, state: SNESState) -> Population:
        noise = self._noise(state)
        weights = state.mean + state.sigma * np.concatenate([np.zeros_like(noise[:1]), noise])
        return drawn(state, weights.astype(np.float32), float(np.median(state.sigma)))

    def _noise(self, state: SNESState) -> F64:
        seed = seeding.seed(state.seed, "birth", state.generation)
        flat = normal([seed], self.samples * self.layout.size)[0]
        noise: F64 = flat.reshape(self.samples, -1).astype(np.float64)
        return noise

    @one_thread()
    def tell(self, state: SNESState, population: Population, fitness: F64) -> SNESState:
        check_told(population, fitness)
        noise, worth = self._noise(state), utilities(fitness[1:])
        size = self.layout.size
        rate = self.options.sigma_rate or (3 + math.log(size)) / (5 * math.sqrt(size))
        growth = np.exp(0.5 * rate * (worth @ (noise**2 - 1)))
        return dataclasses.replace(
            state,
            generation=state.generation + 1,
            next_id=state.next_id + len(population),
            mean=state.mean + self.options.mean_rate * state.sigma * (worth @ noise),
            sigma=np.clip(state.sigma * growth, LEAST, MOST),
        )


def utilities(fitness: F64) -> F64:
    """Weights (n,) by rank that sum to 0: the better half counts, logarithmically.

    Equals share the mean of their weights, so that a plateau moves nothing.
    """
    count = len(fitness)
    raw = np.maximum(0.0, math.log(count / 2 + 1) - np.log(np.arange(1, count + 1)))
    by_rank = raw / raw.sum() - 1 / count
    _, group, counts = np.unique(-clean(fitness), return_inverse=True, return_counts=True)
    ends = np.concatenate([[0.0], np.cumsum(by_rank)])
    stops = np.cumsum(counts)
    shared: F64 = ((ends[stops] - ends[stops - counts]) / counts)[group]
    return shared


def snes(params: RunParams, interface: Interface) -> SNES:
    """Plays `parents * (1 + children)` individuals: the mean and its samples, two at least."""
    chosen = options(SNESOptions, params.evolution)
    samples = max(params.evolution.parents * (1 + params.evolution.children) - 1, 2)
    return SNES(PolicyWeights(params.network, interface), chosen, samples)
