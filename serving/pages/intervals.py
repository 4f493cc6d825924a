"""Draws a trial's evidence: both arms' means, and bounds of the effect with its margin."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from serving.registry.trial_view import TrialView
from serving.trial.rules import TrialRules

#: Pixels beside the axes at least, and of a letter: of the widest font that the pages name.
LEFT, RIGHT = 96, 24
LETTER = 7.7
#: Pixels between two numbers of an axis at least.
_GAP = 6
_ROW = 34


class _Axis:
    """Maps values in [low, high] to pixels from `left` to `right`."""

    def __init__(self, low: float, high: float, left: float, right: float) -> None:
        self.low, self.high, self.left, self.right = low, high, left, right

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.left + min(max(share, 0.0), 1.0) * (self.right - self.left)


def draw(view: TrialView, width: int = 640) -> Markup:
    """An SVG of both arms' mean returns, and of the effect's bounds with harm and margin lines.

    `width` is the width in pixels at which its letters have the size of the page's text.
    """
    rules, decision = view.canary.rules, view.decision
    span = rules.high - rules.low
    reach = _nice(max(abs(view.low), abs(view.high)), span)
    margin = -rules.margin * span
    arms = {name: _Arm.of(getattr(decision, name), rules) for name in ("champion", "canary")}
    said = (
        f"{', '.join(f'{name} {arm.words}' for name, arm in arms.items())}, "
        f"effect {view.low:.4g} to {view.high:.4g}, margin {margin:.4g}"
    )
    names = [f"{name} · {arm.outcomes}" for name, arm in arms.items()]
    ticks = [*_ticks(rules.low, rules.high).values(), *_ticks(-reach, reach).values()]
    half = max(map(len, ticks)) * LETTER / 2 + 2  # the outer numbers stand across the axis' ends
    left = max(LEFT, half, max(map(len, names)) * LETTER + 12)
    sides = left, width - max(RIGHT, half)
    returns, difference = _Axis(rules.low, rules.high, *sides), _Axis(-reach, reach, *sides)
    parts = [
        *_axis(returns, 20, 2 * _ROW, "mean return"),
        *_dot(returns, 20 + 0.5 * _ROW, names[0], arms["champion"], "held"),
        *_dot(returns, 20 + 1.5 * _ROW, names[1], arms["canary"], "tried"),
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
        return f"mean {self.mean:.4g} after {self.outcomes} episodes"


def _nice(value: float, most: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `value`; at most `most`."""
    scale = 10.0 ** math.floor(math.log10(max(value, most / 1000)))
    return min(most, next(step * scale for step in (1, 2, 5, 10) if step * scale >= value))


def _ticks(low: float, high: float) -> dict[float, str]:
    """Five values of a range, with as few digits, from three on, as tell them apart."""
    values = [low + share * (high - low) for share in (0, 0.25, 0.5, 0.75, 1)]
    values = [0.0 if abs(value) < 1e-9 * (high - low) else value for value in values]
    words: list[str] = []
    for digits in range(3, 17):
        words = [_number(value, digits) for value in values]
        if len(set(words)) == len(words):
            break
    return dict(zip(values, words, strict=True))


def _number(value: float, digits: int) -> str:
    """A number of so many digits; below a million without a power of ten."""
    word = f"{float(f'{value:.{digits}g}'):.{max(digits, 6)}g}"
    return re.sub(r"e([+-])0*", lambda m: f"e{m[1].replace('+', '')}", word)


def _axis(axis: _Axis, top: float, height: float, label: str) -> list[str]:
    """Lines at five values, and as many of their numbers, from both ends, as there is room for."""
    bottom, parts = top + height, []
    ticks = _ticks(axis.low, axis.high)
    room = (axis.right - axis.left) / 4 - _GAP
    longest = max(map(len, ticks.values())) * LETTER
    every = next((step for step in (1, 2) if longest <= step * room + (step - 1) * _GAP), 4)
    for number, (value, word) in enumerate(ticks.items()):
        x = axis(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        if number % every == 0:
            parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 13}">{word}</text>')
    middle = (axis.left + axis.right) / 2
    parts.append(f'<text class="label" x="{middle:.1f}" y="{bottom + 27}">{label}</text>')
    return parts


def _dot(axis: _Axis, y: float, name: str, arm: _Arm, kind: str) -> list[str]:
    parts = [f'<text class="name" x="{axis.left - 10:.1f}" y="{y + 4}">{name}</text>']
    if arm.mean is not None:
        parts.append(f'<circle class="{kind}" cx="{axis(arm.mean):.1f}" cy="{y}" r="5"/>')
    return parts


def _span(axis: _Axis, y: float, name: str, low: float, high: float, kind: str) -> str:
    return (
        f'<text class="name" x="{axis.left - 10:.1f}" y="{y + 4}">{name}</text>'
        f'<line class="bar {kind}" x1="{axis(low):.1f}" x2="{axis(high):.1f}" y1="{y}" y2="{y}"/>'
    )


def _line(x: float, top: float, height: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + height}"/>'
