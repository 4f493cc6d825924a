"""Evidence about a bounded mean that may drift: capital from a mixture of constant bets.

**Claim.** Let steps x_i lie in [-1, 1] with conditional means mu_i given the past, and place shares
pi_j of a capital, which sum to 1, on constant bets k_j in [0, 1):
    K_n = sum_j pi_j prod_i (1 + k_j x_i).
Then K_n reaches 1 / alpha at some n at which sum_i mu_i <= 0 with probability at most alpha.

**Proof.** 1 + k_j mu_i > 0 is the conditional mean of factor i, so M_n = prod_i (1 + k_j x_i) /
(1 + k_j mu_i) is a nonnegative martingale from 1. The product of the factors is
M_n prod_i (1 + k_j mu_i) <= M_n exp(k_j sum_i mu_i) <= M_n, as k_j is constant. The mixture of
these martingales is one, and Ville's inequality ends it (Howard et al. 2020, arXiv:1808.03204,
Lemma 1).

So the capital refutes "the mean so far is at most 0" under any drift and at whatever moment one
looks. Bets that adapt to what was seen would not: they pull k out of the sum, and test "no mean was
ever above 0" instead. Related: Orabona & Jun 2024 (arXiv:2110.14099), Ham et al. 2022
(arXiv:2210.08639), Waudby-Smith et al. 2022 (arXiv:2210.10768).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
#: Largest bet on steps of -1.5 or more; one then leaves a twentieth, as .95 does of steps of -1.
SAFE = 0.95 / 1.5


@dataclass(frozen=True)
class Mixture:
    """Constant bets (bets,) in (0, 1) and the shares of capital placed on each, which sum to 1."""

    bets: Float64
    shares: Float64

    def __post_init__(self) -> None:
        if self.bets.shape != self.shares.shape or not np.all((self.bets > 0) & (self.bets < 1)):
            raise ValueError("bets lie in (0, 1), with one share of the capital each")
        if not np.isclose(self.shares.sum(), 1):
            raise ValueError(f"shares must sum to 1, got {self.shares.sum():g}")

    @classmethod
    def spread(cls, largest: float, count: int) -> Mixture:
        """Equal shares on largest 2^-k, k = 0..count - 1."""
        bets = np.array([largest * 0.5**k for k in range(count)])
        return cls(bets, np.full(count, 1 / count))

    @classmethod
    def mostly_on(cls, planned: float, share: float, largest: float, count: int) -> Mixture:
        """A share of the capital on one bet, the rest spread as `spread` does."""
        rest = cls.spread(largest, count)
        return cls(np.append(planned, rest.bets), np.append(share, (1 - share) * rest.shares))

    def to_json(self) -> dict[str, list[float]]:
        return {"bets": self.bets.tolist(), "shares": self.shares.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[float]]) -> Mixture:
        return cls(np.array(data["bets"], np.float64), np.array(data["shares"], np.float64))

    def paths(self, start: Float64, steps: Float64) -> Float64:
        """Log capital by bet after each of `steps` (n,), from `start` (bets,); shape (n, bets).

        Summed one by one, so that a log cut into parts gives the same bytes as a whole one.
        """
        gains = np.log1p(steps[:, None] * self.bets)
        return np.cumsum(np.concatenate([start[None], gains]), axis=0)[1:]

    def log_capital(self, logs: Float64) -> Float64:
        """Logarithm of the mixture's capital from those by bet, (..., bets) -> (...)."""
        placed = logs + np.log(self.shares)
        top = placed.max(axis=-1)
        return np.asarray(top + np.log(np.exp(placed - top[..., None]).sum(axis=-1)))

    def against(self, steps: Float64, weights: Float64, means: Float64) -> Float64:
        """Log capital of the bets on `steps - weights * mean` for each of `means` (k,), (k,).

        `steps` (n,) in [-1, 1], `weights` (n,) in [0, 0.5]; `means` in [-1, 1]. Where a mean is
        above 0 a step may be -1.5, so large bets are `SAFE`, that no step costs all. Such bets
        follow no mean: on either side of 0 the capital falls as the mean grows.
        """
        found = np.empty(len(means))
        for i, mean in enumerate(means.tolist()):
            bets = np.minimum(self.bets, SAFE) if mean > 0 else self.bets
            away = steps - weights * mean
            found[i] = self.log_capital(np.log1p(away[:, None] * bets).sum(axis=0))
        return found
