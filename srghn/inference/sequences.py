"""Confidence sequences for means of bounded variables: true at every moment, looked at freely.

Waudby-Smith & Ramdas 2024, 'Estimating means of bounded random variables by betting', JRSS-B 86(1),
arXiv:2010.09686. Against "the mean is at most m" one bets that values in [0, 1] are higher. If the
true mean is m or less, the capital is a nonnegative supermartingale that starts at 1, so it reaches
1 / alpha with probability at most alpha, however often one looks (Ville 1939).

`bounds` and `log_capital` keep a mixture over *constant* bets. With share c of
the largest bet 1 / m, a value x multiplies the capital by (1 - c) + c x / m: it falls as m grows.
So all refuted means lie below one bound, which is found by halving. The capital does not depend on
the order of values: a batch gives the same result as one value at a time. The paper shows the
supermartingale for any predictable bets, and a mixture of supermartingales is one (mixtures over
constant bets: Orabona & Jun 2024, IEEE Trans. Inf. Theory 70(1), arXiv:2110.14099). Each bound is
wrong with probability at most alpha, and either of the two with at most 2 alpha.

Values must have the same conditional mean throughout; where a mean drifts, use `capital`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srghn.inference.exact import log_mixture

Float = NDArray[np.float64]

#: Shares of the largest bet, and how the starting capital of 1 is spread over them.
SHARES = np.array([0.99, 0.8, 0.6, 0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.015])
PRIOR = np.array([3, 2, 1, 1, 1, 1, 1, 1, 1, 1]) / 13
HALVINGS = 44


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
