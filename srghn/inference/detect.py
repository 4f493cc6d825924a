"""Has the mean fallen (or recovered)? An e-detector: it forgets the good times by itself.

Shiryaev-Roberts form of Shin, Ramdas & Rinaldo 2022, 'E-detectors: a nonparametric framework for
sequential change detection', arXiv:2203.03532. For values x in [0, 1] and a promised mean m,
    R <- (R + 1) (1 + lambda (m - x)),  averaged over a few lambda, alarm at R >= B.

While the conditional mean stays at or above m each factor has conditional mean at most 1, so
R_n - n is a supermartingale from 0; by optional stopping E[N] >= E[R_N] >= B at the first alarm N:
on average at least B values pass before a false alarm, and P(N <= n) <= E[R at min(N, n)] / B, at
most n / B. Values may depend on each other. A confidence sequence can't do this: its ends, once
every mean is refuted, never move again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

#: Bets as shares of the largest one that cannot lose all: small ones for small falls.
SHARES = (0.9, 0.5, 0.2, 0.08)
#: R is capped here, far above any alarm.
MOST = 1e12


@dataclass(frozen=True)
class Detector:
    """Watches for a mean below `mean` ("fall") or, mirrored, above it ("recovery").

    `levels` holds R for each bet; `n` values were seen since the start or the last `reset`.
    """

    mean: float
    side: Literal["fall", "recovery"]
    levels: tuple[float, ...] = (0.0,) * len(SHARES)
    n: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.mean < 1:
            raise ValueError(f"the watched mean lies within (0, 1), got {self.mean}")

    @property
    def level(self) -> float:
        """R, averaged over the bets; compared with B, the values that pass per false alarm."""
        return sum(self.levels) / len(self.levels)

    def update(self, values: ArrayLike) -> Detector:
        """The state after more values (k,) in [0, 1]; raises `ValueError` for one outside."""
        return self.until(values, float("inf"))[0]

    def until(
        self, values: ArrayLike, threshold: float, unknown: Sequence[bool] = ()
    ) -> tuple[Detector, int | None]:
        """The same, and after which of these values (1, 2, ...) R first reached `threshold`.

        `unknown` (k,) marks values that are still to come, or never will (what stands for them is
        ignored). Then R is the least that it can be, whatever they are: R rises with each R before.
        """
        seen = np.asarray(values, np.float64)
        if not np.all((seen >= 0) & (seen <= 1)):  # NaN fails this too
            raise ValueError("a detector takes values in [0, 1]; clip and scale them first")
        levels, alarm = list(self.levels), None
        low = self.side == "fall"
        room = 1 - self.mean if low else self.mean
        bets = [share / room for share in SHARES]
        least = [1 - share for share in SHARES]  # the factor of a 1, or for a recovery of a 0
        opened = unknown or (False,) * len(seen)
        for place, (x, to_come) in enumerate(zip(seen.tolist(), opened, strict=True), start=1):
            if to_come:
                levels = [
                    min(level, (level + 1) * factor)
                    for level, factor in zip(levels, least, strict=True)
                ]
                continue  # R did not rise, so it reaches no threshold
            away = self.mean - x if low else x - self.mean
            levels = [
                min((level + 1) * (1 + bet * away), MOST)
                for level, bet in zip(levels, bets, strict=True)
            ]
            if alarm is None and sum(levels) / len(levels) >= threshold:
                alarm = place
        return Detector(self.mean, self.side, tuple(levels), self.n + len(seen)), alarm

    def reset(self) -> Detector:
        """Start again, as after an acknowledged alarm."""
        return Detector(self.mean, self.side)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` is the inverse."""
        return {"mean": self.mean, "side": self.side, "levels": list(self.levels), "n": self.n}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Detector:
        return cls(data["mean"], data["side"], tuple(data["levels"]), data["n"])


def mirrored(detector: Detector, mean: float) -> Detector:
    """The detector that looks the other way, from `mean` on: for recovery after a fall."""
    return Detector(mean, "recovery" if detector.side == "fall" else "fall")
