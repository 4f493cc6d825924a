"""CPU-seconds until solved, each run a point, as one SVG.

    python docs/results/solve.py docs/results/solve.csv docs/results/solve.svg

A hollow triangle is a run that its limit ended. A bar is the median, where it was reached.
"""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from pipelines.lab.bench.solve.run import PGPE, PPO, PYCMA, median, read

#: Contestant -> its name and colour.
SHOWN = {
    "self-referential": ("srghn", "#0b6e4f"),
    "ga": ("srghn's plain GA", "#6fb98f"),
    PPO: ("Stable-Baselines3 PPO", "#c1121f"),
    PYCMA: ("pycma", "#5c6b8a"),
    PGPE: ("EvoTorch PGPE", "#b8860b"),
}


def main() -> None:
    attempts = [a for a in read(Path(sys.argv[1])) if not math.isnan(a.cpu_seconds)]
    worlds = list(dict.fromkeys(a.env for a in attempts))
    with mpl.rc_context({"svg.hashsalt": "srghn", "svg.fonttype": "none", "font.size": 9.0}):
        figure = Figure(figsize=(9.2, 0.75 * len(worlds) + 1.2), layout="constrained")
        axes = figure.subplots()
        for k, (contestant, (name, colour)) in enumerate(SHOWN.items()):
            axes.plot([], [], "o", color=colour, label=name)
            for row, world in enumerate(worlds):
                own = [a for a in attempts if (a.env, a.contestant) == (world, contestant)]
                if not own:
                    continue
                height = row + 0.18 * (k - 2)
                for a in own:
                    face = colour if a.solved else "none"
                    mark = "o" if a.solved else ">"
                    axes.plot(
                        a.cpu_seconds, height, mark, mec=colour, mfc=face, ms=5, alpha=0.75, mew=1
                    )
                middle = median(own, "cpu_seconds")
                if math.isfinite(middle):
                    axes.vlines(middle, height - 0.1, height + 0.1, color=colour, linewidth=2.2)
        axes.set_xscale("log")
        axes.set_yticks(range(len(worlds)), worlds)
        axes.invert_yaxis()
        axes.set_xlabel("CPU-seconds on one core until 100 fresh episodes reach the bar")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
        figure.legend(loc="outside upper center", ncols=len(SHOWN), frameon=False)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None})
    text = sink.getvalue()
    Path(sys.argv[2]).write_text(text[text.index("<svg") :], encoding="utf-8")


if __name__ == "__main__":
    main()
