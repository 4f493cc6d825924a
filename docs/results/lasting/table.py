"""The table of docs/results/lasting.md from a CSV of `scan.py`: python table.py scan.csv."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

HEADINGS = (
    "worlds", "arm", "seeds", "phases lost", "median, first quarter", "last quarter",
    "rate at rest",
)  # fmt: skip


def main() -> None:
    frame = pd.read_csv(sys.argv[1])
    after = frame[frame["phase"] > 0].fillna({"generations": np.inf})
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    for (worlds, arm), own in after.groupby(["worlds", "arm"], sort=True):
        last = own["phase"].max()
        early = own[own["phase"] <= last // 4]["generations"].median()
        late = own[own["phase"] > last - last // 4]["generations"].median()
        lost = int(np.isinf(own["generations"]).sum())
        lines.append(
            f"| {worlds} | {arm} | {own['seed'].nunique()} | {lost} of {len(own)} "
            f"({lost / len(own):.1%}) | {early:g} | {late:g} | {own['rate_at_39'].median():.3f} |"
        )
    sys.stdout.write("\n".join(lines).replace("| inf ", "| never ") + "\n")


if __name__ == "__main__":
    main()
