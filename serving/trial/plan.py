"""Predicts how many episodes a trial will take, before it starts.

`serving.trial.bets` has the formula for returns without drift. SLACK and RESERVE allow for what it
leaves out: the baseline must first find the level of returns and follow its drift, and episodes may
differ from those of the gate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.trial.bets import NINE_IN_TEN, Expected, episodes, planned_bet
from serving.trial.rules import TrialRules

#: Factor on the formula's number of episodes.
SLACK = 1.1
#: Episodes at a weight of one half; more at other weights, because the variance of D grows.
RESERVE = 60


@dataclass(frozen=True)
class Length:
    """Episodes of both arms until a decision: in half of the trials, and in nine of ten.

    None: the trial is not expected to be decided within `TrialRules.max_episodes`.
    """

    median: int | None
    nine_in_ten: int | None


@dataclass(frozen=True)
class Plan:
    """The prediction for a trial. `better` and `worse` are by `effect`, a share of the range."""

    weight: float
    margin: float
    deviation: float
    missing: float
    effect: float
    equal: Length
    better: Length
    worse: Length
    max_episodes: int

    @property
    def problem(self) -> str | None:
        """Why a trial of an equal canary would probably stay undecided, and the remedy; or None."""
        if self.equal.nine_in_ten is not None:
            return None
        when = "in most trials" if self.equal.median is None else "in one trial of ten or more"
        return (
            f"an equal canary stays undecided {when}: within {self.max_episodes} episodes at "
            f"weight {self.weight:g}, margin {100 * self.margin:g}%, standard deviation "
            f"{100 * self.deviation:g}% and {100 * self.missing:g}% missing outcomes; raise "
            "max_episodes, margin or weight, or see why outcomes go missing"
        )

    @property
    def said(self) -> str:
        """The time to a decision, as text; or why there would probably be none."""
        if self.problem is not None:
            return self.problem
        effect = f"{100 * self.effect:g}%"
        lengths = (("an equal canary", self.equal), (f"one better by {effect}", self.better),
                   (f"one worse by {effect}", self.worse))  # fmt: skip
        parts = [
            f"{name} in {length.median or 'no'} episodes in half of the trials"
            + (f", {length.nine_in_ten} in nine of ten" if length.nine_in_ten else "")
            for name, length in lengths
        ]
        return f"{'; '.join(parts)}; with {100 * self.missing:g}% of outcomes missing"

    def to_json(self) -> dict[str, Any]:
        data = {**vars(self), "problem": self.problem}
        return data | {name: vars(data[name]) for name in ("equal", "better", "worse")}


def plan(rules: TrialRules, effect: float | None = None, mean: float = 0.5) -> Plan:
    """Lengths for an equal canary, and for one better or worse by `effect` (twice the margin).

    `mean` is the expected scaled return of both arms, in [0, 1]. Missing outcomes count as 0 and
    as 1; the farther these are from the mean, the more they spread.
    """
    size = 2 * rules.margin if effect is None else effect
    level = min(max(mean, 0.01), 0.99)

    def length(by: float, harm: bool = False) -> Length:
        expected = Expected(rules.weight, rules.deviation, rules.missing, level, by)
        return Length(*(_episodes(rules, expected, z, harm) for z in (0.0, NINE_IN_TEN)))

    return Plan(
        weight=rules.weight,
        margin=rules.margin,
        deviation=rules.deviation,
        missing=rules.missing,
        effect=size,
        equal=length(0.0),
        better=length(size),
        worse=length(-size, harm=True),
        max_episodes=rules.max_episodes,
    )


def _episodes(rules: TrialRules, expected: Expected, z: float, harm: bool) -> int | None:
    """Episodes until a decision; None if there is none within `max_episodes`."""
    bet = np.array([planned_bet(rules)])
    alpha = rules.alpha if harm else rules.promote_alpha
    taken = float(episodes(expected, bet, rules.margin, alpha, z=z, harm=harm)[0])
    reserve = RESERVE / (4 * rules.weight * (1 - rules.weight)) + _warm_up(rules)
    found = SLACK * taken + reserve
    return math.ceil(found) if found <= rules.max_episodes else None


def _warm_up(rules: TrialRules) -> float:
    """Episodes spent on the first, small weights."""
    spent, before = 0.0, 0
    for step in rules.steps[:-1]:
        spent += max(step.outcomes - before, 0) / step.weight / (1 - rules.missing)
        before = max(before, step.outcomes)
    return spent
