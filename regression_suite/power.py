"""How likely a gate like this one finds a true gain: by simulation under the spread it met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regression_suite.arena import BATCH
from regression_suite.bounds import Float, Scale
from srghn.inference.sequences import capital_path

#: Power at which the smallest detectable effect is stated.
POWER = 0.8
GATES = 200
_HALVINGS = 8


@dataclass(frozen=True)
class Power:
    """Simulated gates: differences (gates, n) without any effect, and what they are held against.

    `threshold` is in returns: a gain is found once the bound is above it.
    """

    differences: Float
    threshold: float
    scale: Scale

    def share(self, effect: float) -> float:
        """Share of gates that find a true effect of that size, in returns."""
        span = self.scale.span
        moved = np.clip((self.differences + effect) / span, -1, 1)
        logs = capital_path((moved + 1) / 2, (self.threshold / span + 1) / 2)
        looks = logs[:, BATCH - 1 :: BATCH]
        last = logs[:, -1:]
        found = np.concatenate([looks, last], axis=1).max(axis=1) >= -math.log(self.scale.alpha)
        return float(found.mean())

    def at(self, effects: Sequence[float]) -> Float:
        """`share` of each of the effects (k,)."""
        return np.array([self.share(effect) for effect in effects])

    @property
    def detectable(self) -> float:
        """The smallest true effect that is found with probability `POWER`."""
        low, high = 0.0, self.scale.span
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.share(middle) >= POWER else (middle, high)
        return high


def simulate(
    gaps: Float, planned: int, threshold: float, scale: Scale, rng: np.random.Generator
) -> Power:
    """Gates of `planned` episodes that meet the spread of the observed gaps (n,), and no effect."""
    drawn = gaps[rng.integers(0, len(gaps), size=(GATES, planned))]
    return Power(drawn - gaps.mean(), threshold, scale)
