"""Bounds against thresholds: superiority, non-inferiority, and bars for a first champion.

A threshold inside an interval is inconclusive, never a pass. The end that must clear the threshold
is named in the check's `sense`, so that anyone can decide again from the check alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from regression_suite.bounds import Bound
from regression_suite.estimates import Arm, CellEstimate
from regression_suite.suite import failure_of, width_of
from srghn.config import GateParams
from srghn.inference.verdict import Check, Outcome, Sense

#: Within this share of the range of the highest possible return an incumbent sits at the ceiling.
AT_CEILING = 0.01
#: Episodes after which it is known well enough to sit there.
KNOWN = 100
TAIL = "worst tenth"


def cell_checks(
    cell: CellEstimate, params: GateParams, gains: Sequence[Check] = (), served: str = ""
) -> list[Check]:
    """Every check of one cell, in order: its returns, then failures, then its tail.

    `gains` are secondary gains; one that passed carries a candidate whose primary metric is no
    worse. `served` adds to the remedy of a primary cell that failed.
    """
    if cell.problem is not None:
        return [_unplayed(cell)]
    params = cell.cell.rules(params)
    if cell.incumbent is None:
        found = _first_champion(cell, params)
    else:
        found = [_returns(cell, params, gains, served), _failure_gap(cell, params)]
    width = width_of(params)
    measured = zip(found, ("returns", "failures"), (width, 1.0), strict=True)
    looked_at = [(check, scale) for check, metric, scale in measured if metric in cell.cell.metrics]
    if cell.tail is not None:
        looked_at.append((_no_worse(TAIL, cell.tail, params.tail_margin * width), width))
    return [replace(check, binding=cell.cell.binding, scale=scale) for check, scale in looked_at]


def decided(checks: Sequence[Check]) -> bool:
    """Whether more episodes of this cell could still change what it adds to the verdict."""
    outcomes = {check.outcome for check in checks}
    return "failed" in outcomes or "inconclusive" not in outcomes


def stopping_rules(params: GateParams, whole: bool) -> GateParams:
    """The rules by which the primary cell is played on.

    Where secondary gains may carry a candidate that is merely no worse, being no better is not the
    end: it is played as planned for superiority, and beyond that until it is known to be no worse.
    """
    if not params.secondary_gains:
        return params
    return params.model_copy(update={"superiority": False} if whole else {"ceiling": None})


def worst_first(cells: Sequence[Sequence[Check]]) -> list[Check]:
    """Cells' checks: binding ones first, of them that which has the least room, or no figure."""

    def room(checks: Sequence[Check]) -> float:
        return min((-1e300 if c.room is None else c.room for c in checks), default=1e300)

    ordered = sorted(cells, key=lambda checks: (not any(c.binding for c in checks), room(checks)))
    return [check for checks in ordered for check in checks]


def secondary_gains(
    primary: CellEstimate, params: GateParams, pooled: Bound | None, sizes: tuple[int, int]
) -> list[Check]:
    """What the rules say may carry a promotion. `sizes` are bytes: candidate's, incumbent's."""
    found = []
    for name in params.secondary_gains:
        if name == "size":
            found.append(_smaller(*sizes))
            continue
        bound = primary.tail if name == "worst_tenth" else pooled
        if bound is not None:
            outcome: Outcome = "passed" if bound.low > 0 else "failed"
            reason = f"gain of {written(bound)}, must be above 0"
            check = _check(f"gain: {name}", outcome, bound, 0.0, "low >", reason)
            found.append(replace(check, binding=False, scale=width_of(params)))
    return found


def written(bound: Bound, sign: str = "+", percent: bool = False) -> str:
    """An estimate with its bounds, in returns or in percent."""
    unit, form = (100.0, f"{sign}.1f") if percent else (1.0, f"{sign}.{bound.decimals}f")
    mark = "%" if percent else ""
    value, low, high = (f"{unit * v:{form}}{mark}" for v in (bound.value, bound.low, bound.high))
    return f"{value} [{low}, {high}]"


