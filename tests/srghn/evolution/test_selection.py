from typing import Any

import numpy as np
import pytest

from srghn.config import EvolutionParams
from srghn.evolution import selection
from srghn.evolution.base import Population, State

NAN, INF = np.nan, np.inf


def chosen(
    fitness: list[float],
    is_parent: list[bool],
    generation: int = 0,
    families: list[int] | None = None,
    **kw: Any,
) -> list[int]:
    family = np.array(families or range(len(fitness)), dtype=np.int64)
    rows, parent = np.arange(len(fitness)), np.array(is_parent)
    nothing = np.zeros((len(fitness), 1), dtype=np.float32)
    population = Population(
        genomes=nothing,
        weights=nothing,
        ids=np.where(parent, family, 100 + rows),
        parents=np.where(parent, 50 + rows, family),
        noise_seeds=rows,
        births=rows,
        rates=nothing,
    )
    state = State(seed=7, generation=generation, next_id=100)
    found = selection.survivors(EvolutionParams(**kw), np.array(fitness, float), population, state)
    return list(map(int, found))


def test_clean_leaves_nothing_that_is_not_finite_but_minus_infinity() -> None:
    cleaned = selection.clean(np.array([1.0, NAN, INF, -INF, 2.0]))
    assert cleaned.tolist() == [1.0, -INF, -INF, -INF, 2.0]


def test_rank_puts_the_best_first_and_nan_last() -> None:
    assert selection.rank(np.array([NAN, 1.0, 3.0, INF, 2.0])).tolist() == [2, 4, 1, 0, 3]


def test_plus_takes_the_best_of_parents_and_children() -> None:
    assert chosen([5, 1, 4, 9, 2], [True, True, False, False, False], parents=2) == [3, 0]


def test_what_is_not_finite_survives_last() -> None:
    found = chosen([NAN, 1, INF, 2, -INF], [False] * 5, parents=5, ties="children")
    assert found == [3, 1, 0, 2, 4]


@pytest.mark.parametrize(("ties", "expected"), [("parents", [0, 1]), ("children", [2, 3])])
def test_the_tie_rule_decides_among_equals(ties: str, expected: list[int]) -> None:
    assert chosen([5, 5, 5, 5], [True, True, False, False], parents=2, ties=ties) == expected


@pytest.mark.parametrize(("limit", "expected"), [(0, [0, 1, 2]), (1, [0, 3, 5]), (2, [0, 1, 3])])
def test_a_family_has_no_more_survivors_than_its_limit(limit: int, expected: list[int]) -> None:
    families = [4, 4, 4, 9, 9, 7]
    assert (
        chosen([9, 8, 7, 6, 5, 4], [False] * 6, families=families, parents=3, family_limit=limit)
        == expected
    )


def test_where_families_are_few_the_best_of_the_others_fill_the_places() -> None:
    found = chosen([9, 8, 7, 6], [True] + [False] * 3, families=[1] * 4, parents=3, family_limit=1)
    assert found == [0, 1, 2]  # best first


def test_the_limit_holds_in_tournaments() -> None:
    families = [1, 1, 1, 1, 2, 3]
    options = {"selection": "tournament", "tournament_size": 6, "elites": 1, "family_limit": 1}
    found = chosen([9, 8, 7, 6, 5, 4], [False] * 6, families=families, parents=3, **options)
    assert found == [0, 4, 5]


def test_random_ties_have_a_name_and_change_with_the_generation() -> None:
    def draw(generation: int) -> list[int]:
        return chosen([5.0] * 12, [True] * 6 + [False] * 6, generation, parents=4, ties="random")

    assert draw(3) == draw(3)
    assert len({tuple(draw(g)) for g in range(8)}) > 1


def test_a_better_child_beats_any_tie_rule() -> None:
    assert chosen([5, 6], [True, False], parents=1, ties="parents") == [1]


def test_comma_plays_only_the_elites_again() -> None:
    comma, born = EvolutionParams(selection="comma", elites=2), np.array([3, 4, 4, 1])
    assert selection.evaluated_again(comma, born, 5) == 2
    assert selection.evaluated_again(comma, born[:1], 5) == 1
    assert selection.evaluated_again(comma, np.full(8, 5), 5) == 8  # founders
    assert selection.evaluated_again(EvolutionParams(selection="plus"), born, 5) == 4


def test_tournament_keeps_elites_and_nobody_twice() -> None:
    fitness = [float(i) for i in range(20)]
    for generation in range(10):
        rows = chosen(
            fitness, [False] * 20, generation, selection="tournament", parents=6, elites=2
        )
        assert rows[:2] == [19, 18]
        assert len(set(rows)) == 6


def test_tournament_pressure_grows_with_its_size() -> None:
    def mean(size: int) -> float:
        kw: dict[str, Any] = {"selection": "tournament", "parents": 5, "elites": 0}
        rows = [
            chosen([float(i) for i in range(40)], [False] * 40, g, tournament_size=size, **kw)
            for g in range(40)
        ]
        return float(np.mean(rows))

    assert mean(2) + 3 < mean(8)


def test_fewer_individuals_than_parents_all_survive() -> None:
    for rule in ("plus", "comma", "tournament"):
        assert sorted(chosen([1, 2], [True, False], selection=rule, parents=8)) == [0, 1]
