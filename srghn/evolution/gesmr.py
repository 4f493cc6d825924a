"""Group elite selection of mutation rates (GESMR, Kumar et al. 2022, arXiv:2204.04817).

Children in groups, each with a step size of its own. A group's step size is judged by the best
change of fitness that it brought about, not by the mean one: a large step that mostly does harm
may be the one that leads on. Differs from the paper: the elites are evaluated again each generation
beside the children, since the world may have changed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from srghn import seeding
from srghn.config import Params, RunParams
from srghn.envs.interface import Interface
from srghn.errors import ConfigError
from srghn.evolution.base import (
    F32,
    F64,
    I64,
    NO_PARENT,
    Population,
    State,
    check_genome,
    check_told,
)
from srghn.evolution.direct import PolicyWeights, normal
from srghn.evolution.options import options
from srghn.evolution.selection import clean, rank


class GESMROptions(Params):
    sigma: float = Field(0.3, gt=0, description="median of the initial step sizes")
    groups: int = Field(
        0, ge=0, description="number of step sizes; 0: one for every seven children, at least two"
    )
    factor: float = Field(2.0, gt=1, description="largest factor by which a step size changes")


@dataclass(frozen=True)
class GESMRState(State):
    """genomes (m, P), ids (m,), births (m,) and parents (m,) of the elites; sigmas (groups,)."""

    genomes: F32
    ids: I64
    parents: I64
    noise_seeds: I64
    births: I64
    steps: F32
    sigmas: F64


@dataclass(frozen=True)
class GESMR:
    layout: PolicyWeights
    options: GESMROptions
    elites: int
    children: int

    name = "gesmr"
    state_type = GESMRState
    node_names = ("sigma",)
    encoding = None

    @property
    def digest(self) -> str:
        return self.layout.digest(self.name)

    def init(self, seed: int, genome: F32 | None = None, generation: int = 0) -> GESMRState:
        if genome is None:
            seeds = [seeding.seed(seed, "founder", i) for i in range(self.elites)]
            genomes = np.array([self.layout.initial(s) for s in seeds], dtype=np.float32)
        else:
            check_genome(genome, self.layout.size)
            seeds, genomes = [0], genome[None]
        count, spread = len(seeds), np.linspace(-1, 1, self.options.groups)
        return GESMRState(
            seed=seed,
            generation=generation,
            next_id=count,
            genomes=genomes,
            ids=np.arange(count, dtype=np.int64),
            parents=np.full(count, NO_PARENT, dtype=np.int64),
            noise_seeds=np.array(seeds, dtype=np.int64),
            births=np.full(count, generation, dtype=np.int64),
            steps=np.full(count, self.options.sigma, dtype=np.float32),
            sigmas=self.options.sigma * 10.0**spread,
        )

    def ask(self, state: GESMRState) -> Population:
        """The elites, then children of elites drawn at random, group by group."""
        draws = seeding.stream(state.seed, "birth", state.generation)
        mothers = draws.integers(0, len(state.ids), self.children)
        seeds = draws.integers(0, 2**63, self.children, dtype=np.int64, endpoint=False)
        steps = state.sigmas[self._groups].astype(np.float32)
        noise = normal(seeds, self.layout.size)
        genomes = np.concatenate(
            [state.genomes, state.genomes[mothers] + steps[:, None] * noise], dtype=np.float32
        )
        born = np.arange(state.next_id, state.next_id + self.children)
        return Population(
            genomes=genomes,
            weights=genomes,
            ids=np.concatenate([state.ids, born]),
            parents=np.concatenate([state.parents, state.ids[mothers]]),
            noise_seeds=np.concatenate([state.noise_seeds, seeds]),
            births=np.concatenate([state.births, np.full(self.children, state.generation)]),
            rates=np.concatenate([state.steps, steps])[:, None],
        )

    @property
    def _groups(self) -> I64:
        """The group (children,) of each child."""
        return np.arange(self.children) % self.options.groups

    def tell(self, state: GESMRState, population: Population, fitness: F64) -> GESMRState:
        check_told(population, fitness)
        best = rank(fitness)[: self.elites]
        return dataclasses.replace(
            state,
            generation=state.generation + 1,
            next_id=state.next_id + self.children,
            genomes=population.genomes[best],
            ids=population.ids[best],
            parents=population.parents[best],
            noise_seeds=population.noise_seeds[best],
            births=population.births[best],
            steps=population.rates[best, 0],
            sigmas=self._sigmas(state, population, clean(fitness)),
        )

    def _sigmas(self, state: GESMRState, population: Population, fitness: F64) -> F64:
        """The best group's step size, and changed copies of those of the better half."""
        count = len(state.ids)
        of_parent = dict(zip(state.ids.tolist(), fitness[:count], strict=True))
        before = np.array([of_parent[int(i)] for i in population.parents[count:]])
        finite = np.isfinite(fitness[count:]) & np.isfinite(before)
        change = np.full(self.children, -np.inf)
        change[finite] = fitness[count:][finite] - before[finite]
        groups = range(self.options.groups)
        worth = np.array([change[self._groups == group].max() for group in groups])
        order = np.argsort(-worth, kind="stable")
        draws = seeding.stream(state.seed, "steps", state.generation)
        drawn = order[draws.integers(0, max(len(order) // 2, 1), len(order))]
        changed = state.sigmas[drawn] * self.options.factor ** draws.uniform(-1, 1, len(order))
        changed[0] = state.sigmas[order[0]]
        sigmas: F64 = np.clip(changed, 1e-12, 1e6)
        return sigmas


def gesmr(params: RunParams, interface: Interface) -> GESMR:
    """`parents` elites and `parents * children` children, in groups of equal size or nearly so."""
    chosen = options(GESMROptions, params.evolution)
    children = params.evolution.parents * params.evolution.children
    chosen = chosen.model_copy(update={"groups": chosen.groups or max(children // 7, 2)})
    if not 2 <= chosen.groups <= children:
        raise ConfigError(
            "evolution.options.groups: expected from 2 to as many as there are children "
            f"({children}), got {chosen.groups}; raise evolution.children, or use fewer groups"
        )
    layout = PolicyWeights(params.network, interface)
    return GESMR(layout, chosen, params.evolution.parents, children)
