"""The evidence of a trial, drawn: both arms' intervals, and the difference against its margin."""

from __future__ import annotations

import math

from markupsafe import Markup

from serving.trial.by_arrival import Decision
from srghn.config import CanaryParams
from srghn.inference.sequences import Interval

WIDTH, LEFT, RIGHT = 640, 96, 24
_ROW = 34


class _Axis:
    """Values in [low, high] to pixels."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)


def draw(decision: Decision, params: CanaryParams) -> Markup:
    """An SVG of the two mean returns and of their difference, with the harm and margin lines."""
    span = params.return_high - params.return_low
    returns = _Axis(params.return_low, params.return_high)
    reach = _nice(max(abs(decision.low), abs(decision.high)), span)
    difference = _Axis(-reach, reach)
    margin = -params.margin * span
    said = (
        f"champion {_words(decision.champion)}, canary {_words(decision.canary)}, "
        f"difference {decision.low:.1f} to {decision.high:.1f}, margin {margin:.1f}"
    )
    parts = [
        *_axis(returns, 20, 2 * _ROW, "mean return"),
        *_bar(returns, 20 + 0.5 * _ROW, "champion", decision.champion, "held"),
        *_bar(returns, 20 + 1.5 * _ROW, "canary", decision.canary, "tried"),
        *_axis(difference, 128, _ROW, "canary minus champion"),
        _line(difference(margin), 128, _ROW, "margin"),
        _line(difference(0), 128, _ROW, "zero"),
        _span(difference, 128 + 0.5 * _ROW, "difference", decision.low, decision.high, "both"),
    ]
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} 204" role="img" aria-label="{said}"><title>{said}</title>'
        + "".join(parts)
        + "</svg>"
    )


def _nice(value: float, most: float) -> float:
    """The next of 1, 2, 5 times a power of ten, at most `most`."""
    scale = 10.0 ** math.floor(math.log10(max(value, most / 1000)))
    return min(most, next(step * scale for step in (1, 2, 5, 10) if step * scale >= value))


def _words(arm: Interval) -> str:
    return f"{arm.low:.1f} to {arm.high:.1f} after {arm.n} episodes"


def _axis(axis: _Axis, top: float, height: float, label: str) -> list[str]:
    bottom, parts = top + height, []
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = axis.low + share * (axis.high - axis.low)
        x = axis(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 13}">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{bottom + 27}">{label}</text>')
    return parts


def _bar(axis: _Axis, y: float, name: str, arm: Interval, kind: str) -> list[str]:
    parts = [_span(axis, y, f"{name} · {arm.n}", arm.low, arm.high, kind)]
    if arm.n:
        parts.append(f'<circle class="{kind}" cx="{axis(arm.mean):.1f}" cy="{y}" r="5"/>')
    return parts


def _span(axis: _Axis, y: float, name: str, low: float, high: float, kind: str) -> str:
    return (
        f'<text class="name" x="{LEFT - 10}" y="{y + 4}">{name}</text>'
        f'<line class="bar {kind}" x1="{axis(low):.1f}" x2="{axis(high):.1f}" y1="{y}" y2="{y}"/>'
    )


def _line(x: float, top: float, height: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + height}"/>'
