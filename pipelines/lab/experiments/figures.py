"""The page's figures: medians over seeds with quartile bands, against evaluations.

A figure is `wide` for a desktop, with its legend beside it, or narrow for a phone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

#: No date and no random ids in the SVG, so the same numbers give the same bytes.
_SAME: Any = {"svg.hashsalt": "srghn", "svg.fonttype": "none", "font.size": 9.0}
_STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Curve:
    """A column of the generations table to draw: its name, the axis label, the axis' scale."""

    column: str
    label: str
    log: bool = False
    caption: str = ""


def draw(
    curve: Curve,
    frame: pd.DataFrame,
    arms: Sequence[str],
    switches: Sequence[int],
    wide: bool = True,
) -> str:
    """One SVG with a line and a band per arm, and the switches as vertical lines.

    `frame` has a row per arm, seed and generation; `switches` are generations.
    """
    with mpl.rc_context(_SAME):
        figure = _figure(3.4, 2.9, arms, wide)
        axes = figure.subplots()
        for number, arm in enumerate(arms):
            _arm(axes, curve, frame[frame["arm"] == arm], number, arm)
        _mark(axes, frame, switches)
        axes.set_xlabel("evaluations spent (episodes)")
        axes.xaxis.set_major_locator(MaxNLocator(9 if wide else 4))
        axes.set_ylabel(curve.label)
        axes.set_yscale("log" if curve.log else "linear")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        return _svg(figure, wide)


def draw_wear(frame: pd.DataFrame, arms: Sequence[str], bins: int = 8, *, wide: bool = True) -> str:
    """One SVG: generations to recover, and the share of phases lost, as switches go by.

    `frame` has a row per arm, seed and phase (`generations` is NaN if it was lost). Switches are
    grouped into `bins`; a median is drawn if at most half of a bin was lost.
    """
    after = frame[frame["phase"] > 0]
    last = int(after["phase"].max())
    edges = np.linspace(0, last, min(bins, last) + 1).round()
    with mpl.rc_context(_SAME):
        figure = _figure(3.6, 5.2, arms, wide)
        left, right = figure.subplots(*((1, 2) if wide else (2, 1)))
        for number, arm in enumerate(arms):
            own = after[after["arm"] == arm]
            taken = (
                own["generations"]
                .fillna(np.inf)
                .groupby(np.searchsorted(edges, own["phase"].to_numpy()))
            )
            middle = taken.median().replace(np.inf, np.nan).to_numpy()
            lost = taken.apply(lambda values: np.isinf(values).mean()).to_numpy()
            line = {"color": f"C{number % 10}", "linewidth": 2.4 if number == 0 else 1.1}
            style = _STYLES[number // 10 % len(_STYLES)]
            left.plot(edges[1:], middle, style, label=arm, **line)
            right.plot(edges[1:], 100 * lost, style, **line)
        left.set_ylabel("median generations to recover")
        right.set_ylabel("phases lost, %")
        for axes in (left, right):
            axes.set_xlabel("switch")
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            axes.set_ylim(bottom=0)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", alpha=0.25)
        return _svg(figure, wide)


def _figure(height: float, narrow_height: float, arms: Sequence[str], wide: bool) -> Figure:
    """An empty figure: heights in inches, of a narrow one without its legend's rows."""
    size = (9.2, height) if wide else (4.0, narrow_height + 0.18 * len(arms))
    return Figure(figsize=size, layout="constrained")


def _svg(figure: Figure, wide: bool) -> str:
    figure.legend(loc="outside right center" if wide else "outside lower center", frameon=False)
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]


def _arm(axes: Axes, curve: Curve, frame: pd.DataFrame, number: int, name: str) -> None:
    spent = frame.groupby("generation")["evaluations"].mean().to_numpy()
    values = frame.groupby("generation")[curve.column]
    low, middle, high = (values.quantile(q).to_numpy() for q in (0.25, 0.5, 0.75))
    colour = f"C{number % 10}"
    own = name.endswith("self-referential")
    axes.plot(
        spent,
        middle,
        _STYLES[number // 10 % len(_STYLES)],
        color=colour,
        linewidth=2.2 if own else 1.1,
        zorder=3 if own else 2,
        label=name,
    )
    axes.fill_between(spent, low, high, color=colour, alpha=0.12, linewidth=0)


def _mark(axes: Axes, frame: pd.DataFrame, switches: Sequence[int]) -> None:
    spent = frame.groupby("generation")["evaluations"].mean()
    for switch in switches:
        axes.axvline(float(spent[switch - 1]), color="black", alpha=0.5, linewidth=0.9)


def log_error(best: pd.Series[float]) -> pd.Series[float]:
    """The error of a fitness, with a lower bound for the log axis."""
    return (-best).clip(lower=1e-12).replace(np.inf, np.nan)
