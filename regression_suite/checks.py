"""Estimates against thresholds: superiority, non-inferiority, and floors for a first champion.

A threshold inside an interval is inconclusive, never a pass. The interval's lower bound must clear
the threshold for a pass; a fail needs the upper bound below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from regression_suite.estimates import CellEstimate
from regression_suite.stats import POWER, Interval
from srghn.config import GateParams
from srghn.inference.verdict import Check, Outcome

#: Within this share of the scale of the highest possible return, an incumbent sits at the ceiling.
AT_CEILING = 0.01


def against_champion(
    cells: Sequence[CellEstimate], params: GateParams, gains: Sequence[Check]
) -> list[Check]:
    """Better on the primary cell, its worst tenth no worse, and no worse in every harder cell.

    `gains` are the secondary gains that the policy names; one that passed carries a candidate
    whose primary metric is no worse.
    """
    primary, others = cells[0], cells[1:]
    if primary.problem is not None:
        return [_unplayed(primary)]
    assert primary.difference is not None
    assert primary.tail is not None
    first = _primary(primary, primary.difference, params, gains)
    tail = _no_worse("worst tenth", primary.tail, params.tail_margin * params.scale, binding=True)
    return [first, tail, *_worst_first([_cell(cell, params) for cell in others])]


def first_champion(cells: Sequence[CellEstimate], params: GateParams) -> list[Check]:
    """Without an incumbent the bar is absolute: a mean for the primary cell, a floor for others."""
    checks = []
    for cell in cells:
        bar = params.min_return if cell.cell.kind == "primary" else params.min_cell_return
        if cell.mean is None:
            checks.append(_unplayed(cell))
        else:
            checks.append(_at_least(cell.cell.name, cell.mean, bar, cell.cell.binding))
    return [checks[0], *_worst_first(checks[1:])]


def secondary_gains(
    cells: Sequence[CellEstimate],
    params: GateParams,
    pooled: Interval | None,
    sizes: tuple[int, int],
) -> list[Check]:
    """What the policy says may carry a promotion. `sizes` are bytes: candidate's, incumbent's."""
    found = []
    for name in params.secondary_gains:
        if name == "size":
            found.append(_smaller(*sizes))
            continue
        interval = cells[0].tail if name == "worst_tenth" else pooled
        if interval is not None:
            outcome: Outcome = "passed" if interval.low > 0 else "failed"
            reason = f"gain of {_with_interval(interval)}, needed above 0"
            check = interval_check(f"gain: {name}", outcome, interval, 0.0, reason)
            found.append(_advisory(check))
    return found


def _primary(
    cell: CellEstimate, gap: Interval, params: GateParams, gains: Sequence[Check]
) -> Check:
    margin = params.margin * params.scale
    if not params.superiority:
        return _no_worse(cell.cell.name, gap, margin, binding=True)
    if gap.low > 0:
        reason = f"IQM of paired differences {_with_interval(gap)} is above 0"
        return interval_check(cell.cell.name, "passed", gap, 0.0, reason)
    carried = [gain.name for gain in gains if gain.outcome == "passed"]
    if carried and gap.low > -margin:
        reason = f"no worse than the champion ({_with_interval(gap)}), carried by {carried[0]}"
        return interval_check(cell.cell.name, "passed", gap, -margin, reason)
    return _not_better(cell, gap, params)


def _not_better(cell: CellEstimate, gap: Interval, params: GateParams) -> Check:
    name, remedy = cell.cell.name, _remedy(gap, 0.0)
    if gap.high < 0:
        reason = f"worse than the champion: IQM of paired differences {_with_interval(gap)}"
        return interval_check(name, "failed", gap, 0.0, reason, remedy)
    if cell.incumbent is not None and _at_ceiling(cell.incumbent.iqm, params):
        reason = (
            f"the champion's IQM of {cell.incumbent.iqm:.1f} sits at the ceiling of "
            f"{params.ceiling:g} and the candidate is no better: {_with_interval(gap)}"
        )
        remedy = (
            "On this metric nothing can beat this champion; only a secondary gain that the policy "
            "names (gate.secondary_gains) could carry a promotion."
        )
        return interval_check(name, "failed", gap, 0.0, reason, remedy)
    if gap.high == 0:
        reason = f"no better than the champion: IQM of paired differences {_with_interval(gap)}"
        return interval_check(name, "failed", gap, 0.0, reason, remedy)
    reason = f"IQM of paired differences {_with_interval(gap)} does not exclude 0"
    return interval_check(name, "inconclusive", gap, 0.0, reason, remedy)


def _at_ceiling(iqm: float, params: GateParams) -> bool:
    return params.ceiling is not None and iqm >= params.ceiling - AT_CEILING * params.scale


def _cell(cell: CellEstimate, params: GateParams) -> Check:
    if cell.difference is None:
        return _unplayed(cell)
    margin = params.cell_margin * params.scale
    return _no_worse(cell.cell.name, cell.difference, margin, binding=cell.cell.binding)


def _no_worse(name: str, gap: Interval, margin: float, *, binding: bool) -> Check:
    outcome: Outcome = "inconclusive"
    if gap.low > -margin:
        outcome, verb = "passed", "stays above"
    elif gap.high <= -margin:
        outcome, verb = "failed", "is below"
    else:
        verb = "does not exclude"
    reason = f"difference {_with_interval(gap)} {verb} the margin of {-margin:+.1f}"
    remedy = "" if outcome == "passed" else _remedy(gap, -margin)
    return _binding(interval_check(name, outcome, gap, -margin, reason, remedy), binding)


def _at_least(name: str, mean: Interval, bar: float, binding: bool) -> Check:
    outcome: Outcome = "inconclusive"
    if mean.low >= bar:
        outcome, verb = "passed", "reaches"
    elif mean.high < bar:
        outcome, verb = "failed", "is below"
    else:
        verb = "is not surely above"
    reason = f"mean return {_with_interval(mean, sign='')} {verb} the required {bar:g}"
    remedy = "" if outcome == "passed" else _remedy(mean, bar, sign="")
    return _binding(interval_check(name, outcome, mean, bar, reason, remedy), binding)


def _smaller(candidate: int, incumbent: int) -> Check:
    """A policy at least a tenth smaller is a gain; exact, so it needs no interval."""
    outcome: Outcome = "passed" if candidate <= 0.9 * incumbent else "failed"
    reason = f"policy of {candidate:,} bytes against the champion's {incumbent:,}, needed 10% less"
    return Check("gain: size", outcome, reason, value=float(candidate), binding=False)


def _unplayed(cell: CellEstimate) -> Check:
    return Check(
        name=cell.cell.name,
        outcome="error",
        reason=f"nothing can be said of this cell: {cell.problem}",
        remedy="Mend what crashed and evaluate again, on fresh seeds.",
        binding=cell.cell.binding,
    )


def _remedy(interval: Interval, threshold: float, sign: str = "+") -> str:
    """By how much the bound missed, and how large an effect or a sample would have decided."""
    missing = threshold - interval.low
    text = f"The lower bound is {missing:.1f} short."
    if interval.error == 0:
        return f"{text} All resamples agree, so more episodes would change nothing."
    effect = f"{threshold + interval.detectable:{sign}.1f}"
    text += f" With {interval.n} episodes a true value of {effect} would have been found with"
    text += f" {POWER:.0%} probability."
    if interval.value > threshold:
        missed = interval.reach * interval.error / (interval.value - threshold)
        needed = interval.n * missed**2
        text += (
            f" If the estimate held, about {max(needed, interval.n + 1):,.0f} episodes would do."
        )
    return text


def _with_interval(interval: Interval, sign: str = "+") -> str:
    return f"{interval.value:{sign}.1f} [{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


def _worst_first(checks: Sequence[Check]) -> list[Check]:
    """Cells that could not be judged, then those with the least slack."""
    return sorted(checks, key=lambda c: float("-inf") if c.slack is None else c.slack)


def _binding(check: Check, binding: bool) -> Check:
    return check if binding else _advisory(check)


def _advisory(check: Check) -> Check:
    return replace(check, binding=False)


def interval_check(
    name: str, outcome: Outcome, interval: Interval, threshold: float, reason: str, remedy: str = ""
) -> Check:
    """A check whose value is an estimate with its interval."""
    return Check(
        name=name,
        outcome=outcome,
        reason=reason,
        value=interval.value,
        threshold=threshold,
        low=interval.low,
        high=interval.high,
        remedy=remedy,
    )
