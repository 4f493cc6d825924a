"""Who survives: truncation with parents (plus), without (comma), tournaments; elites; ties.

Everyone in the population has just been played on the same seeds, parents included: fitness from an
earlier generation is never used, because in a world that has switched it would keep the dead alive.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from srghn.config import EvolutionParams
from srghn.evolution.base import F64, I64
from srghn.seeding import ahead, stream


def clean(fitness: F64) -> F64:
    """Fitness with everything that is not finite as minus infinity."""
    return np.where(np.isfinite(fitness), fitness, -np.inf)


def rank(fitness: F64, key: NDArray[np.floating] | I64 | None = None) -> I64:
    """Rows from best to worst, (n,). Equal fitness: smaller `key` first, then the earlier row."""
    rows = np.arange(len(fitness)) if key is None else key
    return np.lexsort((rows, -clean(fitness))).astype(np.int64, copy=False)


def tie_key(
    params: EvolutionParams, is_parent: NDArray[np.bool_], seed: int, generation: int
) -> I64:
    """What settles equal fitness, (n,): parents first, children first, or a named random order."""
    if params.ties == "random":
        return _shuffled(generation, seed, len(is_parent))
    last = ~is_parent if params.ties == "parents" else is_parent
    return np.arange(len(is_parent)) + last * len(is_parent)


@ahead
def _shuffled(generation: int, seed: int, rows: int) -> I64:
    return stream(seed, "ties", generation).permutation(rows)


def evaluated_again(params: EvolutionParams, births: I64, generation: int) -> int:
    """How many of last generation's survivors, best first, are played beside the children.

    With comma only the elites; but founders, who are born in this generation and so have not been
    played at all, always.
    """
    if params.selection == "comma" and (births < generation).any():
        return min(params.elites, len(births))
    return len(births)


def survivors(
    params: EvolutionParams,
    fitness: F64,
    is_parent: NDArray[np.bool_],
    families: I64,
    seed: int,
    generation: int,
) -> I64:
    """The rows that become the next generation's parents, best first, (min(parents, n),).

    A parent and its children have one number in `families`, (n,); those beyond `family_limit`
    come after everyone else.

    plus        the best of parents and children
    comma       the best of the children and of the `elites` best parents
    tournament  the `elites` best, then winners of tournaments among the rest, each winning once
    """
    order = rank(fitness, tie_key(params, is_parent, seed, generation))
    tournament = params.selection == "tournament"
    count = len(order) if tournament else params.parents
    places = _limited(families[order], params.family_limit, count)
    if tournament:
        places = _tournament(params, places, stream(seed, "tournament", generation))
    return order[sorted(places)]


def _limited(families: I64, limit: int, count: int) -> list[int]:
    """The first `count` places that have fewer than `limit` of their family before them.

    If there are fewer, the first of all others follow.
    """
    if not limit:
        return list(range(len(families)))[:count]
    within: list[int] = []
    beyond: list[int] = []
    members: dict[int, int] = {}
    for place, family in enumerate(families.tolist()):
        members[family] = members.get(family, 0) + 1
        (within if members[family] <= limit else beyond).append(place)
        if len(within) == count:
            break
    return (within + beyond)[:count]


def _tournament(params: EvolutionParams, places: list[int], rng: np.random.Generator) -> list[int]:
    """The winner of a tournament is the one drawn that stands first in `places`."""
    left = list(places)
    chosen = [left.pop(0) for _ in range(min(params.elites, params.parents, len(left)))]
    while len(chosen) < params.parents and left:
        drawn = rng.choice(len(left), size=min(params.tournament_size, len(left)), replace=False)
        chosen.append(left.pop(int(drawn.min())))
    return chosen
