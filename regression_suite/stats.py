"""What the gate estimates, and how surely: slices of the ordered sample with bootstrap intervals.

The mean, the interquartile mean (IQM) and the mean of the worst tenth (conditional value at risk)
are all the mean of a slice of the sorted sample. A bootstrap resample is a vector of counts, so
every one of them is a weighted sum of sorted values and a whole bootstrap is one small product.

Estimands after Agarwal et al. 2021, 'Deep Reinforcement Learning at the Edge of the Statistical
Precipice', arXiv:2108.13264; differs from that paper's code: a slice may end inside an
observation, which then counts in part, so that the IQM is defined alike for every n.

Every draw comes from a generator given by the caller. Fewer than `LEAST` episodes, missing values
and NaN are refused: nothing can be estimated from them, so nothing can pass on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from srghn.errors import EvaluationError

Float = NDArray[np.float64]
Counts = NDArray[np.int64]
#: Of the sorted sample, from the worst: the share where a slice begins and the share where it ends.
Slice = tuple[float, float]
#: (values (n,), counts (b, n)) -> the statistic of each resample (b,).
Statistic = Callable[[Float, Counts], Float]

MEAN: Slice = (0.0, 1.0)
IQM: Slice = (0.25, 0.75)
WORST_TENTH: Slice = (0.0, 0.1)

#: Least episodes of a cell: at n=5 a percentile bootstrap's 95% interval covers 0.90, at 20 0.95.
LEAST = 20
#: Power at which the smallest detectable effect is stated.
POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """An estimate from `n` episodes with its two-sided interval [low, high] at `confidence`.

    `error` is the bootstrap's standard error.
    """

    value: float
    low: float
    high: float
    error: float
    n: int
    confidence: float

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def detectable(self) -> float:
        """Smallest true effect that would have been seen with probability `POWER`."""
        return (self.reach + NormalDist().inv_cdf(POWER)) * self.error

    @property
    def reach(self) -> float:
        """Standard errors from the estimate to either bound, were it normal."""
        return NormalDist().inv_cdf(0.5 + self.confidence / 2)


def unusable(values: Float) -> str | None:
    """Why nothing can be estimated from `values`, or None if something can."""
    if values.ndim != 1 or len(values) < LEAST:
        return f"{values.size} episodes were played, at least {LEAST} are needed"
    missing = int((~np.isfinite(values)).sum())
    return f"{missing} of {len(values)} episodes crashed or are missing" if missing else None


def resamples(n: int, count: int, rng: np.random.Generator) -> Counts:
    """How often each of n observations is drawn, shape (count, n); each row sums to n."""
    return rng.multinomial(n, np.full(n, 1 / n), size=count)


def slice_weights(counts: Counts, part: Slice) -> Float:
    """Weights (b, n) whose product with *sorted* values is the mean of that slice of a resample.

    `counts` (b, n) is in the order of the sorted values.
    """
    n = int(counts[0].sum())
    start, stop = part[0] * n, part[1] * n
    upto = np.cumsum(counts, axis=1)
    taken = np.clip(upto, start, stop) - np.clip(upto - counts, start, stop)
    return np.asarray(taken / (stop - start), dtype=np.float64)


def slice_mean(part: Slice) -> Statistic:
    """The statistic 'mean of that slice of the sorted resample'."""

    def statistic(values: Float, counts: Counts) -> Float:
        order = np.argsort(values, kind="stable")
        weighted = slice_weights(counts[:, order], part) * values[order]
        return np.asarray(weighted.sum(axis=1), dtype=np.float64)

    return statistic


def point(values: Float, part: Slice) -> float:
    """The mean of a slice of a sample (n,)."""
    return float(slice_mean(part)(values, np.ones((1, len(values)), np.int64))[0])


def bootstrap(
    strata: Sequence[Float],
    statistic: Statistic,
    *,
    confidence: float,
    count: int,
    rng: np.random.Generator,
) -> Interval:
    """Percentile bootstrap of the mean over strata of a statistic, each stratum resampled alone.

    Raises `EvaluationError` if a stratum has too few values or missing ones.
    """
    if not strata:
        raise EvaluationError("no episodes were given to estimate from; play the cell first")
    for values in strata:
        if reason := unusable(values):
            raise EvaluationError(f"nothing can be estimated: {reason}; play the cell again")
    whole = [statistic(v, np.ones((1, len(v)), np.int64))[0] for v in strata]
    draws = np.mean([statistic(v, resamples(len(v), count, rng)) for v in strata], axis=0)
    return _interval(float(np.mean(whole)), draws, sum(map(len, strata)), confidence)


def slice_interval(
    values: Float, part: Slice, *, confidence: float, count: int, rng: np.random.Generator
) -> Interval:
    """`bootstrap` of one sample's slice mean. For paired differences, give the differences (n,)."""
    return bootstrap([values], slice_mean(part), confidence=confidence, count=count, rng=rng)


def slice_difference(
    first: Float,
    second: Float,
    part: Slice,
    *,
    confidence: float,
    count: int,
    rng: np.random.Generator,
) -> Interval:
    """Slice mean of `first` less that of `second`; episodes (n,) are resampled as pairs."""

    def statistic(values: Float, counts: Counts) -> Float:
        mean = slice_mean(part)
        return mean(first, counts) - mean(second, counts)

    return bootstrap([first - second], statistic, confidence=confidence, count=count, rng=rng)


def improvement(
    differences: Float, *, confidence: float, count: int, rng: np.random.Generator
) -> Interval:
    """Paired probability of improvement: the share of episodes won, ties counting half."""
    wins = (differences > 0) + 0.5 * (differences == 0)
    return slice_interval(wins, MEAN, confidence=confidence, count=count, rng=rng)


def failure_rate(returns: Float, below: float) -> float:
    """Share of episodes whose return is below a bar; a crashed episode is a failure."""
    return float(np.mean(~(returns >= below)))


def _interval(value: float, draws: Float, n: int, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high), float(draws.std(ddof=1)), n, confidence)
