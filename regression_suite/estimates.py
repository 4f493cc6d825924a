"""Each cell's episodes as estimates, every one with its own named generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regression_suite.episodes import Played
from regression_suite.stats import (
    IQM,
    MEAN,
    WORST_TENTH,
    Interval,
    bootstrap,
    failure_rate,
    improvement,
    point,
    slice_difference,
    slice_interval,
    slice_mean,
    unusable,
)
from regression_suite.suite import Cell
from srghn import seeding
from srghn.config import GateParams


@dataclass(frozen=True)
class Arm:
    """One player in one cell. A failure is an episode below the first champion's bar."""

    mean: float
    iqm: float
    worst_tenth: float
    failures: float
    length: float


@dataclass(frozen=True)
class CellEstimate:
    """`problem` says why nothing could be estimated; then every interval is None.

    `mean` is the candidate's own; `difference` is the IQM of paired differences, the estimand the
    gate decides by; `tail` is the difference of the worst tenths.
    """

    cell: Cell
    problem: str | None
    candidate: Arm | None = None
    incumbent: Arm | None = None
    mean: Interval | None = None
    difference: Interval | None = None
    mean_difference: Interval | None = None
    tail: Interval | None = None
    improvement: Interval | None = None


def confidence(params: GateParams) -> float:
    """Confidence of every interval.

    The policy's alpha is shared by all attempts and by all the gains that may carry a promotion,
    so that neither retrying until it passes nor naming more gains raises the chance of a false one.
    """
    tests = params.attempts * (1 + len(params.secondary_gains))
    return 1 - (1 - params.confidence) / tests


def estimate(played: Played, params: GateParams, root: int) -> CellEstimate:
    """All estimates of one cell; missing or too few episodes become a `problem`, never a number."""
    cell, gaps = played.cell, played.differences
    problem = unusable(played.returns)
    if problem is None and gaps is not None:
        problem = unusable(gaps)
    if problem is not None:
        message = f" (first: {played.crashes[0].message})" if played.crashes else ""
        return CellEstimate(cell, problem + message)
    level, count = confidence(params), params.bootstrap

    def rng(estimand: str) -> np.random.Generator:
        return seeding.stream(root, "bootstrap", cell.name, estimand)

    own = slice_interval(played.returns, MEAN, confidence=level, count=count, rng=rng("mean"))
    arm = _arm(played.returns, played.lengths, params)
    if gaps is None or played.incumbent_returns is None or played.incumbent_lengths is None:
        return CellEstimate(cell, None, candidate=arm, mean=own)
    return CellEstimate(
        cell,
        None,
        candidate=arm,
        incumbent=_arm(played.incumbent_returns, played.incumbent_lengths, params),
        mean=own,
        difference=slice_interval(gaps, IQM, confidence=level, count=count, rng=rng("iqm")),
        mean_difference=slice_interval(gaps, MEAN, confidence=level, count=count, rng=rng("gap")),
        tail=slice_difference(
            played.returns,
            played.incumbent_returns,
            WORST_TENTH,
            confidence=level,
            count=count,
            rng=rng("tail"),
        ),
        improvement=improvement(gaps, confidence=level, count=count, rng=rng("improvement")),
    )


def pooled_gain(results: tuple[Played, ...], params: GateParams, root: int) -> Interval | None:
    """Mean over perturbed cells of the IQM of paired differences, stratified by cell."""
    strata = [
        played.differences
        for played in results
        if played.cell.kind == "perturbed" and played.differences is not None
    ]
    if not strata or any(unusable(gaps) for gaps in strata):
        return None
    return bootstrap(
        strata,
        slice_mean(IQM),
        confidence=confidence(params),
        count=params.bootstrap,
        rng=seeding.stream(root, "bootstrap", "pooled cells"),
    )


def _arm(returns: NDArray[np.float64], lengths: NDArray[np.int64], params: GateParams) -> Arm:
    return Arm(
        mean=point(returns, MEAN),
        iqm=point(returns, IQM),
        worst_tenth=point(returns, WORST_TENTH),
        failures=failure_rate(returns, params.min_return),
        length=float(lengths.mean()),
    )
