"""A run as a picture: fitness, mutation rate and diversity over its generations."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from srghn.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Column of the generations table -> (name on the axis, whether it is logarithmic).
PANELS = {
    "best": ("best fitness", False),
    "rate": ("mutation rate", True),
    "diversity": ("diversity", True),
}


def draw(table: pa.Table) -> Figure:
    """One panel under the other, with a line wherever the mode changes.

    Raises `ConfigError` where Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "a plot needs Matplotlib, which is not installed: pip install matplotlib"
        ) from error

    class Picture(Figure):
        """A notebook shows it, also one in which nobody has set up Matplotlib."""

        def _repr_png_(self) -> bytes:
            self.savefig(sink := io.BytesIO(), format="png", dpi=110)
            return sink.getvalue()

    figure = Picture(figsize=(8.0, 6.0), layout="constrained")
    generations = table["generation"].to_pylist()
    for axes, (column, (label, log)) in zip(
        figure.subplots(len(PANELS), 1, sharex=True), PANELS.items(), strict=True
    ):
        axes.plot(generations, table[column].to_pylist(), linewidth=1.2)
        axes.set_ylabel(label)
        axes.set_yscale("log" if log else "linear")
        axes.spines[["top", "right"]].set_visible(False)
        for switch in switches(table):
            axes.axvline(switch, color="black", alpha=0.5, linewidth=0.8)
    axes.set_xlabel("generation")
    return figure


def switches(table: pa.Table) -> list[int]:
    """Generations that are in another mode than the one before."""
    modes: list[Any] = table["mode"].to_pylist()
    generations: list[int] = table["generation"].to_pylist()
    return [generations[k] for k in range(1, len(modes)) if modes[k] != modes[k - 1]]
