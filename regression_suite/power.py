"""How often the gate says 'superior': by chance between equals (A/A), and as a true gain grows.

Many gates are simulated at once. They share one set of bootstrap resamples, which changes no
gate's own answer, and turns 1,000 gates into one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regression_suite.stats import IQM, POWER, Float, Slice, point, resamples, slice_weights


def lower_bounds(
    differences: Float,
    *,
    confidence: float,
    count: int,
    rng: np.random.Generator,
    part: Slice = IQM,
) -> Float:
    """Lower bounds (gates,) of the slice mean of each gate's paired differences (gates, n)."""
    weights = slice_weights(resamples(differences.shape[1], count, rng), part)
    draws = np.sort(differences, axis=1) @ weights.T
    return np.asarray(np.quantile(draws, (1 - confidence) / 2, axis=1), dtype=np.float64)


def superior_share(
    differences: Float, *, confidence: float, count: int, rng: np.random.Generator
) -> float:
    """Share of simulated gates, differences (gates, n), that call the candidate superior."""
    bounds = lower_bounds(differences, confidence=confidence, count=count, rng=rng)
    return float(np.mean(bounds > 0))


@dataclass(frozen=True)
class Power:
    """The lower bounds (gates,) of simulated gates in which the true gain is 0.

    A gain moves every bound by as much, so these bounds are the whole power curve.
    """

    bounds: Float

    def at(self, effects: Sequence[float]) -> Float:
        """Probability (effects,) that a gate finds a true gain of each size."""
        return np.array([np.mean(self.bounds + effect > 0) for effect in effects])

    @property
    def detectable(self) -> float:
        """The smallest true gain that is found with probability `POWER`."""
        return float(-np.quantile(self.bounds, 1 - POWER))


def simulate(
    differences: Float, *, confidence: float, count: int, gates: int, rng: np.random.Generator
) -> Power:
    """Gates that meet the spread of the observed differences (n,), and no gain.

    Each draws its differences from the observed ones, moved so that their IQM is 0.
    """
    n = len(differences)
    drawn: NDArray[np.float64] = differences[rng.integers(0, n, size=(gates, n))]
    centre = point(differences, IQM)
    return Power(lower_bounds(drawn - centre, confidence=confidence, count=count, rng=rng))
