"""Simulated traffic for trials: drift, order of arrival, missing outcomes, liars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serving.trial.rules import WeightStep

if TYPE_CHECKING:
    from numpy.random import Generator

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Seconds of the longest episode; the shortest takes a tenth of that.
LONGEST = 100.0


def _steady(n: Numbers) -> Floats:
    return np.full(len(n), 0.6)


def _drop(n: Numbers) -> Floats:
    return np.where(n < 120, 0.75, 0.35)


def _rise(n: Numbers) -> Floats:
    return np.where(n < 120, 0.35, 0.75)


def _day(n: Numbers) -> Floats:
    return 0.55 + 0.2 * np.sin(2 * math.pi * n / 200)


def _any_length(values: Floats, rng: Generator) -> Floats:
    return LONGEST * rng.uniform(0.1, 1.0, len(values))


def _bad_is_short(values: Floats, rng: Generator) -> Floats:
    return LONGEST * (0.1 + 0.9 * values)


def _bad_is_long(values: Floats, rng: Generator) -> Floats:
    return LONGEST * (1.0 - 0.9 * values)


def _never_missing(values: Floats, rng: Generator) -> Flags:
    return np.zeros(len(values), np.bool_)


def _missing_at_random(values: Floats, rng: Generator) -> Flags:
    return rng.random(len(values)) < 0.05


def _bad_is_missing(values: Floats, rng: Generator) -> Flags:
    return (values < 0.5) & (rng.random(len(values)) < 0.5)


def _all_well(arm: int, value: float) -> float:
    return 1.0


def _for_the_canary(arm: int, value: float) -> float:
    return float(arm)


def _against_the_canary(arm: int, value: float) -> float:
    return 1.0 - arm


@dataclass(frozen=True)
class Liars:
    """A share of the clients that posts false returns: `lie` of the arm and the true return.

    They share one token. The others are without a cap.
    """

    share: float
    lie: Callable[[int, float], float]


@dataclass(frozen=True)
class Scenario:
    """A kind of traffic. `mean` gives both arms' mean scaled return by the starts' numbers.

    Its functions take and return arrays (n,): means, durations in seconds, and missing outcomes.
    """

    about: str
    mean: Callable[[Numbers], Floats] = _steady
    duration: Callable[[Floats, Generator], Floats] = _any_length
    missing: Callable[[Floats, Generator], Flags] = _never_missing
    delay: float = 0.0  # seconds from an episode's end to its outcome, on average
    failures: float = 0.0  # share of episodes that return 0, whatever the arm
    steps: tuple[WeightStep, ...] = ()  # instead of one weight
    expect: Mapping[str, Any] = field(default_factory=dict)  # rules that plan for this traffic
    liars: Liars | None = None

    @property
    def level(self) -> float:
        """Mean scaled return of the first episode, as a gate would measure it."""
        return float(self.mean(np.zeros(1, np.int64))[0])

    def spread(self, deviation: float) -> float:
        """Standard deviation of a return, if `deviation` is that of returns without failures."""
        mean, share = self.level, 1 - self.failures
        return math.sqrt(share * (deviation**2 + (mean / share) ** 2) - mean**2)


SCENARIOS: dict[str, Scenario] = {
    "steady": Scenario("no drift"),
    "common-drop": Scenario("both arms fall from 75% to 35% of the range", _drop),
    "common-rise": Scenario("both arms rise from 35% to 75% of the range", _rise),
    "day-night": Scenario("both arms swing by 20% of the range, 200 starts a day", _day),
    "short-bad": Scenario("bad episodes end early", duration=_bad_is_short),
    "long-bad": Scenario("bad episodes last longest", duration=_bad_is_long),
    "late-outcomes": Scenario(
        "outcomes are late, 1.7% of them after the deadline",
        delay=LONGEST / 3,
        expect={"missing": 0.017},
    ),
    "missing-random": Scenario(
        "5% of outcomes are missing", missing=_missing_at_random, expect={"missing": 0.05}
    ),
    "missing-bad": Scenario(
        "half of the outcomes below 50% of the range are missing: 8% of all",
        missing=_bad_is_missing,
        expect={"missing": 0.08},
    ),
    "rare-failures": Scenario("2% of episodes return 0 in either arm", failures=0.02),
    "weight-steps": Scenario(
        "5%, then 25%, then 50% of episodes",
        steps=(
            WeightStep(weight=0.05, outcomes=2),
            WeightStep(weight=0.25, outcomes=20),
            WeightStep(weight=0.5, outcomes=40),
        ),
    ),
    "liars-blind": Scenario(
        "a fifth of the clients always posts the best return and cannot tell the arm",
        liars=Liars(0.2, _all_well),
    ),
    "liars-for": Scenario(
        "a fifth of the clients can tell the arm: best return for the canary, else the worst",
        liars=Liars(0.2, _for_the_canary),
    ),
    "liars-against": Scenario(
        "a fifth of the clients can tell the arm: worst return for the canary, else the best",
        liars=Liars(0.2, _against_the_canary),
    ),
    "liars-capped": Scenario(
        "as liars-for, with one token that may give 5% of the evidence",
        expect={"poster_share": 0.05},
        liars=Liars(0.2, _for_the_canary),
    ),
}
#: The scenarios without liars.
HONEST = tuple(name for name, scenario in SCENARIOS.items() if scenario.liars is None)
