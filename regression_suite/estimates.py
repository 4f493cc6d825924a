"""Each cell's episodes as estimates with bounds, and how much alpha each bound may use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from regression_suite.bounds import (
    LEAST,
    Bound,
    Scale,
    gap_bound,
    mean_bound,
    middle_mean,
    rate_bound,
    rate_gap_bound,
    share_bound,
    tail_gap_bound,
    tail_mean,
)
from regression_suite.episodes import Float, Int, Played
from regression_suite.suite import Cell, failure_of, range_of
from srghn.config import GateParams
from srghn.inference.spending import spent


@dataclass(frozen=True)
class Arm:
    """One player in one cell, returns clipped to the declared range. `failures` is a share.

    `outside` counts the episodes whose return lay outside the range; `best` is the highest return.
    """

    mean: float
    iqm: float
    worst_tenth: float
    failures: float
    length: float
    crashes: int
    outside: int = 0
    best: float = -math.inf


@dataclass(frozen=True)
class CellEstimate:
    """`problem` says why nothing could be estimated; then every bound is None.

    `mean` and `failures` are the candidate's own; `difference` is the mean of paired differences,
    the estimand the gate decides by, `failure_gap` that of failures; `tail` is the difference of
    the worst tenths, looked at in the primary cell alone; `improvement` the share of episodes won.
    `used` and `planned` count paired episodes.
    """

    cell: Cell
    problem: str | None
    used: int
    planned: int
    candidate: Arm | None = None
    incumbent: Arm | None = None
    mean: Bound | None = None
    failures: Bound | None = None
    difference: Bound | None = None
    failure_gap: Bound | None = None
    tail: Bound | None = None
    improvement: Bound | None = None

    @property
    def returns(self) -> Bound | None:
        """The bound by which its returns are judged: of the difference if there is an incumbent."""
        return self.difference or self.mean


def alpha_of(params: GateParams, tried: int = 0) -> float:
    """The alpha of each end of every bound.

    The rules' alpha is shared by all attempts and by all the gains that may carry a promotion, so
    that neither retrying until it passes nor naming more gains raises the chance of a false one;
    where the rules say so, also by the candidates judged against this champion.
    """
    tests = params.attempts * (1 + len(params.secondary_gains))
    share = spent(tried) if params.spending == "candidates" else 1.0
    return (1 - params.confidence) * share / tests


def scale_of(params: GateParams, tried: int = 0) -> Scale:
    """The declared range with the alpha of these rules."""
    return Scale(*range_of(params), alpha_of(params, tried))


def promised(returns: Float, params: GateParams) -> float:
    """Lower bound of the mean return, as a share of the range: what the watch holds a champion to.

    It decides no verdict, so it has an alpha of its own: neither more attempts nor more candidates
    make it looser, and with it the watch blinder.
    """
    scale = Scale(*range_of(params), 1 - params.confidence)
    low = mean_bound(returns, scale).low
    return min(max((low - scale.low) / scale.span, 0.0), 1.0)


def estimate(played: Played, params: GateParams, scale: Scale, tail: bool) -> CellEstimate:
    """All estimates of one cell; missing or too few episodes become a `problem`, never a number."""
    cell, mine, theirs = played.cell, played.returns, played.incumbent_returns
    counts = len(mine), cell.episodes
    if problem := unusable(played):
        return CellEstimate(cell, problem, *counts)
    failed = mine <= failure_of(params)
    own = CellEstimate(
        cell,
        None,
        *counts,
        candidate=_arm(mine, played.lengths, params, scale),
        mean=mean_bound(mine, scale),
        failures=rate_bound(failed, scale),
    )
    if theirs is None or played.incumbent_lengths is None:
        return own
    won = (mine > theirs) + 0.5 * (mine == theirs)
    return replace(
        own,
        incumbent=_arm(theirs, played.incumbent_lengths, params, scale),
        difference=gap_bound(mine, theirs, scale),
        failure_gap=rate_gap_bound(failed, theirs <= failure_of(params), scale),
        tail=tail_gap_bound(mine, theirs, scale) if tail else None,
        improvement=share_bound(won, scale.alpha),
    )


def unusable(played: Played) -> str | None:
    """Why nothing can be said of a cell, or None if something can.

    A crash of the candidate is not counted as a bad return: whether policy or environment broke,
    nobody knows what it would have done. The incumbent's is its failed episode, at the foot of the
    range: a champion that crashes must not protect itself.
    """
    if len(played.returns) < LEAST:
        return f"{len(played.returns)} episodes were played, at least {LEAST} are needed"
    crashed = int((~np.isfinite(played.returns)).sum())
    if crashed:
        first = next((c.message for c in played.crashes if c.individual == 0), "unknown")
        return f"{crashed} of the candidate's {len(played.returns)} episodes crashed: {first}"
    if played.incumbent_returns is not None and np.isnan(played.incumbent_returns).any():
        return "an episode of the champion is missing"
    return None


def pooled_gain(results: Sequence[Played], scale: Scale) -> Bound | None:
    """The mean over perturbed cells of the mean paired difference.

    Each cell's bounds get an equal share of alpha, for any of them may be wrong.
    """
    cells = [p for p in results if p.cell.kind == "perturbed"]
    if not cells or any(p.incumbent_returns is None or unusable(p) for p in cells):
        return None
    part = replace(scale, alpha=scale.alpha / len(cells))
    found = [gap_bound(p.returns, p.incumbent_returns, part) for p in cells]  # type: ignore[arg-type]
    value, low, high = np.mean([(gap.value, gap.low, gap.high) for gap in found], axis=0).tolist()
    return Bound(value, low, high, sum(gap.n for gap in found), scale.alpha)


def _arm(returns: Float, lengths: Int, params: GateParams, scale: Scale) -> Arm:
    clipped = scale.clip(returns)
    return Arm(
        mean=float(clipped.mean()),
        iqm=middle_mean(clipped),
        worst_tenth=tail_mean(clipped),
        failures=float((returns <= failure_of(params)).mean()),
        length=float(lengths.mean()),
        crashes=int((~np.isfinite(returns)).sum()),
        outside=int((np.isfinite(returns) & (clipped != returns)).sum()),
        best=float(clipped.max()),
    )
