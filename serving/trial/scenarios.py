"""Kinds of traffic that a trial may meet: drift, order of arrival, missing outcomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serving.trial.rules import WeightStep

if TYPE_CHECKING:
    from numpy.random import Generator

#: Seconds of the longest episode; the shortest takes a tenth of it.
LONGEST = 100.0


def _steady(n: int) -> float:
    return 0.6


def _drop(n: int) -> float:
    return 0.75 if n < 120 else 0.35


def _rise(n: int) -> float:
    return 0.35 if n < 120 else 0.75


def _day(n: int) -> float:
    return 0.55 + 0.2 * math.sin(2 * math.pi * n / 200)


def _any_length(value: float, rng: Generator) -> float:
    return LONGEST * rng.uniform(0.1, 1.0)


def _bad_is_short(value: float, rng: Generator) -> float:
    return LONGEST * (0.1 + 0.9 * value)


def _bad_is_long(value: float, rng: Generator) -> float:
    return LONGEST * (1.0 - 0.9 * value)


def _never_missing(value: float, rng: Generator) -> bool:
    return False


def _missing_at_random(value: float, rng: Generator) -> bool:
    return rng.random() < 0.05


def _bad_is_missing(value: float, rng: Generator) -> bool:
    return value < 0.5 and rng.random() < 0.5


def _all_well(arm: int, value: float) -> float:
    return 1.0


def _for_the_canary(arm: int, value: float) -> float:
    return float(arm)


def _against_the_canary(arm: int, value: float) -> float:
    return 1.0 - arm


@dataclass(frozen=True)
class Liars:
    """A share of the clients posts what it likes; `lie` gives that by arm and true return.

    `poster_share`: they share one token, and the deployment rules allow it this share of the
    evidence; what is beyond it is missing.
    """

    share: float
    lie: Callable[[int, float], float]
    poster_share: float = 1.0


@dataclass(frozen=True)
class Scenario:
    """A kind of traffic. `mean` of both arms' scaled return by number of the start."""

    about: str
    mean: Callable[[int], float] = _steady
    duration: Callable[[float, Generator], float] = _any_length
    missing: Callable[[float, Generator], bool] = _never_missing
    delay: float = 0.0  # seconds from an episode's end to its outcome, on average
    failures: float = 0.0  # share of episodes that return 0, whatever the arm
    steps: tuple[WeightStep, ...] = ()  # instead of one weight
    expect: Mapping[str, Any] = field(default_factory=dict)  # rules that this traffic is planned by
    liars: Liars | None = None


SCENARIOS: dict[str, Scenario] = {
    "steady": Scenario("nothing moves"),
    "common-drop": Scenario("both arms fall from 75% to 35% of the range", _drop),
    "common-rise": Scenario("both arms rise from 35% to 75% of the range", _rise),
    "day-night": Scenario("both arms swing by 20% of the range, 200 starts a day", _day),
    "short-bad": Scenario("bad episodes end early", duration=_bad_is_short),
    "long-bad": Scenario("bad episodes last longest", duration=_bad_is_long),
    "late-outcomes": Scenario("outcomes come late, some after the deadline", delay=LONGEST / 3),
    "missing-random": Scenario(
        "5% of outcomes never come", missing=_missing_at_random, expect={"missing": 0.05}
    ),
    "missing-bad": Scenario(
        "half of the outcomes below 50% of the range never come", missing=_bad_is_missing
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
        "a fifth of the clients posts the best return whatever happened: they cannot tell the arm",
        liars=Liars(0.2, _all_well),
    ),
    "liars-for": Scenario(
        "a fifth of the clients can tell the arm, and posts the best of the canary, the worst else",
        liars=Liars(0.2, _for_the_canary),
    ),
    "liars-against": Scenario(
        "a fifth of the clients can tell the arm, and posts the worst of the canary, the best else",
        liars=Liars(0.2, _against_the_canary),
    ),
    "liars-capped": Scenario(
        "as liars-for by one token, which may post 5% of the evidence",
        liars=Liars(0.2, _for_the_canary, 0.05),
    ),
}
#: Those without liars: all that a trial meets by itself.
HONEST = tuple(name for name, scenario in SCENARIOS.items() if scenario.liars is None)
