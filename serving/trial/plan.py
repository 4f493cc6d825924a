"""How many episodes a trial will take, before it starts.

With the planned bet k on steps x = v (D - m) the log capital drifts by g = E[log(1 + k x)], to
second order k mu - k^2 (sigma^2 + mu^2) / 2, and spreads by k sigma a step. Half of the capital is
on that bet, so a decision needs log(2 / alpha): n = ((a + sqrt(a^2 + 4 g log(2 / alpha))) / 2g)^2
with a = z k sigma, z = 0 for the median and 1.2816 for nine trials in ten. Simulated ninth deciles
were 68 to 101% of it (`srghn canary simulate`). RESERVE is added for a baseline that has to find
the level of returns, and to follow it where the world drifts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from serving.trial.evidence import LARGEST, planned_bet
from serving.trial.rules import TrialRules

NINE_IN_TEN = 1.2816
#: Episodes at a weight of one half; more at others, as the variance of D grows.
RESERVE = 40


@dataclass(frozen=True)
class Length:
    """Episodes of both arms until a decision: in half of the trials, and in nine of ten.

    None: the trial is not expected to be decided within `TrialRules.max_episodes`.
    """

    median: int | None
    nine_in_ten: int | None


@dataclass(frozen=True)
class Plan:
    """What to expect of a trial. `better` and `worse` are by `effect`, a share of the range."""

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
        """Why an equal canary would probably not be decided, and what to do; None if it would."""
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
        """How long a decision takes, for people; where it would probably not be decided, why."""
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

    `mean` is the expected scaled return of both arms, in [0, 1]: what is missing counts as 0 and
    as 1, which spreads more the farther the mean lies from it.
    """
    size = 2 * rules.margin if effect is None else effect
    spread = _spread(rules, mean)
    kept = 1 - rules.missing
    bet = planned_bet(rules)

    def length(mean_step: float, bets: tuple[float, ...]) -> Length:
        found = [_length(rules, mean_step, spread, k, z) for k in bets for z in (0, NINE_IN_TEN)]
        medians, most = found[::2], found[1::2]
        return Length(_least(medians, rules), _least(most, rules))

    return Plan(
        weight=rules.weight,
        margin=rules.margin,
        deviation=rules.deviation,
        missing=rules.missing,
        effect=size,
        equal=length(rules.margin, (bet,)),
        better=length(rules.margin + kept * size, (bet,)),
        worse=length(kept * size, (bet,)),
        max_episodes=rules.max_episodes,
    )


def _spread(rules: TrialRules, mean: float) -> float:
    """Standard deviation of D, in shares of the range."""
    w, q = rules.weight, rules.missing
    variance = (1 - q) * rules.deviation**2 + q * max(mean, 1 - mean) ** 2
    return math.sqrt(variance / (w * (1 - w)))


def _length(rules: TrialRules, mean: float, spread: float, bet: float, z: float) -> float:
    """Episodes until the planned bet decides; infinite where it loses."""
    k = min(bet, LARGEST) * min(rules.weight, 1 - rules.weight)
    growth = k * mean - k * k * (spread**2 + mean**2) / 2
    if growth <= 0:
        return math.inf
    a = z * k * spread
    root = math.sqrt(a * a + 4 * growth * math.log(2 / rules.alpha))
    reserve = RESERVE / (4 * rules.weight * (1 - rules.weight))
    return ((a + root) / (2 * growth)) ** 2 + reserve + _warm_up(rules)


def _warm_up(rules: TrialRules) -> float:
    """Episodes spent on the first, small weights."""
    spent, before = 0.0, 0
    for step in rules.steps[:-1]:
        spent += max(step.outcomes - before, 0) / step.weight / (1 - rules.missing)
        before = max(before, step.outcomes)
    return spent


def _least(lengths: list[float], rules: TrialRules) -> int | None:
    found = min(lengths)
    return math.ceil(found) if found <= rules.max_episodes else None
