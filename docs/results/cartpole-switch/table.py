"""The tables of docs/results/cartpole-switch.md from a `results.csv`: python table.py results.csv.

For each arm and phase: in how many seeds it was solved, the median of the generations that took and
the slowest. Last, how many times the mutation rate falls in a solved phase and rises after it: the
medians over seeds of each phase, and the least of them.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pandas as pd

PHASES = ("first world", "after the switch", "after the switch back")


def main() -> None:
    frame = pd.read_csv(sys.argv[1])
    headings = ("arm", "seeds", *PHASES, "rate falls, rises")
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for arm, own in frame.groupby("arm", sort=False):
        taken = own.pivot_table(index="seed", columns="phase", values="generations", dropna=False)
        cells = [_phase(taken[phase].to_numpy()) for phase in taken]
        lines.append(f"| {' | '.join((str(arm), str(len(taken)), *cells, _signature(own)))} |")
    sys.stdout.write("\n".join(lines) + "\n")


def _phase(generations: np.ndarray) -> str:
    solved = int(np.isfinite(generations).sum())
    middle = float(np.median(np.where(np.isnan(generations), np.inf, generations)))
    if np.isinf(middle):
        return f"{solved}; not solved"
    slowest = f" ({np.nanmax(generations):g})" if solved == len(generations) else ""
    return f"{solved}; {middle:g}{slowest}"


def _signature(own: pd.DataFrame) -> str:
    phases = [part.set_index("seed").sort_index() for _, part in own.groupby("phase")]
    solved = [part["generations"].notna() for part in phases]
    falls = [
        (p["peak"] / p["rest"])[known].median() for p, known in zip(phases, solved, strict=True)
    ]
    rises = [
        (after["peak"] / before["rest"])[known].median()
        for (before, after), known in zip(pairwise(phases), solved, strict=False)
    ]
    least = [
        np.nanmin(values) if np.isfinite(values).any() else np.nan for values in (falls, rises)
    ]
    return ", ".join("–" if np.isnan(value) else f"{value:.1f}" for value in least)


if __name__ == "__main__":
    main()
