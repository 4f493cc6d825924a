"""A genome that is the policy's own flat weights, mutated by Gaussian noise of one step size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from srghn.config import NetworkParams
from srghn.envs.interface import Interface
from srghn.errors import GraphError
from srghn.evolution.base import F32, I64, NO_PARENT, Population, State, check_genome
from srghn.evolution.self_referential import example
from srghn.files import canonical_json, sha256_bytes
from srghn.graph import trace
from srghn.graph.frozen import evolved_parameters, frozen_digest
from srghn.networks import build_network
from srghn.seeding import seed as named_seed
from srghn.seeding import stream


@dataclass(frozen=True)
class PolicyWeights:
    """The flat weights (P,) of one policy module, in `named_parameters()` order."""

    network: NetworkParams
    interface: Interface

    @cached_property
    def _module(self) -> nn.Module:
        return build_network(self.network, self.interface)

    @cached_property
    def _graph(self) -> str:
        """The digest of the module's graph; '' for one that cannot be traced."""
        try:
            return trace(self._module, *example(self._module, self.interface)).digest
        except GraphError:
            return ""

    @cached_property
    def _reference(self) -> tuple[F32, F32]:
        """The module's own initial weights (P,), and the spread (P,) that founders have there.

        A tensor's spread is its root mean square; one that begins as all zeros or all ones (a
        norm's shift and gain) begins so in every founder.
        """
        tensors = [p.detach().numpy().ravel() for _, p in evolved_parameters(self._module)]
        spreads = np.array([_spread(t) for t in tensors], dtype=np.float32)
        return np.concatenate(tensors), np.repeat(spreads, [t.size for t in tensors])

    @cached_property
    def size(self) -> int:
        return len(self._reference[0])

    def __getstate__(self) -> dict[str, object]:
        """Without the module, which need not pickle; it is built again where it is needed.

        A size that is known goes along, for to mutate a genome needs no more.
        """
        built = ("_module", "_reference")
        return {name: value for name, value in vars(self).items() if name not in built}

    def initial(self, seed: int) -> F32:
        """A founder's weights (P,), normal with the spread of the module's own initialisation."""
        weights, spread = self._reference
        drawn = stream(seed, "founder").standard_normal(self.size, dtype=np.float32) * spread
        return np.where(spread > 0, drawn, weights)

    def start(self, seed: int, genome: F32 | None) -> F32:
        """Where a distribution's mean begins, (P,): at an earlier genome, or at a founder.

        Raises `ArchitectureMismatch` for a genome of another size.
        """
        if genome is None:
            return self.initial(named_seed(seed, "founder", 0))
        check_genome(genome, self.size)
        return genome

    def digest(self, strategy: str, **constants: float) -> str:
        """Of all that a genome depends on, and after a `+` of the policy's graph, if it has one.

        The first is of the strategy's name, the policy, and the constants that a mutation depends
        on. A module that cannot be traced has no graph: its edits are not noticed.
        """
        facts: dict[str, object] = {
            "strategy": strategy,
            "policy": self.network.model_dump(mode="json"),
            "interface": self.interface.to_dict(),
            "constants": constants,
        }
        if frozen := frozen_digest(self._module):
            facts["frozen"] = frozen
        known = sha256_bytes(canonical_json(facts))
        return f"{known}+{self._graph}" if self._graph else known


@dataclass(frozen=True)
class Direct:
    """`child = parent + sigma * N(0, I)`: an `Encoding` for the plain genetic algorithms."""

    name: str
    layout: PolicyWeights
    sigma: float

    node_names = ("sigma",)

    @property
    def genome_size(self) -> int:
        return self.layout.size

    @property
    def digest(self) -> str:
        return self.layout.digest(self.name, sigma=self.sigma)

    def init(self, seed: int) -> F32:
        return self.layout.initial(seed)

    def generate(self, genomes: F32) -> F32:
        return genomes

    def mutate(
        self, parents: F32, noise_seeds: I64, *, index: I64 | None = None, out: F32 | None = None
    ) -> tuple[F32, F32]:
        step = np.float32(self.sigma) * normal(noise_seeds, parents.shape[1])
        children: F32 = np.add(parents if index is None else parents[index], step, out=out)
        return children, self.rates(children)

    def rates(self, genomes: F32) -> F32:
        return np.full((len(genomes), 1), self.sigma, dtype=np.float32)


def drawn(
    state: State, weights: F32, sigma: float, noise_seeds: Sequence[int] | None = None
) -> Population:
    """Weights (n, P) drawn from a distribution, as individuals: they have no parents."""
    count = len(weights)
    return Population(
        genomes=weights,
        weights=weights,
        ids=np.arange(state.next_id, state.next_id + count),
        parents=np.full(count, NO_PARENT, dtype=np.int64),
        noise_seeds=np.array(noise_seeds or [0] * count, dtype=np.int64),
        births=np.full(count, state.generation, dtype=np.int64),
        rates=np.full((count, 1), sigma, dtype=np.float32),
    )


def _spread(tensor: F32) -> float:
    fixed = (tensor == tensor[0]).all() and tensor[0] in (0, 1)
    return 0.0 if fixed else float(np.sqrt((tensor**2).mean()))


def normal(seeds: I64 | Sequence[int], size: int) -> F32:
    """The standard normal noise (n, size) that belongs to each of n noise seeds."""
    rows = [stream(int(s), "noise").standard_normal(size, dtype=np.float32) for s in seeds]
    return np.array(rows, dtype=np.float32).reshape(-1, size)
