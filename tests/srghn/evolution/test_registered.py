"""Strategies of one's own: what works, and what is refused in one line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from srghn.config import RunParams
from srghn.envs.interface import Interface
from srghn.errors import ConfigError
from srghn.evolution import Genetic, GeneticState, Population, Search
from srghn.evolution.direct import Direct, PolicyWeights

OFF = {"memory": 0, "newcomers": 0}


class PlainAsk(Genetic):
    def ask(self, state: Any) -> Population:  # type: ignore[override]
        return super().ask(state)


class Handed(Genetic):
    def ask(self, state: Any, *given: Any, **named: Any) -> Population:
        return super().ask(state, *given, **named)


class PlainTell(Genetic):
    """Its `tell` makes a state anew, in place of `dataclasses.replace`."""

    def tell(self, state: Any, population: Population, fitness: Any) -> Any:
        after = super().tell(state, population, fitness)
        names = [field.name for field in dataclasses.fields(GeneticState)]
        return GeneticState(**{name: getattr(after, name) for name in names})


@dataclass(frozen=True)
class Counted(GeneticState):
    count: int = 0


class OwnState(Genetic):
    state_type = Counted

    def init(self, *given: Any) -> Counted:
        return Counted(**vars(super().init(*given)))


def one_of(kind: type[Genetic]) -> Callable[[RunParams, Interface], Genetic]:
    def make(params: RunParams, interface: Interface) -> Genetic:
        encoding = Direct("own", PolicyWeights(params.network, interface), 0.3)
        return kind("own", encoding, params.evolution)

    return make


plain_ask, handed, plain_tell, own_state = map(one_of, (PlainAsk, Handed, PlainTell, OwnState))


def through_a_drop(name: str, **given: Any) -> Search:
    search = Search(2, strategy=f"{__name__}:{name}", seed=1, **given)
    for generation in range(24):
        points = search.ask()
        search.tell(-((points - (40.0 if generation > 15 else 0.0)) ** 2).sum(axis=1))
    return search


@pytest.mark.parametrize("name", ["handed", "plain_tell"])
def test_a_genetic_with_its_own_ask_or_tell_responds_to_a_drop(name: str) -> None:
    search = through_a_drop(name)
    assert search.history == through_a_drop("handed").history
    assert search.history != through_a_drop(name, **OFF).history


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("plain_ask", "PlainAsk.ask must take (state, codes=None, immigrants=None)"),
        ("own_state", "OwnState.state_type must be GeneticState, got Counted"),
    ],
)
def test_a_genetic_that_cannot_respond_to_a_drop_is_refused_at_once(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        Search(2, strategy=f"{__name__}:{name}")
    assert "set evolution.memory and evolution.newcomers to 0" in str(refused.value)
    assert through_a_drop(name, **OFF).generation == 24


class OutOfPlace(Direct):
    """An encoding that gives its children in an array of its own."""

    def mutate(self, parents: Any, noise_seeds: Any, *, index: Any = None, out: Any = None) -> Any:
        return super().mutate(parents, noise_seeds, index=index)


def out_of_place(params: RunParams, interface: Interface) -> Genetic:
    encoding = OutOfPlace("own", PolicyWeights(params.network, interface), 0.3)
    return Genetic("own", encoding, params.evolution)


def test_an_encoding_may_leave_out_aside() -> None:
    assert through_a_drop("out_of_place").history == through_a_drop("handed").history


def _nan(weights: Any) -> Any:
    weights = weights.copy()
    weights[3, 1] = np.nan
    return weights


BAD: dict[str, tuple[Callable[[Population], dict[str, Any]], str]] = {
    "short": (lambda p: {"ids": p.ids[:-1]}, "one length, 1 or more, got genomes 66, weights 66"),
    "empty": (lambda p: vars(p.take(p.ids[:0])), "one length, 1 or more, got genomes 0, weights 0"),
    "flat": (lambda p: {"weights": p.weights.ravel()}, "float32 (n, columns), got float32 (132,)"),
    "double": (
        lambda p: {"genomes": p.genomes.astype(np.float64)},
        "genomes must be float32 (n, columns), got float64 (66, 2)",
    ),
    "listed": (lambda p: {"births": list(p.births)}, "births must be an array, got list"),
    "rateless": (lambda p: {"rates": p.rates[:, :0]}, "for each of 1 nodes, got (66, 0)"),
    "twice": (lambda p: {"ids": p.ids * 0}, "ids that differ, got 1 for 66 individuals"),
    "nan": (lambda p: {"weights": _nan(p.weights)}, "got NaN in 1 rows of 66, first in 3"),
}


class Bad(Genetic):
    def ask(self, state: Any, *given: Any) -> Population:
        good = super().ask(state, *given)
        return dataclasses.replace(good, **BAD[self.name][0](good))


def bad(params: RunParams, interface: Interface) -> Genetic:
    encoding = Direct("own", PolicyWeights(params.network, interface), 0.3)
    return Bad(params.evolution.options["name"], encoding, params.evolution)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_population_is_one_clear_line(name: str) -> None:
    search = Search(2, strategy=f"{__name__}:bad", options={"name": name})
    with pytest.raises(ConfigError, match=re.escape(BAD[name][1])) as refused:
        search.ask()
    assert str(refused.value).startswith(f"{name}.ask: ")
