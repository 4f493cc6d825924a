"""The report's pictures, from plain arrays to inline SVG.

A picture across the page is drawn twice, for a desktop and for a phone; the style sheet shows one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from regression_suite.bounds import decimals
from regression_suite.report.svg import LETTER, Drawing, label
from srghn.inference.verdict import Check

Float = NDArray[np.float64]
#: Units across a picture of a desktop's page and of a phone's, where letters are as tall as text.
WIDE, NARROW = 760, 320
#: Margins that leave the labels of both axes room.
SIDES = (26, 24, 38, 66)
#: Letters of a cell's name that a forest plot has room for.
NAME = 36
#: Units of a row of a forest plot: on a phone name and numbers stand above the interval.
ROW, TALL_ROW = 30, 56
STYLES = {"passed": "pass", "failed": "fail", "inconclusive": "unsure", "error": "fail"}
SIGNS = {"passed": "✓", "failed": "✕", "inconclusive": "?", "error": "!"}


def _both(draw: Callable[[int], Markup]) -> Markup:
    """What `draw` makes for a desktop's width and for a phone's."""
    frame = '<div class="wide-drawing">{}</div><div class="narrow-drawing">{}</div>'
    return Markup(frame).format(draw(WIDE), draw(NARROW))


def forest(checks: Sequence[Check], what: str, *, paired: bool, unit: float = 1.0) -> Markup:
    """One row per estimate: its interval, the point, and the threshold it was held against.

    Values are multiplied by `unit`: 100 for shares in percent.
    """
    rows = [_times(c, unit) for c in checks if c.low is not None and c.high is not None]
    return _both(lambda width: _forest(rows, what, "+" if paired else "", width))


def _forest(rows: Sequence[Check], what: str, plus: str, width: int) -> Markup:
    ends = [v for c in rows for v in (c.low, c.high, c.threshold, 0.0) if v is not None]
    pad = 0.06 * (max(ends) - min(ends) or 1)
    span = (min(ends) - pad, max(ends) + pad)
    left = 24 + LETTER * max((len(_short(check.name)) for check in rows), default=0)
    right = 28 + LETTER * max((len(_numbers(check, plus)) for check in rows), default=0)
    wide = width == WIDE
    margins = (14, max(right, 196), 46, max(left, 150)) if wide else (4, 30, 46, 30)
    height = (ROW if wide else TALL_ROW) * len(rows) + margins[0] + margins[2] + 4
    drawing = Drawing(width, height, span, (len(rows), 0.0), margins)
    drawing.axes(what, y_most=0)
    if wide:
        drawing.vertical(0.0, "zero")
    for index, check in enumerate(rows):
        _forest_row(drawing, check, index, plus, wide=wide)
    return drawing.svg(
        f"Forest plot, {what}: "
        + "; ".join("{} {} from {} to {}".format(c.name, *_figures(c, "")) for c in rows)
    )


def _short(name: str) -> str:
    """A cell's name as the picture has room for; an own perturbation's path is cut in front."""
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"


def _numbers(check: Check, plus: str) -> str:
    sign = SIGNS[check.outcome] if check.binding else "·"
    return "{} {} [{}, {}]".format(sign, *_figures(check, plus))


def _figures(check: Check, plus: str) -> tuple[str, ...]:
    """Value, low and high."""
    assert check.low is not None
    assert check.high is not None
    form = f"{plus}.{decimals(check.low, check.high)}f"
    return tuple(f"{number:{form}}" for number in (check.value, check.low, check.high))


def _times(check: Check, unit: float) -> Check:
    value, threshold, low, high = (
        None if number is None else unit * number
        for number in (check.value, check.threshold, check.low, check.high)
    )
    return replace(check, value=value, threshold=threshold, low=low, high=high)


def _forest_row(drawing: Drawing, check: Check, row: int, plus: str, *, wide: bool) -> None:
    assert check.low is not None
    assert check.high is not None
    assert check.value is not None
    style = STYLES[check.outcome] if check.binding else "muted"
    y = row + (0.5 if wide else 0.8)
    middle = drawing.py(y)
    left, right = drawing.px(check.low), drawing.px(check.high)
    words = _numbers(check, plus)
    if wide:
        drawing.text(drawing.left - 12, middle + 4, _short(check.name), "end", "row")
        drawing.text(drawing.width - drawing.right + 12, middle + 4, words, "start", "tick")
    else:
        drawing.text(0, middle - 31, _short(check.name), "start", "row")
        drawing.text(0, middle - 16, words, "start", "tick")
        zero = drawing.px(0.0)
        drawing.segment(zero, middle - 11, zero, middle + 11, "zero")
    if check.threshold is not None:
        at = drawing.px(check.threshold)
        drawing.segment(at, middle - 11, at, middle + 11, "margin")
    drawing.segment(left, middle, max(right, left + 1), middle, f"whisker {style}")
    for end in (left, right):
        drawing.segment(end, middle - 4, end, middle + 4, f"whisker {style}")
    drawing.dot(check.value, y, f"dot {style}", 4.5)


def profile(candidate: Float, champion: Float | None, bar: float) -> Markup:
    """Performance profile: the share of episodes that return more than each value."""
    low, high = _span(candidate, champion, bar)
    drawing = Drawing(370, 260, (low, high), (0, 1), (24, 14, 40, 44))
    drawing.axes("return", "share of episodes at or above")
    drawing.vertical(bar, "margin")
    for returns, style in ((champion, "stroke champ"), (candidate, "stroke cand")):
        if returns is not None:
            ordered = np.sort(returns)
            n = len(ordered)
            xs = [low, *ordered.tolist(), high]
            drawing.steps(xs, [1.0, *(1 - np.arange(1, n + 1) / n).tolist(), 0.0], style)
    return drawing.svg("Performance profile: share of episodes whose return is at least x")


#: What the two policies are called, where nothing else is said.
NAMES = ("candidate", "champion")


def scatter(
    candidate: Float, champion: Float, bar: float, names: tuple[str, str] = NAMES
) -> Markup:
    """One dot an episode: above the diagonal the candidate did better."""
    span = _span(candidate, champion, bar)
    drawing = Drawing(370, 260, span, span, (24, 14, 40, 44))
    drawing.axes(f"return of {names[1]}", f"return of {names[0]}")
    drawing.line(drawing.x, drawing.x, "zero")
    for x, y in zip(champion, candidate, strict=True):
        drawing.dot(float(x), float(y), "ghost cand", 4)
    better, worse = int((candidate > champion).sum()), int((candidate < champion).sum())
    return drawing.svg(f"Paired returns: {names[0]} better in {better} episodes, worse in {worse}")


def _span(candidate: Float, champion: Float | None, bar: float) -> tuple[float, float]:
    everything = candidate if champion is None else np.concatenate([candidate, champion])
    return float(min(everything.min(), bar)), float(max(everything.max(), bar))


def waterfall(differences: Float, margin: float, names: tuple[str, str] = NAMES) -> Markup:
    """Every paired difference as a bar, from the worst to the best."""
    ordered = np.sort(differences)
    return _both(lambda width: _waterfall(ordered, margin, names, width))


def _waterfall(ordered: Float, margin: float, names: tuple[str, str], width: int) -> Markup:
    low, high = min(float(ordered[0]), -margin), max(float(ordered[-1]), margin)
    drawing = Drawing(width, 208, (0, len(ordered)), (low, high), SIDES)
    drawing.axes("episodes, worst first", f"{names[0]} less {names[1]}")
    for index, gap in enumerate(ordered):
        style = "fill pass" if gap > 0 else "fill fail"
        drawing.bar(index + 0.12, 0, index + 0.88, float(gap), style)
    drawing.horizontal(0, "axis")
    drawing.horizontal(-margin, "margin")
    return drawing.svg(f"Paired differences of {len(ordered)} episodes, sorted, margin −{margin:g}")


def actions(
    rows: Sequence[str],
    columns: Sequence[str],
    candidate: Float,
    champion: Float | None,
    names: tuple[str, str] = NAMES,
) -> Markup:
    """Shares of each action: a group of bars for every row and column."""
    groups = [
        f"{row} = {column}" if len(rows) > 1 else f"{column}" for row in rows for column in columns
    ]
    mine = candidate.ravel()
    theirs = None if champion is None else champion.ravel()
    drawing = Drawing(370, 220, (0, len(mine)), (0, 1), (24, 14, 34, 44))
    drawing.axes("", "share of answers", x_most=0)
    foot = drawing.height - drawing.bottom
    for index, share in enumerate(mine):
        half = 0.42 if theirs is None else 0.0
        drawing.bar(index + 0.5 - 0.36, 0, index + 0.5 + half - 0.02, float(share), "fill cand")
        if theirs is not None:
            drawing.bar(index + 0.52, 0, index + 0.86, float(theirs[index]), "fill champ")
        if len(mine) <= 12:
            drawing.text(drawing.px(index + 0.5), foot + 16, groups[index], "middle", "tick")
    return drawing.svg(f"Action distribution, {names[0]} beside {names[1]}")


def power(effects: Sequence[float], chances: Float, detectable: float) -> Markup:
    """Probability that this gate would have found a true gain of each size."""
    drawing = Drawing(370, 260, (effects[0], effects[-1]), (0, 1), (24, 14, 40, 44))
    drawing.axes("true gain (mean of differences)", "probability of being found superior")
    drawing.vertical(detectable, "margin")
    drawing.line(effects, chances.tolist(), "stroke cand")
    return drawing.svg(f"Power curve; a gain of {detectable:.4g} is found with 80% probability")


@dataclass(frozen=True)
class Series:
    """One quantity over generations, with a band from `low` to `high` where there is one."""

    name: str
    xs: Sequence[float]
    middle: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    best: Sequence[float] | None = None


def over_generations(series: Series, switches: Sequence[tuple[float, str]]) -> Markup:
    """A quantity's course, with the world's switches as lines, labelled where there is room."""
    return _both(lambda width: _over_generations(series, switches, width))


def _over_generations(series: Series, switches: Sequence[tuple[float, str]], width: int) -> Markup:
    values = [
        v
        for part in (series.middle, series.low, series.high, series.best)
        for v in part or ()
        if np.isfinite(v)
    ]
    low, high = (min(0.0, *values), max(values)) if values else (0.0, 1.0)
    drawing = Drawing(width, 180, (series.xs[0], series.xs[-1]), (low, high), SIDES)
    drawing.axes("generation", series.name)
    if series.low is not None and series.high is not None:
        drawing.band(series.xs, _floor(series.low, low), _floor(series.high, low))
    if series.best is not None:
        drawing.line(series.xs, _floor(series.best, low), "thin champ")
    drawing.line(series.xs, _floor(series.middle, low), "stroke cand")
    free = drawing.left
    for generation, mode in switches:
        drawing.vertical(generation, "switch")
        at, needed = drawing.px(generation), 10 + LETTER * len(mode)
        near_right = at + needed > drawing.width
        start, shift, anchor = (at - needed, -5, "end") if near_right else (at, 5, "start")
        if start >= free:
            drawing.text(at + shift, drawing.top + 10, mode, anchor, "name")
            free = start + needed
    marks = ", ".join(f"{mode} from {label(g)}" for g, mode in switches)
    return drawing.svg(
        f"{series.name} over generations" + (f"; switches: {marks}" if marks else "")
    )


def _floor(values: Sequence[float], low: float) -> list[float]:
    """Minus infinity (a crashed individual) is drawn at the foot."""
    return [v if np.isfinite(v) else low for v in values]
