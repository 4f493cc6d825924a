"""The benchmark's plot: ratios by work, and how a generation grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.lab.bench.growth import Curve
from pipelines.lab.bench.table import OURS, PLAIN, Row


def draw(rows: Sequence[Row], curves: Sequence[Curve], path: Path) -> None:
    """Write a PNG: a panel of bars for each work, and a panel for each growth curve."""
    works = list(dict.fromkeys(row.work for row in rows))
    count = len(works) + len(curves)
    figure = Figure(figsize=(12, 3.2 * -(-count // 2)), layout="constrained")
    panels = iter(figure.subplots(-(-count // 2), 2, squeeze=False).ravel())
    for work in works:
        _bars(next(panels), work, [row for row in rows if row.work == work])
    for curve in curves:
        _growth(next(panels), curve)
    for panel in panels:
        panel.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _bars(panel: Axes, work: str, rows: Sequence[Row]) -> None:
    colours = {OURS: "#0b6e4f", PLAIN: "#8d99ae"}
    bars = panel.barh(
        [row.contestant for row in rows],
        [row.ratio_to_plain_loop for row in rows],
        color=[colours.get(row.contestant, "#c9d1d9") for row in rows],
    )
    panel.bar_label(bars, [row.times for row in rows], padding=3, fontsize=8)
    panel.set_xscale("log")
    panel.margins(x=0.2)
    panel.set_title(f"{work}: times the plain torch loop", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)


def _growth(panel: Axes, curve: Curve) -> None:
    panel.loglog(curve.sizes, curve.seconds, "o-", color="#0b6e4f")
    panel.set_xticks(curve.sizes, [str(size) for size in curve.sizes])
    panel.minorticks_off()
    panel.set_xlabel(curve.name)
    panel.set_ylabel("CPU-seconds a generation")
    panel.set_title(f"a generation grows as ({curve.name})^{curve.exponent:.2f}", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
