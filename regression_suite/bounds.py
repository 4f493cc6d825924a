"""What the gate estimates and how surely: bounds that hold for every distribution, at every look.

Returns are clipped to the range that the rules declare, so every estimand is the mean of something
bounded, and a betting confidence sequence bounds it at every moment (`srghn.inference`). Each end
is wrong with probability at most alpha, whatever the distribution, however rare its catastrophes
and whenever playing stopped. Nothing is drawn, and the order of episodes does not matter: anyone
with the episodes can compute the same bounds again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srghn.inference.exact import log_rate_capital, rate_bounds
from srghn.inference.sequences import bounds, lower_bounds

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Least episodes of which anything is said.
LEAST = 20
#: Share of episodes that the tail is the mean of.
TAIL = 0.1
#: Returns tried as the tail's edge, evenly spaced over the range.
EDGES = 100


@dataclass(frozen=True)
class Scale:
    """The declared range of returns, and the alpha of each end of every bound."""

    low: float
    high: float
    alpha: float

    @property
    def span(self) -> float:
        return self.high - self.low

    def clip(self, returns: Float) -> Float:
        """Returns (n,) within the range; a crashed episode (minus infinity) is at its foot."""
        return np.clip(returns, self.low, self.high)

    def unit(self, returns: Float) -> Float:
        """Returns (n,) on the scale of [0, 1]."""
        return np.clip((self.clip(returns) - self.low) / self.span, 0.0, 1.0)


@dataclass(frozen=True)
class Bound:
    """An estimate from `n` episodes; each end is wrong with probability at most `alpha`."""

    value: float
    low: float
    high: float
    n: int
    alpha: float

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def decimals(self) -> int:
        return decimals(self.low, self.high)


def decimals(low: float, high: float) -> int:
    """Decimals that show a tenth of an interval's width, and at least one."""
    size = abs(high - low) or abs(high) or 1.0
    return max(1, 1 - math.floor(math.log10(size)))


def mean_bound(returns: Float, scale: Scale) -> Bound:
    """The mean of clipped returns (n,)."""
    low, high = _ends(scale.unit(returns), scale.alpha)
    low, high = (scale.low + scale.span * end for end in (low, high))
    return Bound(float(scale.clip(returns).mean()), low, high, len(returns), scale.alpha)


def gap_bound(mine: Float, theirs: Float, scale: Scale) -> Bound:
    """The mean of paired differences of clipped returns, (n,) each."""
    gaps = scale.unit(mine) - scale.unit(theirs)
    low, high = _ends((gaps + 1) / 2, scale.alpha)
    low, high = (scale.span * (2 * end - 1) for end in (low, high))
    return Bound(float(scale.span * gaps.mean()), low, high, len(gaps), scale.alpha)


def rate_bound(failed: Bool, scale: Scale) -> Bound:
    """The share of failures, from their count alone."""
    low, high = rate_bounds([int(failed.sum())], [len(failed)], scale.alpha)
    return Bound(float(failed.mean()), float(low[0]), float(high[0]), len(failed), scale.alpha)


def rate_gap_bound(mine: Bool, theirs: Bool, scale: Scale) -> Bound:
    """How much oftener the candidate fails: the mean of paired differences of failures (n,)."""
    gaps = mine.astype(np.float64) - theirs
    low, high = _ends((gaps + 1) / 2, scale.alpha)
    return Bound(float(gaps.mean()), 2 * low - 1, 2 * high - 1, len(gaps), scale.alpha)


def share_bound(shares: Float, alpha: float) -> Bound:
    """The mean of values (n,) in [0, 1]."""
    return Bound(float(shares.mean()), *_ends(shares, alpha), len(shares), alpha)


def tail_mean(returns: Float) -> float:
    """The mean of the worst tenth of a sample (n,); an episode at the edge counts in part."""
    ordered, share = np.sort(returns), TAIL * len(returns)
    weights = np.clip(share - np.arange(len(returns)), 0.0, 1.0)
    return float((weights * ordered).sum() / share)


def middle_mean(returns: Float) -> float:
    """The interquartile mean of a sample (n,): shown, and decides nothing, for it sees no tails.

    After Agarwal et al. 2021, arXiv:2108.13264; an episode at a quartile counts in part.
    """
    ordered, n = np.sort(returns), len(returns)
    upto = np.arange(1, n + 1)
    weights = np.clip(upto, n / 4, 3 * n / 4) - np.clip(upto - 1, n / 4, 3 * n / 4)
    return float((weights * ordered).sum() / (n / 2))


def tail_gap_bound(mine: Float, theirs: Float, scale: Scale) -> Bound:
    """The candidate's mean of its worst tenth less the champion's, of clipped returns (n,) each.

    With g(q) = q - E max(q - X, 0) / 0.1 the mean of the worst tenth is the largest g (Rockafellar
    & Uryasev 2000, J. of Risk 2(3), Theorem 1), reached at the tenth's edge q*. So
        mine - theirs >= g_mine(q) - g_theirs(q) at q = the champion's edge,
    the mean of a bounded paired difference. The edge is unknown: it lies between two bounds of that
    quantile (alpha / 4 each), and the least of the lower bounds (alpha / 2) over all edges between
    them holds, for it holds at the one that is right. Edges are tried on a grid, whose step is
    given away since g rises by at most one step from one to the next. The upper end is the mirror
    image; it is loose where the two edges lie far apart, and then says little.
    """
    a, b = scale.unit(mine), scale.unit(theirs)
    low = -_tail_shortfall(a, b, scale.alpha)
    high = _tail_shortfall(b, a, scale.alpha)
    value = tail_mean(scale.clip(mine)) - tail_mean(scale.clip(theirs))
    ends = (max(-1.0, low) * scale.span, min(1.0, high) * scale.span)
    return Bound(value, *ends, len(a), scale.alpha)


def _tail_shortfall(mine: Float, theirs: Float, alpha: float) -> float:
    """An upper bound of theirs less mine, of the means of the worst tenths on [0, 1]."""
    edges = np.arange(EDGES + 1) / EDGES
    counts = (theirs[None] <= edges[:, None]).sum(axis=1)
    n, needed = len(theirs), -math.log(alpha / 4)
    surely_below = log_rate_capital(n - counts, n, 1 - TAIL) >= needed  # P(X <= edge) > 0.1
    surely_above = log_rate_capital(counts, n, TAIL) >= needed  # P(X <= edge) < 0.1
    last = int(np.argmax(surely_below)) if surely_below.any() else EDGES
    first = int(np.flatnonzero(surely_above)[-1]) if surely_above.any() else 0
    tried = edges[first : max(last, first + 1)]
    inner = np.where(tried > 0, tried, 1.0)[:, None]
    short = np.maximum(tried[:, None] - theirs, 0) - np.maximum(tried[:, None] - mine, 0)
    lows = lower_bounds((short / inner + 1) / 2, alpha / 2, halvings=14)
    worst = np.where(tried > 0, (2 * lows - 1) * tried / TAIL, 0.0)
    return 1 / EDGES - float(worst.min())


def _ends(values: Float, alpha: float) -> tuple[float, float]:
    low, high = bounds(np.clip(values, 0.0, 1.0)[None], alpha)
    return float(low[0]), float(high[0])
