"""Draws a trial's evidence: both arms' means, and bounds of the effect with its margin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from serving.registry.trial_view import TrialView
from serving.trial.rules import TrialRules

LEFT, RIGHT = 96, 24
_ROW = 34


class _Axis:
    """Maps values in [low, high] to pixels of a drawing of this width."""

    def __init__(self, low: float, high: float, width: int) -> None:
        self.low, self.high, self.width = low, high, width

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return LEFT + min(max(share, 0.0), 1.0) * (self.width - LEFT - RIGHT)


def draw(view: TrialView, width: int = 640) -> Markup:
    """An SVG of both arms' mean returns, and of the effect's bounds with harm and margin lines.

    `width` is the width in pixels at which its letters have the size of the page's text.
    """
    rules, decision = view.canary.rules, view.decision
    span = rules.high - rules.low
    returns = _Axis(rules.low, rules.high, width)
    reach = _nice(max(abs(view.low), abs(view.high)), span)
    difference = _Axis(-reach, reach, width)
    margin = -rules.margin * span
    arms = {name: _Arm.of(getattr(decision, name), rules) for name in ("champion", "canary")}
    said = (
        f"{', '.join(f'{name} {arm.words}' for name, arm in arms.items())}, "
        f"effect {view.low:.1f} to {view.high:.1f}, margin {margin:.1f}"
    )
    parts = [
        *_axis(returns, 20, 2 * _ROW, "mean return"),
        *_dot(returns, 20 + 0.5 * _ROW, "champion", arms["champion"], "held"),
        *_dot(returns, 20 + 1.5 * _ROW, "canary", arms["canary"], "tried"),
        *_axis(difference, 128, _ROW, "canary minus champion"),
        _line(difference(margin), 128, _ROW, "margin"),
        _line(difference(0), 128, _ROW, "zero"),
        _span(difference, 128 + 0.5 * _ROW, "effect", view.low, view.high, "both"),
    ]
    return Markup(
        f'<svg viewBox="0 0 {width} 204" role="img" aria-label="{said}"><title>{said}</title>'
        + "".join(parts)
        + "</svg>"
    )


@dataclass(frozen=True)
class _Arm:
    """One arm's number of outcomes and their mean return; None without outcomes."""

    outcomes: int
    mean: float | None

    @classmethod
    def of(cls, counted: Mapping[str, Any], rules: TrialRules) -> _Arm:
        mean = counted["mean"]
        scaled = None if mean is None else rules.low + mean * (rules.high - rules.low)
        return cls(counted["episodes"] - counted["missing"], scaled)

    @property
    def words(self) -> str:
        if self.mean is None:
            return "without an outcome"
        return f"mean {self.mean:.1f} after {self.outcomes} episodes"


def _nice(value: float, most: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `value`; at most `most`."""
    scale = 10.0 ** math.floor(math.log10(max(value, most / 1000)))
    return min(most, next(step * scale for step in (1, 2, 5, 10) if step * scale >= value))


def _axis(axis: _Axis, top: float, height: float, label: str) -> list[str]:
    bottom, parts = top + height, []
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = axis.low + share * (axis.high - axis.low)
        x = axis(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 13}">{value:g}</text>')
    middle = (LEFT + axis.width - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{bottom + 27}">{label}</text>')
    return parts


def _dot(axis: _Axis, y: float, name: str, arm: _Arm, kind: str) -> list[str]:
    parts = [f'<text class="name" x="{LEFT - 10}" y="{y + 4}">{name} · {arm.outcomes}</text>']
    if arm.mean is not None:
        parts.append(f'<circle class="{kind}" cx="{axis(arm.mean):.1f}" cy="{y}" r="5"/>')
    return parts


def _span(axis: _Axis, y: float, name: str, low: float, high: float, kind: str) -> str:
    return (
        f'<text class="name" x="{LEFT - 10}" y="{y + 4}">{name}</text>'
        f'<line class="bar {kind}" x1="{axis(low):.1f}" x2="{axis(high):.1f}" y1="{y}" y2="{y}"/>'
    )


def _line(x: float, top: float, height: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + height}"/>'
