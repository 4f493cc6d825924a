"""What a birth costs (mutate and generate), against a plain Gaussian child of the same genome size.

    python tests/benchmarks/birth.py [--quick] [--json] [--out birth.svg]

All figures are CPU time of one process, the least of several repeats; ratios are to a baseline
measured in the same run, so they carry over between machines better than milliseconds do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # CPU time of idle threads is no cost of births

import numpy as np
import torch

from srghn.config import GHNParams
from srghn.ghn import GHN
from srghn.ghn.noise import birth_noise
from srghn.graph import CompGraph, trace
from srghn.policies import MLP

HEADS = ("dense", "chunked", "basis")
SMALL, LARGE = (4, 8, 2), (105, 64, 64, 8)
POPULATIONS = (1, 4, 16, 64, 256)
POLICIES = (SMALL, (8, 64, 4), (27, 64, 64, 8), LARGE, (105, 256, 256, 8))
TARGET_MS, TARGET_GROWTH, TARGET_GENOME = 5.0, 3.0, 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=Path, help="draw the growth to this .png or .svg")
    args = parser.parse_args()
    repeats = 3 if args.quick else 7
    populations = POPULATIONS[::3] if args.quick else POPULATIONS
    policies = (SMALL, LARGE) if args.quick else POLICIES
    result = {
        "population": [
            measure(SMALL, head, n, repeats)
            for head in HEADS
            for n in dict.fromkeys((*populations, 64))
        ],
        "policy": [measure(sizes, head, 64, repeats) for sizes in policies for head in HEADS],
    }
    result["targets"] = targets(result["policy"])
    sys.stdout.write(json.dumps(result) + "\n" if args.json else text(result))
    if args.out:
        draw(result, args.out)


def measure(sizes: tuple[int, ...], head: str, population: int, repeats: int) -> dict[str, Any]:
    """One row: milliseconds for the births of `population` children, each of its own parent."""
    ghn = GHN(GHNParams(head=head), mlp(sizes))
    parents = np.stack([ghn.init(i) for i in range(population)])
    seeds = np.arange(population)

    def births() -> None:
        ghn.generate(ghn.mutate(parents, seeds)[0])

    def gaussian() -> None:
        _ = parents + np.float32(0.1) * birth_noise(seeds, (ghn.genome_size,))

    birth, baseline = least_ms(births, repeats), least_ms(gaussian, repeats)
    return {
        "policy": "-".join(map(str, sizes)),
        "weights": ghn.targets[0].size,
        "head": head,
        "genome": ghn.genome_size,
        "population": population,
        "birth_ms": birth,
        "gaussian_ms": baseline,
        "ratio": birth / baseline,
    }


def mlp(sizes: tuple[int, ...]) -> CompGraph:
    return trace(MLP(sizes[0], sizes[-1], sizes[1:-1]), torch.zeros(1, sizes[0]))


def least_ms(work: Callable[[], None], repeats: int) -> float:
    """CPU milliseconds of one call, the least of `repeats` bursts of at least 20 ms each."""
    work()
    best = float("inf")
    for _ in range(repeats):
        calls, start = 0, time.process_time()
        while (spent := time.process_time() - start) < 0.02 or calls < 2:
            work()
            calls += 1
        best = min(best, 1000 * spent / calls)
    return best


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cost targets, each hit or missed with its number."""
    by = {(row["policy"], row["head"]): row for row in rows}
    small, large = ("-".join(map(str, s)) for s in (SMALL, LARGE))
    found = [(f"64 births of {small}, ms", by[small, "dense"]["birth_ms"], TARGET_MS, True)]
    for head in HEADS[1:]:
        growth = by[large, head]["birth_ms"] / by[small, head]["birth_ms"]
        genomes = by[large, "dense"]["genome"] / by[large, head]["genome"]
        found.append((f"{large} over {small}, {head} head", growth, TARGET_GROWTH, True))
        found.append((f"dense genome over {head} genome, {large}", genomes, TARGET_GENOME, False))
    return [
        {
            "target": name,
            "value": value,
            "limit": limit,
            "hit": value <= limit if at_most else value >= limit,
        }
        for name, value, limit, at_most in found
    ]


def text(result: dict[str, Any]) -> str:
    names = ("policy", "head", "genome", "births", "ms", "gaussian ms", "ratio")
    lines = ["{:>15} {:>8} {:>8} {:>6} {:>9} {:>12} {}".format(*names)]
    lines += [
        f"{r['policy']:>15} {r['head']:>8} {r['genome']:>8} {r['population']:>6} "
        f"{r['birth_ms']:>9.2f} {r['gaussian_ms']:>12.2f} {r['ratio']:>5.1f}"
        for r in (*result["population"], *result["policy"])
    ]
    lines += [
        f"{'hit ' if t['hit'] else 'MISS'} {t['target']}: {t['value']:.2f} (limit {t['limit']:g})"
        for t in result["targets"]
    ]
    return "\n".join(lines) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    panels = (("population", "population", "children"), ("policy", "weights", "policy weights"))
    for axis, (part, x, label) in zip(axes, panels, strict=True):
        for head in HEADS:
            rows = sorted((r for r in result[part] if r["head"] == head), key=lambda r: r[x])
            points = [r[x] for r in rows]
            (line,) = axis.plot(points, [r["birth_ms"] for r in rows], marker="o", label=head)
            plain = [r["gaussian_ms"] for r in rows]
            axis.plot(points, plain, linestyle=":", marker=".", color=line.get_color())
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="CPU ms a generation of births")
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_title(f"policy {'-'.join(map(str, SMALL))}")
    axes[1].set_title("64 children")
    axes[0].legend(title="head (dotted: Gaussian child)")
    figure.savefig(path)


if __name__ == "__main__":
    main()
