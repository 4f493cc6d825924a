"""The story's picture: the returns of episodes over time, with marks for the events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.demo.traffic import Met

#: Settings of the SVG: no date, no random ids, and text as text.
_SAME: Any = {"svg.hashsalt": "srghn", "svg.fonttype": "none", "font.size": 8.5}
#: Least distance between the labels of two events, as a share of the axis.
APART = 0.022
_COLOURS = ("#2f6f9f", "#c2571a", "#23744a", "#5b4a8a", "#8a6100")


def draw(
    path: Path,
    episodes: Sequence[Met],
    shifts: Sequence[tuple[float, str]],
    marks: Sequence[tuple[float, str]],
) -> None:
    """Write an SVG. `shifts` and `marks` are (Unix seconds, label), in order."""
    begin, end = min(met.ended for met in episodes), max(met.ended for met in episodes)
    with mpl.rc_context(_SAME):
        figure = Figure(figsize=(10.5, 5.2), layout="constrained")
        axes = figure.subplots()
        _returns(axes, episodes, begin)
        _worlds(axes, [(at - begin, name) for at, name in shifts], end - begin)
        _marks(axes, [(max(at - begin, 0.0), words) for at, words in marks], end - begin)
        axes.set_xlabel("seconds in service")
        axes.set_ylabel("return of an episode")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _returns(axes: Axes, episodes: Sequence[Met], begin: float) -> None:
    versions = sorted({met.played.version for met in episodes})
    for place, version in enumerate(versions):
        own = [met for met in episodes if met.played.version == version]
        axes.plot(
            [met.ended - begin for met in own],
            [met.played.return_ for met in own],
            ".",
            color=_COLOURS[place % len(_COLOURS)],
            label=f"version {version}",
            markersize=3.5,
        )


def _worlds(axes: Axes, shifts: Sequence[tuple[float, str]], end: float) -> None:
    """The clients' worlds, as bands with their names."""
    begins = [0.0, *(at for at, _ in shifts), end]
    for place, name in enumerate(["normal", *(name for _, name in shifts)]):
        shade = 0.06 + 0.1 * (place % 2)
        axes.axvspan(begins[place], begins[place + 1], color="#888", alpha=shade, lw=0)
        axes.text(
            (begins[place] + begins[place + 1]) / 2,
            0.5,
            name,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="center",
            color="#555",
        )


def _marks(axes: Axes, marks: Sequence[tuple[float, str]], end: float) -> None:
    """Each event as a line, with a label above the field if it does not cover another."""
    free = -APART * end
    for at, words in marks:
        free = max(at, free + APART * end)
        axes.axvline(at, color="#999", lw=0.6, ls=":")
        axes.annotate(
            words,
            (free, 1.0),
            (2, 4),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            rotation=55,
            fontsize=7.5,
        )
