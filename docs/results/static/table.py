"""The tables of docs/results/static.md from a `results.csv`: python table.py results.csv [--error].

With `--error` the last column is the error at the end, else the champion's mean return there.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

HEADINGS = ("arm", "solved", "median evaluations", "each seed")


def main() -> None:
    frame, error = pd.read_csv(sys.argv[1]), "--error" in sys.argv
    last = "median error at the end" if error else "median return at the end"
    lines = [f"| {' | '.join((*HEADINGS, last))} |", "|---" * (len(HEADINGS) + 1) + "|"]
    for arm, own in frame.groupby("arm", sort=False):
        spent = own.sort_values("seed")["evaluations"].fillna(np.inf)
        each = " ".join("never" if np.isinf(value) else f"{value:.0f}" for value in spent)
        middle = "not solved" if np.isinf(spent.median()) else f"{spent.median():,.0f}"
        score = own["score_normal"].median()
        end = f"{-score:.2g}" if error else f"{score:.0f}"
        solved = f"{int(np.isfinite(spent).sum())} of {len(own)}"
        lines.append(f"| {arm} | {solved} | {middle} | {each} | {end} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
