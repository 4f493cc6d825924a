"""Do two samples come from one distribution? The energy distance, calibrated by permutation.

Szekely & Rizzo 2013, 'Energy statistics: A class of statistics based on distances', Journal of
Statistical Planning and Inference 143. Under the null hypothesis labels may be exchanged, so the
share of relabellings with a distance as large is a p-value whatever the distribution, ties and all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
PERMUTATIONS = 999
#: Share of a column's spread below which a residual is none: clients round what they send.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Comparison:
    """`distance`: 0 for equal samples, in pooled standard deviations; `p`: of one as large."""

    distance: float
    p: float


def compare(
    first: Float,
    second: Float,
    draws: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> Comparison:
    """Compare samples (n, d) and (m, d), a row an observation; needs n and m of at least 2.

    Each column counts in units of its pooled standard deviation; constant ones say nothing.
    """
    if len(first) < 2 or len(second) < 2:
        raise ValueError(f"a comparison needs 2 rows each, got {len(first)} and {len(second)}")
    pooled = np.concatenate([first, second]).astype(np.float64)
    spread = pooled.std(axis=0)
    pooled = pooled[:, spread > 0] / spread[spread > 0]
    distances = np.sqrt(((pooled[:, None, :] - pooled[None, :, :]) ** 2).sum(axis=2))
    n, total = len(first), len(pooled)
    labels = np.zeros((total, permutations + 1))
    labels[:n, 0] = 1
    chosen = np.argpartition(draws.random((permutations, total)), n - 1, axis=1)[:, :n]
    np.put_along_axis(labels[:, 1:], chosen.T, 1, axis=0)
    found = _energy(distances, labels, n)
    larger = int((found[1:] >= found[0] - 1e-12).sum())
    return Comparison(float(found[0]), (1 + larger) / (1 + permutations))


def compare_moves(
    first: tuple[Float, Float],
    second: tuple[Float, Float],
    draws: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> Comparison:
    """Does the next observation follow from what came before by one law in both samples?

    A sample is what came before (n, k) and what came of it (n, d). Half of `second` gives a linear
    law; how far the other half and `first` are from it is compared, by the logarithm of each
    residual's size. Under the null hypothesis those two are alike whatever the law is worth, so
    the p-value is exact; and where it is worth much, another law is seen at once.
    """
    law = np.linalg.lstsq(_with_one(second[0][::2]), second[1][::2], rcond=None)[0]
    spread = second[1][::2].std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)

    def residuals(before: Float, after: Float) -> Float:
        off = np.abs(after - _with_one(before) @ law) / scale
        found: Float = np.log(np.maximum(off, ROUNDING))
        return found

    held_out = residuals(second[0][1::2], second[1][1::2])
    return compare(residuals(*first), held_out, draws, permutations)


def _with_one(rows: Float) -> Float:
    return np.column_stack([np.ones(len(rows)), rows])


def _energy(distances: Float, labels: Float, n: int) -> Float:
    """The energy distance of each labelling (total, k): 1 where a row is of the first sample."""
    m = len(labels) - n
    ours, others = distances @ labels, 1 - labels
    within = (labels * ours).sum(axis=0)
    between = (others * ours).sum(axis=0)
    rest = distances.sum() - within - 2 * between
    energy: Float = 2 * between / (n * m) - within / n**2 - rest / m**2
    return np.maximum(energy, 0.0)
