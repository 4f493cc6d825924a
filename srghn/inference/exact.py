"""Bounds for a failure rate that are true at every moment.

They hold for every rate and every n, without approximation. `rate_bounds` may be looked at after
every episode, and playing may stop because of what was seen.

`rate_bounds` bets against "the rate is at least p". A bet of share c multiplies the capital by
1 - c at a failure and by 1 + c p / (1 - p) at a success. At rate p the expected factor is 1, at a
higher rate it is below 1, so the capital, averaged over a few fixed shares, is a nonnegative
supermartingale from 1 and reaches 1 / alpha with probability at most alpha (Ville 1939). It depends
on the counts alone and grows with p, so the rates not refuted are those below one bound. This is
the mixture method of Howard et al. 2021 (Ann. Statist. 49(2), arXiv:1810.08240) with a discrete
mixture; for Bernoulli variables betting and likelihood ratios are the same thing (Waudby-Smith &
Ramdas 2024, arXiv:2010.09686).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

#: Shares that are bet, and how the starting capital of 1 is spread over them. A share of 1 is lost
#: at the first failure, and wins most where nobody fails.
SHARES = np.array([1.0, 0.95, 0.85, 0.7, 0.55, 0.4, 0.25, 0.12, 0.05])
PRIOR = np.array([0.3, 0.14, 0.1, 0.1, 0.1, 0.08, 0.08, 0.06, 0.04])
_HALVINGS = 60


def log_rate_capital(failures: ArrayLike, n: ArrayLike, limit: ArrayLike) -> Float:
    """Logarithm of the capital won against "the rate is at least `limit`"; shapes broadcast.

    `limit` lies within (0, 1]. The claim is refuted at level alpha once this reaches -log(alpha).
    """
    k, count, p = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (failures, n, limit)))
    with np.errstate(divide="ignore", invalid="ignore"):
        losses = np.where(k[..., None] > 0, k[..., None] * np.log1p(-SHARES), 0.0)
        odds = np.where(p < 1, p / (1 - p), np.inf)
        gains = np.where(count > k, count - k, 0.0)[..., None] * np.log1p(SHARES * odds[..., None])
    gains = np.where((count > k)[..., None], gains, 0.0)
    ruined = np.isneginf(losses)
    return log_mixture(np.where(ruined, losses, np.where(ruined, 0.0, losses) + gains), PRIOR)


def rate_bounds(failures: ArrayLike, n: ArrayLike, alpha: float) -> tuple[Float, Float]:
    """Lower and upper bounds of rates, true at every moment; each is wrong with at most `alpha`.

    `failures` and `n` are counts of any one shape (cells,); without episodes the bounds are 0
    and 1. Raises `ValueError` for counts that cannot be.
    """
    k, count = np.broadcast_arrays(np.asarray(failures), np.asarray(n))
    _check(k, count)
    return 1 - _anytime_upper(count - k, count, alpha), _anytime_upper(k, count, alpha)


def log_mixture(logs: Float, prior: Float) -> Float:
    """log(sum_j prior_j exp(logs_j)) over the last axis, without overflow; -inf where all are."""
    top = logs.max(axis=-1, keepdims=True)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        total = np.log((np.exp(logs - safe) * prior).sum(axis=-1))
    mixed: Float = np.where(np.isposinf(top[..., 0]), np.inf, total + safe[..., 0])
    return mixed


def _anytime_upper(failures: NDArray[np.int64], n: NDArray[np.int64], alpha: float) -> Float:
    """The smallest rate that is refuted, found from above: capital grows with the rate."""
    low, high = np.zeros(n.shape), np.ones(n.shape)
    refuted = log_rate_capital(failures, n, high) >= -math.log(alpha)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = log_rate_capital(failures, n, middle) >= -math.log(alpha)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    bound: Float = np.where(refuted, high, 1.0)
    return bound


def _check(failures: NDArray[np.int64], n: NDArray[np.int64]) -> None:
    if not np.all((failures >= 0) & (failures <= n)):
        raise ValueError(
            f"failures lie between 0 and the number of episodes, got {failures} of {n}"
        )