def _returns(cell: CellEstimate, params: GateParams, gains: Sequence[Check], served: str) -> Check:
    assert cell.difference is not None
    gap, name = cell.difference, cell.cell.name
    if cell.cell.kind != "primary":
        return _no_worse(name, gap, params.cell_margin * width_of(params))
    margin, needed = params.margin * width_of(params), params.min_gain * width_of(params)
    if not params.superiority:
        return _no_worse(name, gap, margin, served)
    if gap.low > needed:
        reason = f"mean of paired differences {written(gap)} is above {_gain(needed)}"
        return _check(name, "passed", gap, needed, "low >", reason)
    carried = [gain.name for gain in gains if gain.outcome == "passed"]
    if carried and gap.low > -margin:
        reason = (
            f"no worse than the champion ({written(gap)}); passed by the secondary gain "
            f"{carried[0].removeprefix('gain: ')}"
        )
        return _check(name, "passed", gap, -margin, "low >", reason)
    return _not_better(cell, params, served)


def _not_better(cell: CellEstimate, params: GateParams, served: str) -> Check:
    assert cell.difference is not None
    assert cell.incumbent is not None
    gap, name, needed = cell.difference, cell.cell.name, params.min_gain * width_of(params)
    remedy = " ".join(filter(None, [served, _missing(gap, needed)]))
    if gap.high < 0:
        reason = f"worse than the champion: mean of paired differences {written(gap)}"
        return _check(name, "failed", gap, needed, "low >", reason, remedy)
    if gap.n >= KNOWN and _at_ceiling(cell.incumbent, cell.candidate, params):
        reason = (
            f"the champion's mean of {cell.incumbent.mean:.{gap.decimals}f} sits at the ceiling of "
            f"{params.ceiling:g} and the candidate is no better: {written(gap)}"
        )
        remedy = (
            "No candidate can beat this champion on this metric; only a secondary gain that the "
            "rules allow (gate.secondary_gains) can lead to promotion."
        )
        return _check(name, "failed", gap, needed, "low >", reason, remedy)
    if gap.high <= needed:
        reason = f"no better than the champion by {_gain(needed)}: {written(gap)}"
        return _check(name, "failed", gap, needed, "low >", reason, remedy)
    reason = f"mean of paired differences {written(gap)} does not exclude {_gain(needed)}"
    return _check(name, "inconclusive", gap, needed, "low >", reason, remedy)


def _at_ceiling(incumbent: Arm, candidate: Arm | None, params: GateParams) -> bool:
    """Whether the highest possible return leaves nothing to gain.

    A return above it shows that it is none: rules that never named one have CartPole's.
    """
    arms = [incumbent, *([candidate] if candidate else [])]
    if params.ceiling is None or any(arm.best > params.ceiling for arm in arms):
        return False
    return incumbent.mean >= params.ceiling - AT_CEILING * width_of(params)


def _gain(needed: float) -> str:
    return f"the smallest gain that counts, {needed:g}" if needed else "0"


def _failure_gap(cell: CellEstimate, params: GateParams) -> Check:
    assert cell.failure_gap is not None
    primary = cell.cell.kind == "primary"
    margin = params.failure_margin if primary else params.cell_failure_margin
    gap = cell.failure_gap
    outcome: Outcome = "inconclusive"
    if gap.high < margin:
        outcome, verb = "passed", "stays below"
    elif gap.low >= margin:
        outcome, verb = "failed", "is above"
    else:
        verb = "does not exclude"
    shown = written(gap, percent=True)
    reason = f"difference in failures {shown} {verb} the margin of {margin:+.0%}"
    remedy = "" if outcome == "passed" else _too_often(gap, margin)
    return _check(_failures(cell), outcome, gap, margin, "high <", reason, remedy)


def _first_champion(cell: CellEstimate, params: GateParams) -> list[Check]:
    """Without an incumbent the bars are absolute, for returns and for failures, in every cell."""
    assert cell.mean is not None
    assert cell.failures is not None
    primary = cell.cell.kind == "primary"
    bar = params.min_return if primary else params.min_cell_return
    limit = params.max_failure_rate if primary else params.max_cell_failure_rate
    return [
        _at_least(cell.cell.name, cell.mean, bar),
        _at_most(_failures(cell), cell.failures, limit, failure_of(params)),
    ]


