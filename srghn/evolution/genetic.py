"""The loop that all strategies with births share: survivors make children, the best survive.

What a genome is and how it is mutated is the `Encoding`'s business: a `GHN` that mutates itself, a
GHN at a constant rate, or a policy's own flat weights. A child is a pure function of (parent
genome, noise seed), so an individual is its lineage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from srghn import seeding
from srghn.config import EvolutionParams
from srghn.evolution import selection
from srghn.evolution.base import (
    F32,
    F64,
    I64,
    NO_PARENT,
    Encoding,
    Population,
    State,
    check_genome,
    check_told,
)


@dataclass(frozen=True)
class GeneticState(State):
    """The survivors, best first: the fields of `Population` but for the weights."""

    genomes: F32
    ids: I64
    parents: I64
    noise_seeds: I64
    births: I64
    rates: F32

    def sources(self) -> tuple[I64, F32]:
        """Ids and genomes of all individuals that may be evaluated again or have children."""
        return self.ids, self.genomes


G = TypeVar("G", bound=GeneticState)


@dataclass(frozen=True)
class Genetic:
    """Selection over an encoding; `immigrants` fresh founders join the children of a generation."""

    name: str
    encoding: Encoding
    params: EvolutionParams
    immigrants: int = 0

    state_type = GeneticState

    @property
    def digest(self) -> str:
        return self.encoding.digest

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(self.encoding.node_names)

    def init(self, seed: int, genome: F32 | None = None, generation: int = 0) -> GeneticState:
        """Earlier genomes (n, G), or one (G,), are the only survivors at first.

        So all children are theirs.
        """
        if genome is None:
            seeds = [seeding.seed(seed, "founder", i) for i in range(self.params.parents)]
            genomes = self._found(seeds)
        else:
            genomes = np.atleast_2d(genome)
            for each in genomes:
                check_genome(each, self.encoding.genome_size)
            seeds = [0] * len(genomes)
        count = len(seeds)
        return GeneticState(
            seed=seed,
            generation=generation,
            next_id=count,
            genomes=genomes,
            ids=np.arange(count, dtype=np.int64),
            parents=np.full(count, NO_PARENT, dtype=np.int64),
            noise_seeds=np.array(seeds, dtype=np.int64),
            births=np.full(count, generation, dtype=np.int64),
            rates=self.encoding.rates(genomes),
        )

    def brood(self, immigrants: int) -> int:
        """How many children a generation has beside so many immigrants.

        All survivors have equally many, or one more. Differs from the paper: from 1 to N each.
        """
        return self.params.parents * self.params.children - immigrants

    def ask(
        self, state: GeneticState, codes: I64 | None = None, immigrants: int | None = None
    ) -> Population:
        """Survivors to evaluate again, then children of all survivors in turn, then immigrants.

        `codes` (children,), where given, are what the seeds of births carry; `immigrants`, where
        given, replaces their usual number.
        """
        kept = selection.evaluated_again(self.params, state.births, state.generation)
        strangers = self.immigrants if immigrants is None else immigrants
        brood = self.brood(strangers)
        born = brood + strangers
        mothers = np.arange(brood) % len(state.ids)
        noise = _birth_seeds(state.generation, state.seed, brood)
        if codes is not None:
            noise = noise // seeding.CODES * seeding.CODES + codes
        genomes = np.empty((kept + born, self.encoding.genome_size), dtype=np.float32)
        genomes[:kept] = state.genomes[:kept]
        children = genomes[kept : kept + brood]  # put in their place: genomes may be long
        given, made = self.encoding.mutate(state.genomes, noise, index=mothers, out=children)
        if given is not children:  # an encoding of one's own may leave `out` aside
            children[:] = given
        parents = [state.parents[:kept], state.ids[mothers]]
        seeds = [state.noise_seeds[:kept], noise]
        rates = [state.rates[:kept], made]
        if strangers:
            named = [
                seeding.seed(state.seed, "immigrant", state.generation, i) for i in range(strangers)
            ]
            genomes[kept + brood :] = fresh = self._found(named)
            parents.append(np.full(strangers, NO_PARENT))
            seeds.append(np.array(named, dtype=np.int64))
            rates.append(self.encoding.rates(fresh))
        return Population(
            genomes=genomes,
            weights=self.encoding.generate(genomes),
            ids=np.concatenate([state.ids[:kept], np.arange(state.next_id, state.next_id + born)]),
            parents=np.concatenate(parents),
            noise_seeds=np.concatenate(seeds),
            births=np.concatenate([state.births[:kept], np.full(born, state.generation)]),
            rates=np.concatenate(rates),
        )

    def tell(self, state: G, population: Population, fitness: F64) -> G:
        check_told(population, fitness)
        best = selection.survivors(self.params, fitness, population, state)
        return dataclasses.replace(
            state,
            generation=state.generation + 1,
            next_id=int(population.ids[-1]) + 1,  # who was born last stands last
            genomes=population.genomes[best],
            ids=population.ids[best],
            parents=population.parents[best],
            noise_seeds=population.noise_seeds[best],
            births=population.births[best],
            rates=population.rates[best],
        )

    def _found(self, seeds: Sequence[int]) -> F32:
        return np.array([self.encoding.init(seed) for seed in seeds], dtype=np.float32)


@seeding.ahead
def _birth_seeds(generation: int, seed: int, count: int) -> I64:
    draws = seeding.stream(seed, "birth", generation)
    return draws.integers(0, 2**63, size=count, dtype=np.int64, endpoint=False)
