"""Chooses the bets of a trial before it starts, and predicts the time to its decision.

All constant bets are valid (`srghn.inference.capital`); the choice only affects the time. The
planned bet is the one with which nine equal canaries of ten are decided in the fewest episodes.
Kelly's bet, which grows fastest on average, is larger, and its unluckiest tenth takes longer.

With a bet k on steps x the log capital drifts by g = E[log(1 + k x)] and spreads by
s = sd[log(1 + k x)] an episode. A bet with the share p of the capital must reach
L = log(1 / (p alpha)). It does so by n = ((a + sqrt(a^2 + 4 g L)) / 2g)^2, a = z s, with z = 0 for
the median and 1.2816 for nine trials in ten. g and s are over the expected episodes: either arm,
returns one standard deviation above and below their mean, and the share of missing ones at the fill
(0 or 1) that takes longer. Simulated ninth deciles were 89 to 107% of n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from serving.trial.rules import TrialRules
from srghn.inference.capital import Mixture

Float64 = NDArray[np.float64]

#: Largest bet: a step of -1, the worst, then leaves a twentieth of the capital.
LARGEST = 0.95
#: Shares of the capital on the planned bet. The rest is on LARGEST 2^-k, k = 0..5, in case returns
#: spread differently than planned. Harm is of unknown size, so its share is smaller.
TO_PROMOTE, TO_ABORT, OTHERS = 0.85, 0.5, 6
#: The values that replace a missing outcome, in turn (fills).
FILLS = (0.0, 1.0)
NINE_IN_TEN = 1.2816
#: Bets that are compared, as shares of LARGEST.
_GRID = np.arange(1, 101) / 100


@dataclass(frozen=True)
class Bets:
    """The bets of a trial's capital, the same in all its attempts."""

    promote: Mixture
    harm: Mixture


@dataclass(frozen=True)
class Expected:
    """The expected episodes, as shares of the range of returns.

    `mean` and standard `deviation` of a return; share of `missing` outcomes; `effect`: the canary's
    mean minus the champion's.
    """

    weight: float
    deviation: float
    missing: float
    mean: float = 0.5
    effect: float = 0.0

    def steps(self, margin: float, harm: bool, fill: float) -> tuple[Float64, Float64]:
        """The steps of the bets against harm, or against a loss of the margin, and their shares."""
        w, sign = self.weight, -1 if harm else 1
        v = min(w, 1 - w)
        baseline = self.mean + w * self.effect
        found = []
        for arm, share in ((1, w), (0, 1 - w)):
            level = self.mean + arm * self.effect
            unit = sign * v * (arm - w) / (w * (1 - w))
            accepted = 0 if harm else v * margin
            for value, room, part in (
                (level + self.deviation, accepted, (1 - self.missing) / 2),
                (level - self.deviation, accepted, (1 - self.missing) / 2),
                (fill, 0, self.missing),
            ):
                step = unit * (value - baseline) + room
                found.append((max(step, -1.0), share * part))
        steps, shares = np.array(found).T
        return steps, shares


def bets_of(rules: TrialRules) -> Bets:
    """The bets of a trial that begins with these rules."""
    bet = planned_bet(rules)
    return Bets(
        Mixture.mostly_on(bet, TO_PROMOTE, LARGEST, OTHERS),
        Mixture.mostly_on(bet, TO_ABORT, LARGEST, OTHERS),
    )


def planned_bet(rules: TrialRules) -> float:
    """The bet that decides nine of ten equal canaries in the fewest episodes; in (0, LARGEST]."""
    expected = Expected(rules.weight, rules.deviation, rules.missing)
    return _planned(expected, rules.margin, rules.promote_alpha)


@lru_cache(maxsize=64)
def _planned(expected: Expected, margin: float, alpha: float) -> float:
    taken = episodes(expected, _GRID * LARGEST, margin, alpha, z=NINE_IN_TEN)
    return float(_GRID[int(np.argmin(taken))] * LARGEST)


def episodes(
    expected: Expected,
    bets: Float64,
    margin: float,
    alpha: float,
    *,
    z: float,
    harm: bool = False,
) -> Float64:
    """Episodes until each of `bets` (k,) decides, (k,); infinite if it loses on average.

    `harm`: until it shows harm, else until it shows that the canary is not worse by `margin`.
    """
    share = TO_ABORT if harm else TO_PROMOTE
    placed = np.where(np.isclose(bets, LARGEST), share + (1 - share) / OTHERS, share)
    target = np.log(1 / (alpha * placed))
    longest = np.zeros(len(bets))
    for fill in FILLS:
        steps, shares = expected.steps(margin, harm, fill)
        logs = np.log1p(bets[:, None] * steps)
        growth = logs @ shares
        spread = np.sqrt(np.maximum((logs**2) @ shares - growth**2, 0))
        longest = np.maximum(longest, _crossing(growth, z * spread, target))
    return longest


def _crossing(growth: Float64, a: Float64, target: Float64) -> Float64:
    grows = growth > 0
    g = np.where(grows, growth, 1.0)
    taken = ((a + np.sqrt(a * a + 4 * g * target)) / (2 * g)) ** 2
    return np.where(grows, taken, math.inf)


@lru_cache(maxsize=1)
def guard() -> Mixture:
    """Equal shares on .9 2^-k, because guards plan for no particular size of effect."""
    return Mixture.spread(0.9, OTHERS)
