"""Ask and tell with an objective of your own: no environment, no folder, no parameters file."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from srghn.config import EvolutionParams, parse_params
from srghn.envs.interface import Interface
from srghn.errors import ConfigError, expect_function
from srghn.evolution.base import F32, F64, Population, State, Strategy, asked, told
from srghn.evolution.registry import STRATEGIES, make_strategy
from srghn.evolution.selection import check_elites, clean
from srghn.ghn import GHN
from srghn.notebook import card
from srghn.params import unknown

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


#: What is for strategies with births: those that keep a distribution select in their own way.
OF_BIRTHS = ("selection", "tournament_size", "elites", "family_limit", "ties")
#: What `evolution` parameters are left, but for those that have arguments of their own.
KNOWN = tuple(
    name
    for name in EvolutionParams.model_fields
    if name not in (*OF_RUNS, "strategy", "seed", "options")
)


class Search:
    """Maximises a function of `dimensions` numbers: it asks for points, and is told their fitness.

        search = Search(dimensions=3, seed=1)
        for _ in range(60):
            points = search.ask()  # (n, 3)
            search.tell([-((point - 2) ** 2).sum() for point in points])
        print(search.best, search.best_fitness)

    dimensions     how many numbers a point has, 1 or more
    strategy       a name in `STRATEGIES`, or an import path `module:factory`
    seed           the same seed and the same fitness give the same points, to the bit
    options        the strategy's own, as `evolution.options` in `params.yaml`
    ghn            parameters of the hypernetwork, as in `params.yaml`
    on_generation  called with the search after each `tell`
    **evolution    `parents`, `children`, `selection` and others of `evolution` in `params.yaml`;
                   those of `OF_RUNS` are refused

    A generation has at most `parents * (1 + children)` points, float32, whichever the strategy; in
    the one after a sharp drop of fitness, up to `memory` more. The strategy itself is pure: what it
    remembers is `search.state`, from a copy of which a search goes on.

    best, best_fitness  of all generations told; None and minus infinity before the first
    last_best           the last generation's: where the function changes, `best` may be long out
                        of date
    history             each generation's best fitness

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
        _check_known(evolution)
        expect_function(on_generation, "Search: on_generation")
        chosen = {"strategy": strategy, "seed": seed, "options": options or {}, **evolution}
        self.params = parse_params(
            {
                "network": {"module": "srghn.policies:Point", "kwargs": {}},
                "ghn": ghn or {},
                "evolution": chosen,
            },
            "Search",
        )
        self.dimensions, self.on_generation = dimensions, on_generation
        free = (None,)
        line = Interface(1, free, free, "box", (dimensions,), action_low=free, action_high=free)
        self.strategy: Strategy[Any] = make_strategy(self.params, line)
        size = self.params.evolution.parents * (1 + self.params.evolution.children)
        _check_used(self.strategy, evolution, ghn, size)
        check_elites(self.params.evolution)
        self._state: State = self.strategy.init(seed)
        self.best: F32 | None = None
        self.last_best: F32 | None = None
        self.best_fitness = -np.inf
        self.history: list[float] = []
        self._asked: Population | None = None

    @property
    def state(self) -> State:
        """All that the strategy remembers; to set it is to go on from there.

        Points asked before are void then; `best` and `history` stay what they are. Raises
        `ConfigError` for the state of another kind of search.
        """
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        if not isinstance(state, self.strategy.state_type):
            raise ConfigError(
                f"search.state: expected {self.strategy.state_type.__name__}, got "
                f"{type(state).__name__}; give the state of a search by {self.strategy.name}"
            )
        try:
            _check_shapes(state, self.strategy.init(0))
            self._points(state)
        except (ValueError, IndexError) as error:  # arrays that do not fit together
            raise ConfigError(
                f"search.state: not the state of a search by {self.strategy.name} in "
                f"{self.dimensions} dimensions: {error}; give one with the same parameters"
            ) from error
        self._state, self._asked = state, None

    def _points(self, state: State) -> Population:
        population = asked(self.strategy, state)
        if population.weights.shape != (len(population), self.dimensions):
            raise ValueError(
                f"{self.strategy.name} gave points of shape {population.weights.shape}, expected "
                f"({len(population)}, {self.dimensions})"
            )
        return population

    @property
    def generation(self) -> int:
        """The generation that `ask` gives next, or has given."""
        return self.state.generation

    def ask(self) -> F32:
        """Points (n, dimensions) to be evaluated; asked twice, the same points.

        After a sharp drop of fitness n is larger for one generation: former best ones come back.
        Raises `ConfigError` or `ValueError` for a strategy of one's own that gives something else.
        """
        if self._asked is None:
            self._asked = self._points(self.state)
        return self._asked.weights.copy()  # the caller's own, since genomes may share the bytes

    def tell(self, fitness: Sequence[float] | ArrayLike) -> None:
        """Fitness (n,) of the points asked, the larger the better; not finite ranks last.

        Warns where none is finite. Raises `ValueError` for anything but one number a point, and
        before anything was asked.
        """
        if self._asked is None:
            raise ValueError("tell was called before ask; call ask first")
        values = _numbers(fitness, len(self._asked))
        ranked = clean(values)
        row = int(np.argmax(ranked))
        self.last_best = None
        if ranked[row] > -np.inf:
            self.last_best = self._asked.weights[row].copy()
            if ranked[row] > self.best_fitness:
                self.best, self.best_fitness = self.last_best.copy(), float(ranked[row])
        else:
            warnings.warn(
                f"no fitness of generation {self.generation} is finite, so it says nothing",
                RuntimeWarning,
                stacklevel=2,
            )
        self.history.append(float(ranked[row]))
        self._state = told(self.strategy, self._state, self._asked, values)
        self._asked = None
        if self.on_generation is not None:
            self.on_generation(self)

    def __repr__(self) -> str:
        return (
            f"Search({self.strategy.name}, {self.dimensions} dimensions, generation "
            f"{self.generation}, best {self.best_fitness:g})"
        )

    def _repr_html_(self) -> str:
        best = None if self.best is None else np.array2string(self.best, precision=4, threshold=8)
        rows = {
            "strategy": self.strategy.name,
            "dimensions": self.dimensions,
            "generation": self.generation,
            "best fitness": float(self.best_fitness),
            "best": best,
        }
        return card("Search", rows)


