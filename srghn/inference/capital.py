"""Evidence from a randomised trial whose world may drift: a mixture over constant bets.

Episode i goes to the canary (A = 1) with probability w_i, known before it starts, and returns Y_i,
scaled to [0, 1]. With any baseline b_i known before it starts the score
    D_i = (A_i - w_i) (Y_i - b_i) / (w_i (1 - w_i))
has as its conditional mean the effect of that episode: the canary's conditional mean less the
champion's. With exposure v_i = min(w_i, 1 - w_i), v_i D_i lies within [-1, 1] at any weight.

**Claim.** Let d_i be the conditional mean of D_i and W_n(m) = sum_i v_i (d_i - m). For constant
bets lambda_j >= 0 with 1 + lambda_j v_i (D_i - m) > 0 and shares pi_j adding up to 1,
    K_n(m) = sum_j pi_j prod_i (1 + lambda_j v_i (D_i - m))
reaches 1 / alpha while W_n(m) <= 0 held at every n with probability at most alpha.

**Proof.** a_i = lambda_j v_i (d_i - m) is known before D_i, and 1 + a_i > 0 is the conditional mean
of factor i, so M_n = prod_i factor_i / (1 + a_i) is a nonnegative martingale from 1. The product of
factors is M_n prod_i (1 + a_i) <= M_n exp(sum_i a_i) = M_n exp(lambda_j W_n(m)) <= M_n as lambda_j
is constant. The mixture of these martingales is one, and Ville's inequality ends it.

So K refutes "the exposure-weighted running mean effect is at most m" under any drift and any
predictable weights. Bets that adapt would not: they pull lambda out of the sum (seen in simulation:
promoted always, with a running mean below m throughout). Related: Orabona & Jun 2024
(arXiv:2110.14099), Ham et al. 2022 (arXiv:2210.08639), Waudby-Smith et al. 2022 (arXiv:2210.10768).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srghn.inference.exact import log_mixture

Float = NDArray[np.float64]
Side = Literal["above", "below"]

#: The largest bet, as a share of the one that could ruin; bets nearer to ruin cost the tails.
LARGEST = 0.9
#: Bets beside the planned one: the largest, halved 0 to 5 times.
HALVINGS = 6
#: Outcomes after which half of the baseline's weight is newer.
HALF_LIFE = 50.0


@dataclass(frozen=True)
class Bets:
    """Constant bets on v (D - m), and the share of the starting capital on each."""

    lambdas: tuple[float, ...]
    shares: tuple[float, ...]


def planned_bets(effect: float, weight: float, spread: float) -> Bets:
    """Half of the capital on the bet that grows fastest for the planned trial, half on all sizes.

    `effect` is the distance from the claim to the truth that is planned for (the margin, for an
    equal canary), `weight` the canary's share, `spread` the standard deviation of returns, all on
    the scale of [0, 1]. The bet is effect / (sigma^2 + effect^2), sigma^2 = spread^2 / (w (1 - w)),
    in units of D, and 1 / v times that in units of v D.
    """
    if not (effect > 0 and 0 < weight < 1 and spread >= 0):
        raise ValueError(
            f"a bet is planned from an effect above 0, a weight within (0, 1) and a spread of 0 or "
            f"more, got {effect}, {weight} and {spread}"
        )
    variance = spread**2 / (weight * (1 - weight))
    best = effect / (variance + effect**2) / min(weight, 1 - weight)
    halved = tuple(LARGEST * 2.0**-k for k in range(HALVINGS))
    return Bets((min(LARGEST, best), *halved), (0.5, *(0.5 / HALVINGS,) * HALVINGS))


@dataclass(frozen=True)
class Capital:
    """Evidence that the running mean effect is above (or below) `null`.

    `logs` holds the logarithm of what each bet has become; `n` episodes were counted.
    """

    null: float
    side: Side
    bets: Bets
    logs: tuple[float, ...]
    n: int = 0

    @classmethod
    def start(cls, null: float, side: Side, bets: Bets) -> Capital:
        """No evidence yet. Raises `ValueError` where `null` or a bet could ruin.

        v (D - null) is at least -(1 - v null) from above, so bets up to `LARGEST` are safe for
        nulls of 0 or less (mirrored: 0 or more).
        """
        sign = 1 if side == "above" else -1
        if not -1 < sign * null <= 0:
            raise ValueError(f"evidence for '{side}' is kept against a null of 0 or beyond it")
        if not all(0 < bet <= LARGEST for bet in bets.lambdas):
            raise ValueError(f"bets lie within (0, {LARGEST}], got {bets.lambdas}")
        return cls(null, side, bets, (0.0,) * len(bets.lambdas))

    def update(self, scores: ArrayLike, exposures: ArrayLike) -> Capital:
        """The state after more episodes, in order of start: D (k,) and v (k,)."""
        sign = 1.0 if self.side == "above" else -1.0
        gains = sign * np.asarray(exposures) * (np.asarray(scores, np.float64) - self.null)
        if not np.all(np.abs(gains) < 2):  # NaN fails this too
            raise ValueError("scores times exposures lie within [-1, 1]; scale returns to [0, 1]")
        grown = np.log1p(np.array(self.bets.lambdas)[:, None] * gains).sum(axis=1)
        logs = tuple(float(a + b) for a, b in zip(self.logs, grown, strict=True))
        return replace(self, logs=logs, n=self.n + gains.size)

    @property
    def log(self) -> float:
        """Logarithm of the whole capital, 0 at the start."""
        return float(log_mixture(np.array(self.logs), np.array(self.bets.shares)))

    def reached(self, alpha: float) -> bool:
        """Whether the claim is refuted at level `alpha`."""
        return self.log >= -math.log(alpha)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` is the inverse."""
        bets = {"lambdas": list(self.bets.lambdas), "shares": list(self.bets.shares)}
        kept = {"null": self.null, "side": self.side, "logs": list(self.logs), "n": self.n}
        return {**kept, "bets": bets}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Capital:
        bets = Bets(tuple(data["bets"]["lambdas"]), tuple(data["bets"]["shares"]))
        return cls(data["null"], data["side"], bets, tuple(data["logs"]), data["n"])


