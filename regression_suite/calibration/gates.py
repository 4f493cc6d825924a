"""Many gates at once: one cell, its looks, its outcome and what its bounds missed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regression_suite.arena import BATCH
from regression_suite.calibration.worlds import FAILURE, Draw, Float
from srghn.inference.exact import log_mixture
from srghn.inference.sequences import PRIOR, SHARES, capital_path

Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """One cell's thresholds on [0, 1]: the mean gap must be above `needed`, failures below `more`.

    The worst tenth, which the primary cell is held to as well, is not simulated.
    """

    needed: float
    more: float
    planned: int
    alpha: float

    @property
    def looks(self) -> NDArray[np.int64]:
        """Episodes after which one looks, the last look included."""
        return np.unique([*range(BATCH, self.planned, BATCH), self.planned])


@dataclass(frozen=True)
class Outcomes:
    """Per gate: passed, failed, episodes used, and whether a bound ever missed the truth."""

    passed: Bool
    failed: Bool
    used: NDArray[np.int64]
    missed_low: Bool
    missed_high: Bool


def pairs(
    candidate: Draw, champion: Draw, gates: int, n: int, rng: np.random.Generator
) -> tuple[Float, Float]:
    """Gaps of returns and of failures, (gates, n) each, from independent draws of both arms."""
    mine, theirs = candidate(rng, (gates, n)), champion(rng, (gates, n))
    return mine - theirs, (mine <= FAILURE).astype(np.float64) - (theirs <= FAILURE)


def decide(gaps: Float, failures: Float, rules: Rules, true_gap: float) -> Outcomes:
    """Play each gate (gates, planned) until it is decided, as `checks.decided` has it."""
    looks = rules.looks - 1
    limit = -math.log(rules.alpha)

    def cleared(values: Float, null: float) -> Bool:
        return np.asarray(capital_path((values + 1) / 2, (null + 1) / 2)[:, looks] >= limit)

    better, worse = cleared(gaps, rules.needed), cleared(-gaps, -rules.needed)
    rarer = _failures_cleared(-failures, -rules.more, looks, limit)
    oftener = _failures_cleared(failures, rules.more, looks, limit)
    passed, failed = better & rarer, worse | oftener
    over = passed | failed
    at = np.where(over.any(axis=1), over.argmax(axis=1), len(looks) - 1)
    rows = np.arange(len(gaps))
    return Outcomes(
        passed=passed[rows, at] & ~failed[rows, at],
        failed=failed[rows, at],
        used=rules.looks[at],
        missed_low=np.asarray(cleared(gaps, true_gap).any(axis=1)),
        missed_high=np.asarray(cleared(-gaps, -true_gap).any(axis=1)),
    )


def _failures_cleared(gaps: Float, null: float, looks: NDArray[np.int64], limit: float) -> Bool:
    """The same for gaps that are -1, 0 or 1, of which counts are enough."""
    mean, logs = (null + 1) / 2, np.zeros((len(gaps), len(looks), len(SHARES)))
    for value in (-1.0, 0.0, 1.0):
        counts = np.cumsum(gaps == value, axis=1)[:, looks]
        growth = np.log1p(SHARES * ((value + 1) / 2 / mean - 1))
        logs += counts[..., None] * growth
    return np.asarray(log_mixture(logs, PRIOR) >= limit)
