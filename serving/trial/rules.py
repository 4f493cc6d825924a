"""The rules by which a trial runs and is decided: a part of a policy's deployment rules."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

from pydantic import Field, model_validator

from srghn.config import CanaryParams, Params

#: Share of a trial's first step, and the canary's outcomes that end it. The share is small because
#: a canary that breaks at once should meet few clients.
FIRST_WEIGHT, FIRST_OUTCOMES = 0.05, 2


#: Outcomes that a trial needs for a decision where posters have a cap. A poster's cap is never less
#: than its share of these, or nobody could be the first.
CAP_FROM = 20


def within_share(own: int, total: int, share: float) -> bool:
    """Whether one more outcome of a poster, of whom `own` of `total` are evidence, is so, too."""
    return own < math.ceil(share * max(total + 1, CAP_FROM))


class WeightStep(Params):
    """The canary's share of new episodes until it has ended `outcomes` of them."""

    weight: float = Field(gt=0, lt=1)
    outcomes: int = Field(0, ge=0, description="outcomes of the canary before the next step")


class TrialTerms(Params):
    """A policy's deployment rules for trials; shares are of the range of returns."""

    margin: float = Field(
        0.05, gt=0, lt=1, description="loss that is still acceptable, as a share of the range"
    )
    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="probability of a wrong promotion, and of a wrong abort"
    )
    steps: tuple[WeightStep, ...] = Field(
        (
            WeightStep(weight=FIRST_WEIGHT, outcomes=FIRST_OUTCOMES),
            WeightStep(weight=0.5, outcomes=20),
        ),
        min_length=1,
        description="steps of the weight; a promotion needs the last step's outcomes",
    )
    max_episodes: int = Field(2000, ge=2, description="episodes after which the trial expires")
    deadline: float = Field(
        3600.0,
        gt=0,
        description="seconds after its start at which an episode's outcome counts as missing; "
        "at most twice the longest episode",
    )
    idle: float = Field(
        604_800.0,
        gt=0,
        description="seconds without a new episode or a step of the trial after which it expires",
    )
    missing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="expected share of missing outcomes; 0: the share measured in service",
    )
    guard_alpha: float = Field(
        0.005, gt=0, lt=0.5, description="false-alarm rate of the sample-ratio and missing tests"
    )
    spending: Literal["none", "candidates"] = Field(
        "none",
        description="candidates: divide the alpha of promotions among all candidates on trial "
        "against one champion",
    )
    strict_missing: bool = Field(
        False,
        description="missing outcomes count against the decision: 0 for the canary and 1 for the "
        "champion before a promotion, the reverse before an abort",
    )

    @property
    def weight(self) -> float:
        """The last weight, at which nearly all evidence is collected."""
        return self.steps[-1].weight


class TrialRules(TrialTerms):
    """The rules of one trial. Returns are clipped to its range and scaled to [0, 1]."""

    poster_share: float = Field(
        1.0, gt=0, le=1, description="largest share of the evidence that one token may give"
    )
    promote_share: float = Field(
        1.0, gt=0, le=1, description="share of alpha that is left for this one's promotion"
    )
    low: float = Field(0.0, description="return that counts as 0")
    high: float = Field(500.0, description="return that counts as 1")
    deviation: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="expected standard deviation of a return, as a share of the range; it decides "
        "the bets and the trial's length, but every decision is valid whatever it is",
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrialRules:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        return self

    @property
    def promote_alpha(self) -> float:
        """Probability of a promotion that is wrong; `alpha` is that of a wrong abort."""
        return self.alpha * self.promote_share

    def scale(self, return_: float) -> float:
        """A return, clipped to the range and mapped to [0, 1]."""
        return min(max((return_ - self.low) / (self.high - self.low), 0.0), 1.0)

    def outside(self, return_: float) -> bool:
        """Whether a return is outside the range, and so is clipped."""
        return not self.low <= return_ <= self.high

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def read(cls, text: str) -> TrialRules:
        """Rules from the ledger's text; those of version 0.2.0 are a run's `canary` section."""
        data = json.loads(text)
        if "return_low" in data:
            return terms_of(CanaryParams.model_validate(data))
        return cls.model_validate(data)


class GuardTerms(Params):
    """When a guard ends a trial, whatever the returns are."""

    alpha: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="probability that any guard ends the trial of a version that is no worse, "
        "however long it runs",
    )
    latency: float = Field(
        default=2.0,
        ge=1,
        description="limit of the tried version's time to answer, in champion's times",
    )
    slack_ms: float = Field(
        default=1.0, ge=0, description="milliseconds that are added to this limit"
    )

    def slow(self, seconds: float, champion_seconds: float) -> bool:
        return seconds > self.latency * champion_seconds + self.slack_ms / 1000


def terms_of(
    params: CanaryParams,
    terms: TrialTerms | None = None,
    deviation: float | None = None,
    poster_share: float = 1.0,
) -> TrialRules:
    """The rules of one trial.

    The range is the one that the gate judged in. The rest is from the policy's deployment rules
    (`terms`). Without them it is from the run's `canary` section, after a first step at a small
    weight. `deviation` is the standard deviation of returns as a share of the range; None: the
    default.
    """
    held = {"low": params.return_low, "high": params.return_high}  # numbers, once registered
    held["poster_share"] = poster_share
    if deviation is not None:
        held["deviation"] = min(max(deviation, 0.01), 0.5)
    if terms is not None:
        return TrialRules(**terms.model_dump(), **held)
    last = WeightStep(weight=params.weight, outcomes=params.min_episodes)
    first = WeightStep(weight=FIRST_WEIGHT, outcomes=min(FIRST_OUTCOMES, params.min_episodes))
    return TrialRules(
        margin=params.margin,
        alpha=1 - params.confidence,
        steps=(first, last) if params.weight > FIRST_WEIGHT else (last,),
        max_episodes=params.max_episodes,
        **held,
    )
