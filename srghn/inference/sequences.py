"""A confidence sequence for the mean of a bounded variable: true at every moment, looked at freely.

Waudby-Smith & Ramdas 2024, 'Estimating means of bounded random variables by betting', JRSS-B 86(1),
arXiv:2010.09686, Theorem 3: the hedged capital process
    K_t(m) = max(theta K_t+(m), (1 - theta) K_t-(m)),  K_t+-(m) = prod_i (1 +- bet_i+-(m) (x_i - m))
stays below 1/alpha forever with probability 1 - alpha at the true mean m, so the means it has not
refuted form a (1 - alpha) confidence sequence. The bets are the paper's predictable plug-in ones,
theta is 1/2. Differs from the paper: m is tried on a grid, and the interval is one cell wider.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID = 1000
#: Share of the largest bet that cannot ruin (the paper's c, there 1/2 or 3/4).
TRUNCATION = 0.75
_BLOCK = 256


@dataclass(frozen=True)
class Interval:
    """Where a mean lies, after `n` values."""

    n: int
    mean: float
    low: float
    high: float


def sequence(
    values: NDArray[np.float64], alpha: float, grid: int = GRID
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends after each of `values` (n,) in [0, 1], shapes (n,).

    The ends only ever close in (running intersection). Raises `ValueError` for a value outside.
    """
    if not np.all((values >= 0) & (values <= 1)):  # NaN fails this too
        raise ValueError("a confidence sequence takes values in [0, 1]")
    bets, means = _bets(values, alpha), np.linspace(0, 1, grid + 1)
    capital = np.zeros((2, grid + 1))  # logarithms, of betting on a higher and on a lower mean
    alive = np.ones(grid + 1, bool)
    low, high = np.zeros(len(values)), np.ones(len(values))
    for start in range(0, len(values), _BLOCK):
        block = slice(start, start + _BLOCK)
        kept = _play(values[block], bets[block], means, capital, alive, np.log(2 / alpha))
        some = kept.any(axis=1)  # none left has probability below alpha: keep the last ends
        first, last = kept.argmax(axis=1), grid - kept[:, ::-1].argmax(axis=1)
        low[block] = np.where(some, means[first] - 1 / grid, 0)
        high[block] = np.where(some, means[last] + 1 / grid, 1)
    return np.maximum.accumulate(low), np.minimum.accumulate(high)


def _play(
    values: NDArray[np.float64],
    bets: NDArray[np.float64],
    means: NDArray[np.float64],
    capital: NDArray[np.float64],
    alive: NDArray[np.bool_],
    limit: float,
) -> NDArray[np.bool_]:
    """Which means (m,) survive each of a block of values (n,), shape (n, m).

    `capital` (2, m) and `alive` (m,) are carried on to the next block in place.
    """
    away = values[:, None] - means
    refuted = np.zeros(away.shape, bool)
    with np.errstate(divide="ignore"):
        caps = TRUNCATION / means, TRUNCATION / (1 - means)
    for side, (cap, sign) in enumerate(zip(caps, (1, -1), strict=True)):
        gains = np.log1p(sign * np.minimum(bets[:, None], cap) * away)
        gains[0] += capital[side]
        wealth = np.cumsum(gains, axis=0)
        capital[side] = wealth[-1]
        refuted |= wealth >= limit
    refuted[0] |= ~alive
    np.logical_or.accumulate(refuted, axis=0, out=refuted)
    alive[:] = ~refuted[-1]
    return ~refuted


def interval(values: NDArray[np.float64], low: float, high: float, alpha: float) -> Interval:
    """The interval for the mean of `values` (n,), each within [low, high], now.

    Without values it is the whole range.
    """
    if not len(values):
        return Interval(0, float("nan"), low, high)
    span = high - low
    ends = sequence(np.clip((values - low) / span, 0, 1), alpha)
    return Interval(
        len(values),
        float(values.mean()),
        low + span * float(ends[0][-1]),
        low + span * float(ends[1][-1]),
    )


def _bets(values: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """The paper's predictable plug-in bets, shape (n,): bet i knows only the values before it."""
    t = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (t + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (t + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    bets: NDArray[np.float64] = np.sqrt(2 * np.log(2 / alpha) / (before * t * np.log(t + 1)))
    return bets
