"""SR-GHN: every genome mutates its own copies (Pedersen et al. 2025, arXiv:2512.16406).

Nothing but fitness is selected, and so good mutators are: the loop is `Genetic`'s, and all that is
particular to the method is in the encoding, a `GHN`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from srghn.config import RunParams
from srghn.envs.interface import Interface
from srghn.evaluation.base import SeveralPolicies, WeightedPolicies
from srghn.evolution.base import F32, I64, Encoding, Population
from srghn.evolution.genetic import Genetic, GeneticState
from srghn.evolution.options import NoOptions, options
from srghn.ghn import GHN
from srghn.graph import trace
from srghn.memory import state_size
from srghn.networks import build_network


def example(network: nn.Module, interface: Interface) -> tuple[Tensor, ...]:
    """One input of the network: an observation (1, size) and, where it keeps one, a state."""
    kept = state_size(network)
    obs = torch.zeros(1, interface.observation_size)
    return (obs, torch.zeros(1, kept)) if kept else (obs,)


def make_ghn(params: RunParams, interface: Interface) -> GHN:
    """The hypernetwork whose targets are this run's networks, the policy's own first.

    Raises what building and tracing raise.
    """
    networks = [build_network(each, interface) for each in params.networks]
    return GHN(params.ghn, [trace(each, *example(each, interface)) for each in networks])


def self_referential(params: RunParams, interface: Interface) -> Genetic:
    options(NoOptions, params.evolution)
    return Genetic("self-referential", make_ghn(params, interface), params.evolution)


@dataclass(frozen=True)
class BirthRecipe:
    """A population as survivors' genomes, sent once, and a noise seed for each of their children.

    A `srghn.evaluation.base.Recipe`: it pickles, and workers make the weights where they play them.

    encoding     how genomes are mutated and turned into weights
    survivors    (m, G) float32, the genomes that children copy
    mothers      (n,) int64, row of `survivors` for each individual
    noise_seeds  (n,) int64 of each birth; -1 where the individual is the survivor itself
    target       which of the encoding's targets weights are made for
    """

    encoding: Encoding
    survivors: F32
    mothers: I64
    noise_seeds: I64
    target: int = 0

    @classmethod
    def of(
        cls, encoding: Encoding, state: GeneticState, population: Population, target: int = 0
    ) -> BirthRecipe:
        """The recipe of `population`, which a `Genetic` over `encoding` made from `state`."""
        ids, genomes = state.sources()
        row = {int(i): k for k, i in enumerate(ids)}
        born = population.ids >= state.next_id
        sources = np.where(born, population.parents, population.ids)
        mothers = np.array([row[int(i)] for i in sources], dtype=np.int64)
        seeds = np.where(born, population.noise_seeds, -1)
        return cls(encoding, genomes, mothers, seeds, target)

    def __len__(self) -> int:
        return len(self.mothers)

    def rebuild(self, indices: I64) -> F32:
        """Policy weights (k, P) of those individuals: the bytes that the population has."""
        return generated(self.encoding, self.genomes(indices), self.target)

    def genomes(self, indices: I64) -> F32:
        """Their genomes (k, G)."""
        genomes = self.survivors[self.mothers[indices]]
        seeds = self.noise_seeds[indices]
        born = np.flatnonzero(seeds >= 0)
        if len(born):
            genomes[born], _ = self.encoding.mutate(genomes[born], seeds[born])
        return genomes


def generated(encoding: Encoding, genomes: F32, target: int = 0) -> F32:
    """Weights (n, P) of genomes (n, G) for one of the encoding's targets."""
    if target == 0:
        return encoding.generate(genomes)
    assert isinstance(encoding, GHN)  # the registry refuses others where there are several
    return encoding.generate(genomes, target)


def policies_of(
    params: RunParams, interface: Interface, encoding: Encoding | None, population: Population
) -> WeightedPolicies | SeveralPolicies:
    """Its individuals' weights, for each network of the run."""
    own = WeightedPolicies(params.network, interface, population.weights)
    if len(params.networks) == 1:
        return own
    assert encoding is not None  # or the registry would have refused
    others = (
        WeightedPolicies(network, interface, generated(encoding, population.genomes, target))
        for target, network in enumerate(params.networks[1:], start=1)
    )
    return SeveralPolicies((own, *others))