def _no_worse(name: str, gap: Bound, margin: float, served: str = "") -> Check:
    outcome: Outcome = "inconclusive"
    if gap.low > -margin:
        outcome, verb = "passed", "stays above"
    elif gap.high <= -margin:
        outcome, verb = "failed", "is below"
    else:
        verb = "does not exclude"
    reason = f"difference {written(gap)} {verb} the margin of {-margin:+g}"
    remedy = " ".join(filter(None, [served, _missing(gap, -margin)]))
    return _check(
        name, outcome, gap, -margin, "low >", reason, "" if outcome == "passed" else remedy
    )


def _at_least(name: str, mean: Bound, bar: float) -> Check:
    outcome: Outcome = "inconclusive"
    if mean.low >= bar:
        outcome, verb = "passed", "reaches"
    elif mean.high < bar:
        outcome, verb = "failed", "is below"
    else:
        verb = "is not surely above"
    reason = f"mean return {written(mean, sign='')} {verb} the required {bar:g}"
    remedy = "" if outcome == "passed" else _missing(mean, bar)
    return _check(name, outcome, mean, bar, "low >=", reason, remedy)


def _at_most(name: str, rate: Bound, limit: float, bar: float) -> Check:
    outcome: Outcome = "inconclusive"
    if rate.high <= limit:
        outcome, verb = "passed", "stays within"
    elif rate.low > limit:
        outcome, verb = "failed", "is above"
    else:
        verb = "is not surely within"
    share = written(rate, sign="", percent=True)
    reason = f"{share} of episodes return {bar:g} or less, which {verb} the limit of {limit:.0%}"
    remedy = "" if outcome == "passed" else _too_often(rate, limit)
    return _check(name, outcome, rate, limit, "high <=", reason, remedy)


def _smaller(candidate: int, incumbent: int) -> Check:
    """A policy at least a tenth smaller is a gain; exact, so it needs no interval."""
    outcome: Outcome = "passed" if candidate <= 0.9 * incumbent else "failed"
    reason = (
        f"policy of {candidate:,} bytes against the champion's {incumbent:,}, at least 10% less is "
        "needed"
    )
    return Check("gain: size", outcome, reason, value=float(candidate), binding=False)


def _unplayed(cell: CellEstimate) -> Check:
    return Check(
        name=cell.cell.name,
        outcome="error",
        reason=f"this cell cannot be judged: {cell.problem}",
        remedy="Fix the crash and evaluate again, on fresh seeds.",
        binding=cell.cell.binding,
        n=cell.used,
    )


def _missing(bound: Bound, threshold: float) -> str:
    """By how much the bound missed, and about how many episodes would have decided."""
    text = f"The lower bound is {threshold - bound.low:.{bound.decimals}f} short."
    return text + _more_episodes(bound, bound.value - threshold, bound.value - bound.low)


def _too_often(bound: Bound, limit: float) -> str:
    text = f"The upper bound is {100 * (bound.high - limit):.1f} percentage points too high."
    return text + _more_episodes(bound, limit - bound.value, bound.high - bound.value)


def _more_episodes(bound: Bound, room: float, width: float) -> str:
    """Bounds close in about as 1 / sqrt(n), rare events a little slower."""
    if room <= 0:
        return " The estimate itself is on the wrong side: more episodes would not help."
    needed = max(bound.n * (width / room) ** 2, bound.n + 1)
    return f" If the estimate is right, about {needed:,.0f} episodes would be enough."


def _failures(cell: CellEstimate) -> str:
    return f"{cell.cell.name} failures"


def _check(
    name: str,
    outcome: Outcome,
    bound: Bound,
    threshold: float,
    sense: Sense,
    reason: str,
    remedy: str = "",
) -> Check:
    """A check that was decided by a bound."""
    return Check(
        name=name,
        outcome=outcome,
        reason=reason,
        value=bound.value,
        threshold=threshold,
        low=bound.low,
        high=bound.high,
        remedy=remedy,
        sense=sense,
        n=bound.n,
    )
