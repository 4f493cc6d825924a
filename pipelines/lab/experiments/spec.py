"""The parts of an experiment: arms to compare, the criterion of a solution, and targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from srghn.config import RunParams, parse_params, with_overrides


@dataclass(frozen=True)
class Target:
    """A claim with its number: `value` is the result and `wanted` the target, both as text."""

    name: str
    wanted: str
    value: str
    hit: bool


@dataclass(frozen=True)
class Recovery:
    """One phase of one run, from a switch (or the start) to the next.

    generations  from `start` until the champion solved the test; None: never
    evaluations  episodes until then
    peak, rest   highest mutation rate in the phase's first 50 generations, and the median of its
                 last tenth
    scores       of the champion at the phase's end, by mode, and by each of the further networks
    """

    phase: int
    mode: str
    start: int
    generations: int | None
    evaluations: int | None
    peak: float
    rest: float
    scores: Mapping[str, float]

    @property
    def fall(self) -> float:
        return over(self.peak, self.rest)


def over(peak: float, rest: float) -> float:
    """How many times the rest the peak is: infinite where the rate went down to nothing."""
    return peak / rest if rest else math.inf


@dataclass(frozen=True)
class Outcome:
    """One run of one arm."""

    arm: str
    seed: int
    phases: tuple[Recovery, ...]

    @property
    def after_switches(self) -> tuple[Recovery, ...]:
        return self.phases[1:]

    @property
    def judged(self) -> tuple[Recovery, ...]:
        """The phases that count: those after switches, or the only one if nothing switches."""
        return self.after_switches or self.phases


@dataclass(frozen=True)
class Experiment:
    """Arms share the parameters `base`; each has overrides, nested like the parameters.

    solved         the champion's mean return at which a phase counts as solved
    test_episodes  fixed episodes that champions are tested on; 0: their training fitness is exact
    test_every     generations from one test of champions to the next, until the phase is solved
    seeds          default number of seeds
    log_error      fitness is minus an error, drawn on a log axis
    seeded         further parameters that depend on a run's seed, nested like the parameters
    sets           `section.key=value` of the command line, for every arm
    budget         evaluations of each run, which decide its generations, whatever is set
    until_solved   a run ends in the generation in which its last phase is solved
    tested         modes in which a champion is tested at the end of a phase: all, its own and the
                   next one's, or its own
    networks       name -> network.kwargs of networks that were not evolved, for which the
                   champion's genome makes weights at the end of a phase
    """

    name: str
    title: str
    question: str
    base: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    solved: float
    test_episodes: int
    seeds: int
    targets: Callable[[Sequence[Outcome]], list[Target]]
    log_error: bool = False
    seeded: Callable[[int], Mapping[str, Any]] = lambda seed: {}
    sets: tuple[str, ...] = ()
    budget: int | None = None
    until_solved: bool = False
    test_every: int = 1
    tested: Literal["all", "next", "own"] = "all"
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def params(self, arm: str, seed: int) -> RunParams:
        """The parameters of one run."""
        merged = _merge(_merge(self.base, self.arms[arm]), {"evolution": {"seed": seed}})
        merged = _merge(merged, self.seeded(seed))
        given = parse_params(merged, f"experiment {self.name}, arm {arm}")
        params = with_overrides(given, self.sets)
        if self.budget is None:
            return params
        generations = self.budget // episodes_of_a_generation(params)
        evolution = params.evolution.model_copy(update={"generations": generations})
        return params.model_copy(update={"evolution": evolution})


def episodes_of_a_generation(params: RunParams) -> int:
    """Children and those evaluated again, without guests from memory, with each network."""
    evolution = params.evolution
    again = evolution.elites if evolution.selection == "comma" else evolution.parents
    individuals = evolution.parents * evolution.children + again
    return individuals * evolution.episodes * len(params.networks)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) else value
    return merged
