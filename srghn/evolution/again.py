"""An individual made again from its lineage: born again, or drawn by a search told the same."""

from __future__ import annotations

import numpy as np

from srghn.config import RunParams
from srghn.envs.interface import Interface
from srghn.errors import ReplayMismatch, one_line
from srghn.evolution.ancestry import Ancestry, Told, genome_digest, grow
from srghn.evolution.base import F32, same_architecture
from srghn.evolution.one_thread import one_thread
from srghn.evolution.registry import make_strategy


def rebuild(ancestry: Ancestry, params: RunParams, interface: Interface) -> F32:
    """The genome (G,), made again under the parameters of its run.

    Raises `ReplayMismatch` if the architecture or the resulting genome differs.
    """
    genome, _ = make_again(ancestry, params, interface)
    if (found := genome_digest(genome)) != ancestry.genome_digest:
        raise ReplayMismatch(
            f"the rebuilt genome has digest {found}, recorded is {ancestry.genome_digest}; "
            "the platform or a package differs from the recorded one, or the lineage was changed"
        )
    return genome


@one_thread()  # as in the run
def make_again(ancestry: Ancestry, params: RunParams, interface: Interface) -> tuple[F32, F32]:
    """(genome (G,), the policy's weights (P,)), not compared with what is on record.

    Raises `ReplayMismatch` if the parameters make another architecture, or a search cannot be told
    what is recorded or draws nobody of the recorded id.
    """
    strategy = make_strategy(params, interface)
    if not same_architecture(ancestry.architecture, strategy.digest):
        raise ReplayMismatch(
            f"this lineage has architecture {ancestry.architecture}, got {strategy.digest}; use "
            "the parameters and the version of srghn that it was evolved with"
        )
    if strategy.encoding is not None:
        genome = grow(strategy.encoding, [birth.noise_seed for birth in ancestry.chain])
        return genome, strategy.encoding.generate(genome[None])[0]
    found: F32 | None = None
    for told, individual in zip(ancestry.told, ancestry.chain, strict=True):
        try:
            found = _searched(told, individual.id, found, interface)
        except (ValueError, TypeError, OverflowError) as error:
            raise ReplayMismatch(
                f"a search cannot be told what this lineage says: {one_line(error)}"
            ) from error
    if found is None:
        raise ReplayMismatch("this lineage does not say what its search was told")
    return found, found


def _searched(told: Told, individual: int, genome: F32 | None, interface: Interface) -> F32:
    """The genome (G,) of an individual of a search, which began with another one's."""
    params = RunParams.model_validate(told.params)
    strategy = make_strategy(params, interface)
    state = strategy.init(params.evolution.seed, genome, told.start)
    for row in told.fitness:
        fitness = np.array([-np.inf if each is None else float(each) for each in row])
        state = strategy.tell(state, strategy.ask(state), fitness)
    drawn = strategy.ask(state)
    rows = np.flatnonzero(drawn.ids == individual)
    if not len(rows):
        raise ReplayMismatch(
            f"generation {state.generation} of the search has no individual {individual}; the "
            "lineage was changed"
        )
    found: F32 = drawn.genomes[rows[0]]
    return found
