"""Do observations lie where they did? One dimension at a time, against quantiles kept before.

The two-sample test of Kolmogorov and Smirnov with Stephens' (1970) correction for small samples;
ties make it careful. Over d dimensions the smallest p counts d times (Bonferroni).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
#: Quantiles that are kept of each dimension.
GRID = 101


@dataclass(frozen=True)
class Moved:
    """The dimension that moved farthest: largest difference of the two distribution functions.

    `p` is small where all dimensions together would seldom differ by as much.
    """

    dimension: int
    distance: float
    p: float


def quantiles(rows: Float) -> Float:
    """Quantiles (d, GRID) of a sample (n, d); each is a value of the sample."""
    shares = np.linspace(0, 1, GRID)
    found: Float = np.quantile(rows, shares, axis=0, method="inverted_cdf").T
    return found


def farthest(rows: Float, kept: Float, count: int, unseen: float = 0.0) -> Moved:
    """Compare a sample (n, d) with `kept` quantiles (d, GRID) of a sample of `count` rows.

    `unseen` is the share of the sample that is not among its rows. Wherever it lies, it changes no
    distance by more; `p` is that of a distance less it.
    """
    distances = [_distance(np.sort(rows[:, i]), kept[i]) for i in range(rows.shape[1])]
    worst = int(np.argmax(distances))
    p = _tail(max(distances[worst] - unseen, 0.0), len(rows) * count / (len(rows) + count))
    return Moved(worst, distances[worst], min(1.0, p * len(distances)))


def _distance(values: Float, grid: Float) -> float:
    points = np.unique(np.concatenate([values, grid]))
    ours = np.searchsorted(values, points, "right") / len(values)
    theirs = np.searchsorted(grid, points, "right") / len(grid)
    return float(np.abs(ours - theirs).max())


def _tail(distance: float, effective: float) -> float:
    """Kolmogorov's distribution: how likely a distance as large is by chance."""
    root = math.sqrt(effective)
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        return 1.0
    signs = (2.0, -2.0) * 50
    terms = [sign * math.exp(-2 * (k * scaled) ** 2) for k, sign in enumerate(signs, start=1)]
    return min(1.0, max(0.0, sum(terms)))
