"""Arms on the seeds that all of them have, from a CSV of `scan.py`.

    python docs/results/lasting/shared.py many.csv "never returning" ARM ARM ...

A lost phase counts as 40 generations in the mean.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

HEADINGS = ("arm", "phases lost", "median, first ten switches", "last ten", "mean of all")


def main() -> None:
    path, worlds, *arms = sys.argv[1:]
    frame = pd.read_csv(path)
    frame = frame[(frame["worlds"] == worlds) & (frame["phase"] > 0)]
    seeds = set.intersection(*(set(frame[frame["arm"] == arm]["seed"]) for arm in arms))
    lines = [f"Seeds {', '.join(map(str, sorted(seeds)))}:", "", f"| {' | '.join(HEADINGS)} |"]
    lines.append("|---" * len(HEADINGS) + "|")
    for arm in arms:
        own = frame[(frame["arm"] == arm) & frame["seed"].isin(seeds)]
        taken = own["generations"].fillna(np.inf)
        early, late = taken[own["phase"] <= 10].median(), taken[own["phase"] > 30].median()
        lost = f"{int(np.isinf(taken).sum())} of {len(own)}"
        lines.append(
            f"| {arm} | {lost} | {early:g} | {late:g} | {taken.clip(upper=40).mean():.1f} |"
        )
    sys.stdout.write("\n".join(lines).replace("| inf ", "| never ") + "\n")


if __name__ == "__main__":
    main()
