"""Which settings suit each strategy on the still functions of ten variables.

    python docs/results/static/settings.py settings.csv

Rows that the file already has are not made again; the committed one was stopped in the middle of
the second seed. The seeds, 100 and 101, are not those that
`srghn experiment static` plays. A row is a run of 20,000 evaluations: those until the error was
0.001 (empty: never), and the least error then or at the end.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.lab.experiments.functions import FUNCTIONS, still_optimum
from srghn.config import parse_params
from srghn.envs.interface import Interface
from srghn.evolution import make_strategy

SIZE, BUDGET, SOLVED, SEEDS = 10, 20_000, 1e-3, (100, 101)
SHAPES = {"2x4": (2, 4), "8x7": (8, 7), "16x7": (16, 7)}
PLAIN = {"ties": "parents", "family_limit": 0}
COLUMNS = ("function", "strategy", "shape", "setting", "seed", "evaluations", "error")


def settings() -> Iterator[tuple[str, str, str, dict[str, Any], dict[str, Any]]]:
    """Strategy, population, name of the setting, and what it changes in evolution and ghn."""
    for shape in ("2x4", "8x7"):
        yield "self-referential", shape, "default", {}, {}
        yield "self-referential", shape, "plain ties", PLAIN, {}
        yield "self-referential", shape, "newcomers", {"newcomers": 0.5}, {"keep_spread": True}
        for rate in (0.1, 0.2, 0.35):
            yield "constant-rate", shape, f"{rate}", {"options": {"rate": rate}, **PLAIN}, {}
        for sigma in (0.03, 0.1, 0.3):
            yield "ga", shape, f"{sigma}", {"options": {"sigma": sigma}, **PLAIN}, {}
            share = {"options": {"sigma": sigma, "share": 0.125}, **PLAIN}
            yield "immigrants", shape, f"{sigma}", share, {}
        for sigma in (0.1, 0.3, 1.0):
            given: dict[str, Any] = {"options": {"sigma": sigma}, **PLAIN}
            yield "gesmr", shape, f"{sigma}", given, {}
            yield "self-adaptive-ga", shape, f"plus {sigma}", given, {}
            comma = {**given, "selection": "comma", "elites": 0}
            yield "self-adaptive-ga", shape, f"comma {sigma}", comma, {}
    for shape in ("2x4", "8x7", "16x7"):
        for sigma in (0.5, 1.0, 2.0):
            for name in ("cmaes", "snes"):
                yield name, shape, f"{sigma}", {"options": {"sigma": sigma}}, {}


def attempt(
    function: str, strategy: str, shape: str, evolution: dict[str, Any], ghn: dict[str, Any],
    seed: int,
) -> tuple[int | None, float]:  # fmt: skip
    """Evaluations until solved, and the least error after all of them."""
    parents, children = SHAPES[shape]
    params = parse_params(
        {
            "network": {"module": "srghn.policies:Point", "kwargs": {}},
            "ghn": ghn,
            "evolution": {
                "strategy": strategy, "parents": parents, "children": children, **evolution,
            },
        },
        "settings",
    )  # fmt: skip
    free = (None,)
    face = Interface(1, free, free, "box", (SIZE,), action_low=free, action_high=free)
    found = make_strategy(params, face)
    state, spent, least, solved = found.init(seed), 0, np.inf, None
    optimum, value = still_optimum(SIZE), FUNCTIONS[function]
    while spent < BUDGET:
        population = found.ask(state)
        errors = np.array([value(row.astype(np.float64) - optimum) for row in population.weights])
        spent += len(errors)
        least = min(least, float(errors.min()))
        if solved is None and least <= SOLVED:
            solved = spent
        if least <= SOLVED:
            return spent, least
        state = found.tell(state, population, -errors)
    return solved, least


def main() -> None:
    out = Path(sys.argv[1])
    if not out.exists():
        out.write_text(",".join(COLUMNS) + "\n")
    with out.open() as file:
        done = {tuple(row[:5]) for row in csv.reader(file)}
    for seed in SEEDS:
        for function in FUNCTIONS:
            for strategy, shape, name, evolution, ghn in settings():
                key = (function, strategy, shape, name, str(seed))
                if key not in done:
                    solved, least = attempt(function, strategy, shape, evolution, ghn, seed)
                    with out.open("a", newline="") as file:
                        csv.writer(file).writerow((*key, solved or "", f"{least:.4g}"))


if __name__ == "__main__":
    main()
