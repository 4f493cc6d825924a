"""A genetic algorithm that starts over with fresh founders once it has fallen and not come back.

The control for environments that switch: a restart keeps nothing of what was learnt before. Where
fitness is noisy it also starts over without a change, after a lucky generation.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from srghn.config import Params, RunParams
from srghn.envs.interface import Interface
from srghn.evolution.base import F32, F64, NO_PARENT, Encoding, Population
from srghn.evolution.direct import Direct, PolicyWeights
from srghn.evolution.genetic import Genetic, GeneticState
from srghn.evolution.options import options
from srghn.evolution.selection import clean
from srghn.seeding import seed as named_seed


class RestartOptions(Params):
    sigma: float = Field(0.3, gt=0, description="standard deviation of the mutation")
    patience: int = Field(
        10,
        ge=1,
        description="generations below the best since the last start before it starts again",
    )


@dataclass(frozen=True)
class RestartState(GeneticState):
    """best   the best fitness of any generation since the last start
    below  generations in a row whose best was less than that
    """

    best: float
    below: int


@dataclass(frozen=True)
class Restart:
    """A `Genetic` and the rule that ends it."""

    genetic: Genetic
    patience: int

    name = "restart"
    state_type = RestartState

    @property
    def encoding(self) -> Encoding:
        return self.genetic.encoding

    @property
    def digest(self) -> str:
        return self.genetic.digest

    @property
    def node_names(self) -> tuple[str, ...]:
        return self.genetic.node_names

    def init(self, seed: int, genome: F32 | None = None, generation: int = 0) -> RestartState:
        first = self.genetic.init(seed, genome, generation)
        return RestartState(**vars(first), best=-np.inf, below=0)

    def ask(self, state: RestartState) -> Population:
        return self.genetic.ask(state)

    def tell(self, state: RestartState, population: Population, fitness: F64) -> RestartState:
        told = self.genetic.tell(state, population, fitness)
        best = float(clean(fitness).max())
        below = 0 if best >= state.best else state.below + 1
        if below < self.patience:
            return dataclasses.replace(told, best=max(best, state.best), below=below)
        again = self.genetic.init(named_seed(state.seed, "restart", told.generation))
        return dataclasses.replace(
            told,
            genomes=again.genomes,
            ids=again.ids + told.next_id,
            next_id=told.next_id + len(again.ids),
            parents=np.full(len(again.ids), NO_PARENT, dtype=np.int64),
            noise_seeds=again.noise_seeds,
            births=np.full(len(again.ids), told.generation, dtype=np.int64),
            rates=again.rates,
            best=-np.inf,
            below=0,
        )


def restart(params: RunParams, interface: Interface) -> Restart:
    chosen = options(RestartOptions, params.evolution)
    encoding = Direct("restart", PolicyWeights(params.network, interface), chosen.sigma)
    return Restart(Genetic("restart", encoding, params.evolution), chosen.patience)