def _whole(dimensions: Any) -> int:
    try:
        if isinstance(dimensions, bool) or (whole := operator.index(dimensions)) < 1:
            raise TypeError
    except TypeError:
        raise ConfigError(
            f"Search needs a whole number of dimensions, at least one dimension, got {dimensions!r}"
        ) from None
    return whole


def _check_known(evolution: dict[str, Any]) -> None:
    if unused := [name for name in OF_RUNS if name in evolution]:
        raise ConfigError(
            f"Search has one function, without networks, episodes or an end: leave out "
            f"{', '.join(unused)}, which evolve takes"
        )
    for name in evolution:
        if name not in KNOWN:
            hint = "; the size of a population is parents * (1 + children)"
            raise ConfigError(
                f"Search: {unknown(name, dict.fromkeys(KNOWN))}{hint if 'pop' in name else ''}"
            )


def _check_used(strategy: Strategy[Any], evolution: Any, ghn: Any, size: int) -> None:
    """Raise for parameters that would say nothing; of a strategy of one's own nobody knows."""
    if strategy.name not in STRATEGIES:
        return
    idle = [name for name in OF_BIRTHS if name in evolution and strategy.encoding is None]
    if ghn and not isinstance(strategy.encoding, GHN):
        idle.append("ghn")
    if idle:
        raise ConfigError(f"Search: {strategy.name} has no use for {', '.join(idle)}; leave it out")
    if strategy.name in ("openes", "snes") and size < 3:  # a mean and two samples
        raise ConfigError(
            f"Search: {strategy.name} needs a generation of at least 3 points, parents * "
            f"(1 + children), got {size}; give more parents or children"
        )


def _check_shapes(state: State, first: State) -> None:
    """Raise `ValueError` for an array of another size than a search's first state has.

    How many individuals there are may differ, and only their numbers are one-dimensional integers.
    """
    for name, wanted in vars(first).items():
        if not isinstance(wanted, np.ndarray):
            continue
        shape = np.shape(getattr(state, name))
        free = wanted.ndim > 1 or wanted.dtype.kind != "f"
        if len(shape) != wanted.ndim or shape[free:] != wanted.shape[free:]:
            raise ValueError(f"{name} has shape {shape}, expected {wanted.shape}")


def _numbers(fitness: Any, count: int) -> F64:
    hidden = np.ma.getmaskarray(fitness) if isinstance(fitness, np.ma.MaskedArray) else None
    try:
        given = np.asarray(fitness)
        if np.iscomplexobj(given):
            raise TypeError("complex numbers have no order; give their real part or magnitude")
        if given.dtype.kind in "USMmV":
            raise TypeError(f"{given.dtype} is no number")
        if given.dtype.kind == "O":  # None would become NaN
            given = np.array([float(value) for value in given.ravel()]).reshape(given.shape)
        values: F64 = given.astype(np.float64)
        if hidden is not None:  # a masked value is none
            values[hidden] = np.nan
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(
            f"tell takes {count} numbers, one for each point, got a {type(fitness).__name__} of "
            f"something else: {error}"
        ) from error
    if values.shape != (count,):
        raise ValueError(
            f"tell takes one number for each point, shape ({count},), got shape {values.shape}"
        )
    return values
