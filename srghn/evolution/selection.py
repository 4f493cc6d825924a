"""Selection: truncation with parents (plus) or without (comma), tournaments, elites, ties.

Everyone in the population has just been played on the same seeds, parents included: fitness from an
earlier generation is never used: after a switch it would keep individuals that no longer work.
"""

from __future__ import annotations

import numpy as np

from srghn.compiled import compiled
from srghn.config import EvolutionParams
from srghn.errors import ConfigError
from srghn.evolution.base import F64, I64, NO_PARENT, Population, State
from srghn.seeding import ahead, stream


def check_elites(params: EvolutionParams) -> None:
    """Raise `ConfigError` for more elites than parents, where there are any.

    Not checked with the parameters, of which records must stay readable.
    """
    if params.selection != "plus" and params.elites > params.parents:
        raise ConfigError(
            f"evolution.elites must be at most evolution.parents ({params.parents}), for elites "
            f"are the best of them, got {params.elites}"
        )


@compiled
def clean(fitness: F64) -> F64:
    """Fitness with everything that is not finite as minus infinity."""
    return np.where(np.isfinite(fitness), fitness, -np.inf)


def rank(fitness: F64) -> I64:
    """Rows from best to worst, (n,); of equal ones the earlier first."""
    return np.argsort(-clean(fitness), kind="stable")


def _tie_order(params: EvolutionParams, population: Population, state: State) -> I64:
    """Rows (n,) in the order that settles ties: parents first, children first, or at random."""
    if params.ties == "random":
        return _shuffled(state.generation, state.seed, len(population))
    parent = population.ids < state.next_id
    return np.argsort(~parent if params.ties == "parents" else parent, kind="stable")


@ahead
def _shuffled(generation: int, seed: int, rows: int) -> I64:
    return np.argsort(stream(seed, "ties", generation).permutation(rows))


def evaluated_again(params: EvolutionParams, births: I64, generation: int) -> int:
    """How many of last generation's survivors, best first, are evaluated beside the children.

    With comma only the elites; but founders, who are born in this generation and so have not been
    played at all, always.
    """
    if params.selection == "comma" and (births < generation).any():
        return min(params.elites, len(births))
    return len(births)


def survivors(params: EvolutionParams, fitness: F64, population: Population, state: State) -> I64:
    """The rows that become the next generation's parents, best first, (min(parents, n),).

    Of a parent and its children, those beyond `family_limit` come after everyone else.

    plus        the best of parents and children
    comma       the best of the children and of the `elites` best parents. Not in the paper
    tournament  the `elites` best, then winners of tournaments among the rest, each winning once

    The family limit, and ties that are settled at random, are not in the paper.
    """
    tournament = params.selection == "tournament"
    count = len(fitness) if tournament else params.parents
    ranked, places = _ranked(
        fitness,
        _tie_order(params, population, state),
        population.ids,
        population.parents,
        state.next_id,
        params.family_limit,
        count,
    )
    if tournament:
        places = _tournament(params, places, stream(state.seed, "tournament", state.generation))
    best: I64 = ranked[np.sort(places)]
    return best


@compiled
def _ranked(fitness, rows, ids, parents, next_id, limit, count):  # type: ignore[no-untyped-def]
    """Rows from best to worst (n,), and `count` places among them that are to be preferred.

    Equals are ranked in the order of `rows`. Preferred are places with fewer than `limit` of their
    family before them, and if these are too few, the first of the others.
    """
    ranked = rows[np.argsort(-clean(fitness)[rows], kind="mergesort")]
    families = np.empty_like(ranked)
    for i, row in enumerate(ranked):
        own = ids[row] < next_id or parents[row] == NO_PARENT
        families[i] = ids[row] if own else parents[row]
    places, others = np.empty_like(ranked), np.empty_like(ranked)
    within = beyond = 0
    for i in range(len(ranked)):
        kin = 0
        for k in range(within if limit else 0):
            kin += families[places[k]] == families[i]
        if not limit or kin < limit:
            places[within] = i
            within += 1
            if within == count:
                break
        else:
            others[beyond] = i
            beyond += 1
    places[within : within + beyond] = others[:beyond]
    return ranked, places[:count]


def _tournament(params: EvolutionParams, places: I64, rng: np.random.Generator) -> I64:
    """The winner of a tournament is the one drawn that stands first in `places`."""
    left = places.tolist()
    chosen = [left.pop(0) for _ in range(min(params.elites, params.parents, len(left)))]
    while len(chosen) < params.parents and left:
        drawn = rng.choice(len(left), size=min(params.tournament_size, len(left)), replace=False)
        chosen.append(left.pop(int(drawn.min())))
    return np.array(chosen, dtype=np.int64)
