"""Recovery and losses as switches go by, from a CSV of `scan.py`, as one SVG.

    python docs/results/lasting/figure.py many.csv "never returning" never.svg ARM ARM ...

The line of the first arm is the thick one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from pipelines.lab.experiments.figures import draw_wear


def main() -> None:
    table, worlds, out, *arms = sys.argv[1:]
    frame = pd.read_csv(table)
    Path(out).write_text(draw_wear(frame[frame["worlds"] == worlds], arms), encoding="utf-8")


if __name__ == "__main__":
    main()
