"""Confidence sequences for means of bounded variables: true at every moment, looked at freely.

Both kinds here are Waudby-Smith & Ramdas 2024, 'Estimating means of bounded random variables by
betting', JRSS-B 86(1), arXiv:2010.09686. Against "the mean is at most m" one bets that values in
[0, 1] are higher; at a true mean of m or less the capital is a nonnegative supermartingale from 1,
so it reaches 1 / alpha with probability at most alpha, however often one looks (Ville 1939).

- `bounds`, `log_capital` and the state `Means` keep a mixture over *constant* bets. With share c of
  the largest bet 1 / m a value x multiplies the capital by (1 - c) + c x / m, which falls as m
  grows: the means refuted from below are those under one bound, found by halving. The capital does
  not depend on the order of values, so a batch and one by one are the same. The paper shows the
  supermartingale for any predictable bets, and a mixture of supermartingales is one (mixtures over
  constant bets: Orabona & Jun 2024, IEEE Trans. Inf. Theory 70(1), arXiv:2110.14099). Each end is
  wrong with probability at most alpha, both with at most 2 alpha.
- `sequence` and `interval` bet by the paper's predictable plug-in rule and close in only (Theorem
  3, the hedged capital process
      K_t(m) = max(theta K_t+(m), (1 - theta) K_t-(m)),
  theta = 1/2); both ends together are wrong with at most alpha. Differs from the paper: m is tried
  on a grid, and the interval is one cell wider.

Values must have the same conditional mean throughout; where a mean drifts, use `capital`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srghn.inference.exact import log_mixture

Float = NDArray[np.float64]

#: Shares of the largest bet, and how the starting capital of 1 is spread over them.
SHARES = np.array([0.99, 0.8, 0.6, 0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.015])
PRIOR = np.array([3, 2, 1, 1, 1, 1, 1, 1, 1, 1]) / 13
HALVINGS = 44
#: Means that the state `Means` keeps capital against: 0, 1/400, ... 1.
MEANS = 400

GRID = 1000
#: Share of the largest bet that cannot ruin (the paper's c, there 1/2 or 3/4).
TRUNCATION = 0.75
_BLOCK = 256


def log_capital(values: ArrayLike, mean: ArrayLike) -> Float:
    """Logarithm of the capital won against "the mean is at most `mean`", shape (cells,).

    `values` (cells, n) lie in [0, 1]; NaN is an episode that was not played and changes nothing.
    `mean` is one number or (cells,), within (0, 1]. Raises `ValueError` for a value outside.
    """
    x = _checked(values)
    m = np.broadcast_to(np.asarray(mean, np.float64), x.shape[:-1])
    return log_mixture(_growth(x, m[..., None, None]).sum(axis=-1), PRIOR)


def capital_path(values: ArrayLike, mean: ArrayLike) -> Float:
    """`log_capital` after each of `values`, shape (cells, n): for simulations."""
    x = _checked(values)
    m = np.broadcast_to(np.asarray(mean, np.float64), x.shape[:-1])
    paths = np.cumsum(_growth(x, m[..., None, None]), axis=-1)
    return log_mixture(np.moveaxis(paths, -2, -1), PRIOR)


def bounds(values: ArrayLike, alpha: float, halvings: int = HALVINGS) -> tuple[Float, Float]:
    """Lower and upper bounds (cells,) of each cell's mean, true at every moment.

    `values` (cells, n) lie in [0, 1], NaN where a cell has fewer. Each end is wrong with
    probability at most `alpha`, and found to within 2^-halvings, rounded outwards. A cell without
    values has bounds 0 and 1.
    """
    x = _checked(values)
    return _lower(x, alpha, halvings), 1 - _lower(1 - x, alpha, halvings)


def lower_bounds(values: ArrayLike, alpha: float, halvings: int = HALVINGS) -> Float:
    """The lower ends alone, at half the cost."""
    return _lower(_checked(values), alpha, halvings)


@dataclass(frozen=True)
class Means:
    """What values seen so far say of the means of several cells: a state of fixed size.

    `n` and `total` (cells,), `logs` (2, cells, MEANS + 1, bets): log capital of betting on a higher
    and, mirrored, on a lower mean. `update` gives the next state; its ends are those of `bounds`,
    rounded outwards to the grid of means.
    """

    n: NDArray[np.int64]
    total: Float
    logs: Float

    @classmethod
    def start(cls, cells: int) -> Means:
        """Nothing seen yet."""
        logs = np.zeros((2, cells, MEANS + 1, len(SHARES)))
        return cls(np.zeros(cells, np.int64), np.zeros(cells), logs)

    def update(self, values: ArrayLike) -> Means:
        """The state after more values (cells, k) in [0, 1]; NaN changes nothing."""
        x = _checked(values)
        grid = np.linspace(0, 1, MEANS + 1)[:, None, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            grown = [_growth(v[:, None, :], grid).sum(axis=-1) for v in (x, 1 - x)]
        seen = np.isfinite(x)
        total = self.total + np.where(seen, x, 0.0).sum(axis=-1)
        return Means(self.n + seen.sum(axis=-1), total, self.logs + np.stack(grown))

    def bounds(self, alpha: float) -> tuple[Float, Float]:
        """Lower and upper bounds (cells,), each wrong with probability at most `alpha`."""
        refuted = log_mixture(self.logs, PRIOR) >= -math.log(alpha)
        refuted[:, :, 0] = False  # no mean is below 0
        ends = refuted[:, :, ::-1].argmax(axis=-1)
        low, mirrored = np.where(refuted.any(axis=-1), (MEANS - ends) / MEANS, 0.0)
        return low, 1 - mirrored

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` is the inverse."""
        return {"n": self.n.tolist(), "total": self.total.tolist(), "logs": self.logs.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Means:
        return cls(np.array(data["n"], np.int64), np.array(data["total"]), np.array(data["logs"]))


def _growth(values: Float, mean: Float) -> Float:
    """Logarithms (..., bets, n) of what each value multiplies the capital by; 0 for NaN.

    At a mean of 0 a value above it wins without limit, which is held at a large number.
    """
    c = SHARES[:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        odds = np.minimum(np.where(values[..., None, :] > 0, values[..., None, :] / mean, 0), 1e12)
        return np.where(np.isfinite(values[..., None, :]), np.log1p(c * (odds - 1)), 0.0)


def _lower(values: Float, alpha: float, halvings: int) -> Float:
    """The largest mean (cells,) under which all are refuted, by halving."""
    low, high = np.zeros(values.shape[:-1]), np.ones(values.shape[:-1])
    for _ in range(halvings):
        middle = (low + high) / 2
        logs = _growth(values, middle[..., None, None]).sum(axis=-1)
        refuted = log_mixture(logs, PRIOR) >= -math.log(alpha)
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return low


def _checked(values: ArrayLike) -> Float:
    """Values as float64 (..., n); raises `ValueError` for one outside [0, 1]. NaN may stay."""
    x = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore"):
        outside = (x < 0) | (x > 1)
    if outside.any():
        raise ValueError(f"values lie in [0, 1], got {x[outside][0]}; clip and scale them first")
    return x


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
