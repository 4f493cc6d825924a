"""Small SVG drawings: axes, lines, bands and dots as text, styled by the page's style sheet.

Colours are CSS classes, so a drawing follows the page into dark mode and onto paper. Coordinates
are rounded to a tenth of a unit, so the same numbers give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from markupsafe import Markup, escape

Values = Iterable[float]
#: Units of a letter.
LETTER = 7


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within [low, high], at most `most` + 1 of them."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def label(value: float) -> str:
    """A tick's text: as few digits as the number needs."""
    return f"{value:.10g}".replace("-", "−")


class Drawing:
    """A rectangle of `width` x `height` units with data coordinates inside its margins.

    `x` and `y` are the data ranges; margins are (top, right, bottom, left) in units.
    """

    def __init__(
        self,
        width: float,
        height: float,
        x: tuple[float, float],
        y: tuple[float, float],
        margins: tuple[float, float, float, float] = (12, 14, 34, 48),
    ) -> None:
        self.width, self.height = width, height
        self.x, self.y = _open(x), _open(y)
        self.top, self.right, self.bottom, self.left = margins
        self.parts: list[str] = []

    def px(self, value: float) -> float:
        share = (value - self.x[0]) / (self.x[1] - self.x[0])
        return self.left + share * (self.width - self.left - self.right)

    def py(self, value: float) -> float:
        share = (value - self.y[0]) / (self.y[1] - self.y[0])
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def segment(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """A straight line between two points in units."""
        self.parts.append(
            f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
        )

    def line(self, xs: Values, ys: Values, style: str) -> None:
        self.parts.append(f'<polyline class="{style}" points="{self._points(xs, ys)}"/>')

    def steps(self, xs: Sequence[float], ys: Sequence[float], style: str) -> None:
        """A line that keeps each y until the next x."""
        corners = [(xs[0], ys[0])]
        for (_, y1), (x2, y2) in pairwise(zip(xs, ys, strict=True)):
            corners += [(x2, y1), (x2, y2)]
        self.line((x for x, _ in corners), (y for _, y in corners), style)

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> None:
        """The area between two lines."""
        there, back = self._points(xs, high), self._points(reversed(xs), reversed(low))
        self.parts.append(f'<polygon class="band" points="{there} {back}"/>')

    def dot(self, x: float, y: float, style: str, radius: float = 3) -> None:
        self.parts.append(
            f'<circle class="{style}" cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" r="{radius:g}"/>'
        )

    def bar(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """A rectangle between two corners in data coordinates."""
        left, right = sorted((self.px(x1), self.px(x2)))
        upper, lower = sorted((self.py(y1), self.py(y2)))
        self.parts.append(
            f'<rect class="{style}" x="{left:.1f}" y="{upper:.1f}" '
            f'width="{right - left:.1f}" height="{lower - upper:.1f}"/>'
        )

    def text(self, x: float, y: float, words: str, anchor: str = "start", style: str = "") -> None:
        """Words at a point in units."""
        self.parts.append(
            f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )

    def vertical(self, x: float, style: str) -> None:
        """A line from top to bottom at a data x."""
        self.segment(self.px(x), self.top, self.px(x), self.height - self.bottom, style)

    def horizontal(self, y: float, style: str) -> None:
        """A line from left to right at a data y."""
        self.segment(self.left, self.py(y), self.width - self.right, self.py(y), style)

    def axes(self, x_name: str = "", y_name: str = "", x_most: int = 6, y_most: int = 5) -> None:
        """Grid, tick labels and the names of both axes. Draw them first. 0 is no ticks."""
        foot = self.height - self.bottom
        for tick in ticks(*self.y, y_most) if y_most else ():
            self.horizontal(tick, "grid")
            self.text(self.left - 6, self.py(tick) + 4, label(tick), "end", "tick")
        for tick in self._across(x_most) if x_most else ():
            self.segment(self.px(tick), foot, self.px(tick), foot + 4, "axis")
            self.text(self.px(tick), foot + 16, label(tick), "middle", "tick")
        self.segment(self.left, foot, self.width - self.right, foot, "axis")
        if x_name:
            self.text(self.width - self.right, foot + 30, x_name, "end", "name")
        if y_name:
            self.text(2, self.top - 10, y_name, "start", "name")

    def _across(self, most: int) -> list[float]:
        """Ticks of the x axis, at most `most` + 1, and so few that their labels have room."""
        for fewer in range(most, 1, -1):
            found = ticks(*self.x, fewer)
            if len(found) < 2:
                return found
            room = abs(self.px(found[1]) - self.px(found[0]))
            if room > LETTER * max(len(label(tick)) for tick in found) + 8:
                return found
        return ticks(*self.x, 1)

    def svg(self, title: str, style: str = "plot") -> Markup:
        """The drawing as an accessible inline element; `title` says what is to be seen."""
        body = "".join(self.parts)
        return Markup(
            f'<svg class="{style}" role="img" aria-label="{escape(title)}" '
            f'viewBox="0 0 {self.width:g} {self.height:g}">{body}</svg>'
        )

    def _points(self, xs: Values, ys: Values) -> str:
        return " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in zip(xs, ys, strict=True))


def _open(limits: tuple[float, float]) -> tuple[float, float]:
    """A range of some width, so that equal values can be drawn; it may run downwards."""
    low, high = limits
    return (low, high) if high != low else (low - 0.5, high + 0.5)
