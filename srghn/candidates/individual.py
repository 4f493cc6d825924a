"""Freezing an individual of a run: the one place that says what a candidate's manifest holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn import seeding
from srghn.candidates.candidate import Candidate
from srghn.candidates.choose import Choice
from srghn.candidates.freeze import freeze, load_weights
from srghn.candidates.play import observe
from srghn.errors import expect
from srghn.evolution.again import make_again
from srghn.evolution.ancestry import Ancestry, genome_digest
from srghn.evolution.run import Run
from srghn.networks import build_network

#: Episodes whose observations become the golden ones, and how many they are at most.
GOLDEN_EPISODES, MOST_EPISODES = 4, 64
#: The manifest's entry for an individual that was not evaluated on fresh seeds.
UNPLAYED: Mapping[str, Any] = {"mean": 0.0, "episodes": 0}


@dataclass(frozen=True)
class Individual:
    """One individual of a run: `genome` (genome_size,) and the `weights` (parameters,) it makes."""

    genome: NDArray[np.float32]
    weights: NDArray[np.float32]
    ancestry: Ancestry
    generation: int
    mode: str
    training_fitness: float | None


def freeze_finalist(run: Run, choice: Choice, folder: Path | str) -> Candidate:
    """Write the chosen finalist as a candidate folder, whole or not at all.

    Raises `ArtefactError` if the weights are not finite or the exported policy does not answer as
    the network does.
    """
    expect(run, Run, "run", "srghn.load_run reads one")
    expect(choice, Choice, "choice", "srghn.choose_finalist makes one")
    population, row = run.finalists, choice.row
    individual = Individual(
        genome=population.genomes[row],
        weights=population.weights[row],
        ancestry=run.ancestry(int(population.ids[row])),
        generation=run.generation,
        mode=run.mode,
        training_fitness=float(run.fitness[row]) if np.isfinite(run.fitness[row]) else None,
    )
    params = {**run.record["params"], "evaluate": choice.rules.model_dump()}
    seeds = seeding.seeds(run.params.evolution.seed, "golden", MOST_EPISODES)
    return _freeze(run, individual, folder, params, choice.validation, seeds)


def freeze_founder(run: Run, folder: Path | str, mode: str | None = None) -> Candidate:
    """Write the founder of the best finalist's lineage, unevolved: a baseline, or a bad example.

    Of a search it is the first that the run drew. `mode` is the one that the manifest names and the
    golden observations are taken in; default the run's last.
    """
    whole = run.ancestry(int(run.finalists.ids[0]))
    if whole.told:
        (first,) = run.lineage.chain(int(run.lineage.id[0]))
        told = (*whole.told[:-1], replace(whole.told[-1], fitness=()))
        ancestry = replace(whole, chain=(*whole.chain[:-1], first), told=told)
    else:
        first = whole.chain[0]
        ancestry = replace(whole, chain=(first,))
    genome, weights = make_again(ancestry, run.params, run.version.interface)
    individual = Individual(
        genome=genome,
        weights=weights,
        ancestry=replace(ancestry, genome_digest=genome_digest(genome)),
        generation=first.generation,
        mode=mode or run.mode,
        training_fitness=first.fitness,
    )
    seeds = seeding.seeds(0, "demo-bad", MOST_EPISODES)
    return _freeze(run, individual, folder, run.record["params"], UNPLAYED, seeds)


def _freeze(
    run: Run,
    individual: Individual,
    folder: Path | str,
    params: Mapping[str, Any],
    validation: Mapping[str, Any],
    seeds: NDArray[np.int64],
) -> Candidate:
    version, interface = run.version, run.version.interface
    network = build_network(run.params.network, interface)
    load_weights(network, individual.weights)  # or the golden observations would be a stranger's
    observations, states = observe(version, individual.mode, network, seeds, GOLDEN_EPISODES)
    return freeze(
        Path(folder),
        network=network,
        weights=individual.weights,
        genome=individual.genome,
        interface=interface,
        env_version=version.to_json(),
        ancestry=individual.ancestry.to_json(),
        observations=observations,
        states=states,
        manifest={
            "name": version.id,
            "generation": individual.generation,
            "mode": individual.mode,
            "env_fingerprint": version.fingerprint,
            "architecture_digest": run.strategy.digest,
            "params": params,
            "training_fitness": individual.training_fitness,
            "validation": validation,
        },
    )