def promotion(margin: float, bets: Bets) -> Capital:
    """Evidence that the canary is not worse by `margin` or more."""
    return Capital.start(-margin, "above", bets)


def harm(bets: Bets) -> Capital:
    """Evidence that the canary is worse than the champion."""
    return Capital.start(0.0, "below", bets)


@dataclass(frozen=True)
class Baseline:
    """Exponentially weighted mean of both arms' returns, pooled: what scores are taken from.

    Predictable: episode i is scored with what was known of the episodes before it. Any start is
    valid; the middle of the range is unlearnt with the half-life.
    """

    total: float = 0.5
    weight: float = 1.0

    @property
    def value(self) -> float:
        return self.total / self.weight

    def score(
        self, arms: ArrayLike, weights: ArrayLike, values: ArrayLike
    ) -> tuple[Baseline, Float, Float]:
        """Scores D and exposures v, each (k,), and the baseline after these episodes.

        `arms` (k,) is 1 for the canary and 0 for the champion, `weights` (k,) the probability of
        the canary at each start within (0, 1), `values` (k,) the returns in [0, 1], all in order of
        start. Raises `ValueError` for anything outside.
        """
        a, w, y = (np.asarray(v, np.float64) for v in (arms, weights, values))
        if not (np.isin(a, (0, 1)).all() and ((w > 0) & (w < 1)).all()):
            raise ValueError("arms are 0 or 1, and the canary's weight lies within (0, 1)")
        if not ((y >= 0) & (y <= 1)).all():  # NaN fails this too
            raise ValueError("returns of a trial are scaled to [0, 1] before they are scored")
        keep, total, weight = 0.5 ** (1 / HALF_LIFE), self.total, self.weight
        before = np.empty(len(y))
        for i, value in enumerate(y.tolist()):
            before[i] = total / weight
            total, weight = keep * total + value, keep * weight + 1
        scores = (a - w) * (y - before) / (w * (1 - w))
        return Baseline(total, weight), scores, np.minimum(w, 1 - w)

    def to_json(self) -> dict[str, float]:
        return {"total": self.total, "weight": self.weight}

    @classmethod
    def from_json(cls, data: Mapping[str, float]) -> Baseline:
        return cls(data["total"], data["weight"])
