"""Ask and tell with an objective of your own: no environment, no folder, no parameters file."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from srghn.config import parse_params
from srghn.envs.interface import Interface
from srghn.errors import ConfigError
from srghn.evolution.base import F32, F64, Population, State, Strategy
from srghn.evolution.registry import make_strategy
from srghn.evolution.selection import clean

#: Parameters of `evolution` that are about a run in a world: a search has no episodes, and ends
#: when its caller ends it.
OF_RUNS = (
    "generations",
    "seconds",
    "evaluations",
    "until",
    "until_episodes",
    "episodes",
    "racing",
    "racing_share",
    "architectures",
    "checkpoint_every",
    "ancestor",
    "companions",
    "mode",
)


class Search:
    """Maximises a function of `dimensions` numbers with any strategy.

        search = Search(dimensions=3, seed=1)
        for _ in range(60):
            points = search.ask()
            search.tell([-((point - 2) ** 2).sum() for point in points])
        print(search.best, search.best_fitness)

    `strategy` is a name or an import path, `options` are the strategy's own, `ghn` and `evolution`
    parameters as in `params.yaml`, but for those of `OF_RUNS`. `on_generation(search)` is called
    after each `tell`. The strategy itself is pure; what changes is `search.state`, so a copy of
    that can be resumed.

    Raises `ConfigError` for a bad parameter or less than one dimension.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        strategy: str = "self-referential",
        seed: int = 0,
        options: dict[str, Any] | None = None,
        ghn: dict[str, Any] | None = None,
        on_generation: Callable[[Search], None] | None = None,
        **evolution: Any,
    ) -> None:
        dimensions = _whole(dimensions)
        if unused := [name for name in OF_RUNS if name in evolution]:
            raise ConfigError(
                f"Search has one function, without networks, episodes or an end: leave out "
                f"{', '.join(unused)}, which evolve takes"
            )
        chosen = {"strategy": strategy, "seed": seed, "options": options or {}, **evolution}
        self.params = parse_params(
            {
                "network": {"kwargs": {"hidden": []}},
                "ghn": ghn or {},
                "evolution": chosen,
            },
            "Search",
        )
        self.dimensions, self.on_generation = dimensions, on_generation
        free = (None,)
        line = Interface(1, free, free, "box", (dimensions,), action_low=free, action_high=free)
        self.strategy: Strategy[Any] = make_strategy(self.params, line)
        self._state: State = self.strategy.init(seed)
        self.best: F32 | None = None
        self.best_fitness = -np.inf
        self.history: list[float] = []
        self._asked: Population | None = None

    @property
    def state(self) -> State:
        """All that changes; to set it is to go on from there, and points asked before are void."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        if not isinstance(state, self.strategy.state_type):
            raise ConfigError(
                f"search.state: expected {self.strategy.state_type.__name__}, got "
                f"{type(state).__name__}; give the state of a search by {self.strategy.name}"
            )
        self._state, self._asked = state, None

    @property
    def generation(self) -> int:
        """The generation that `ask` gives next, or has given."""
        return self.state.generation

    def ask(self) -> F32:
        """Points (n, dimensions) to be evaluated; asked twice, the same points.

        After a sharp drop of fitness n is larger for one generation: former best ones come back.
        """
        if self._asked is None:
            self._asked = self.strategy.ask(self.state)
        return self._points(self._asked)

    def _points(self, population: Population) -> F32:
        """A linear network's output for the observation 1: weight plus bias."""
        half = population.weights.shape[1] // 2
        points: F32 = population.weights[:, :half] + population.weights[:, half:]
        return points

    def tell(self, fitness: Sequence[float] | ArrayLike) -> None:
        """Fitness (n,) of the points asked, the larger the better; not finite ranks last.

        Raises `ValueError` for anything but one number a point, and before anything was asked.
        """
        if self._asked is None:
            raise ValueError("tell was called before ask; call ask first")
        values = _numbers(fitness, len(self._asked))
        ranked = clean(values)
        row = int(np.argmax(ranked))
        if self.best is None or ranked[row] > self.best_fitness:
            self.best, self.best_fitness = self._points(self._asked)[row], float(ranked[row])
        self.history.append(float(ranked[row]))
        self._state = self.strategy.tell(self._state, self._asked, values)
        self._asked = None
        if self.on_generation is not None:
            self.on_generation(self)

    def __repr__(self) -> str:
        return (
            f"Search({self.strategy.name}, {self.dimensions} dimensions, generation "
            f"{self.generation}, best {self.best_fitness:g})"
        )


def _whole(dimensions: Any) -> int:
    try:
        if isinstance(dimensions, bool) or (whole := operator.index(dimensions)) < 1:
            raise TypeError
    except TypeError:
        raise ConfigError(
            f"Search needs a whole number of dimensions, at least one dimension, got {dimensions!r}"
        ) from None
    return whole


def _numbers(fitness: Any, count: int) -> F64:
    try:
        given = np.asarray(fitness)
        if np.iscomplexobj(given):
            raise TypeError("complex numbers have no order; give their real part or magnitude")
        values: F64 = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"tell takes {count} numbers, one for each point, got a {type(fitness).__name__} of "
            f"something else: {error}"
        ) from error
    if values.shape != (count,):
        raise ValueError(
            f"tell takes one number for each point, shape ({count},), got shape {values.shape}"
        )
    return values
