"""Which steps suit each control on the functions in the plane.

    python docs/results/functions-2d/settings.py settings.csv

Rows that the file already has are not made again. The seeds, 100 and 101, are not those that
`srghn experiment functions-2d` plays. A row is a run of it with one setting: the generations that
each of the three phases took until the error was below 0.001 (empty: never).
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.lab.experiments.catalogue import functions_2d
from pipelines.lab.experiments.controls import CONTROLS, HELD
from pipelines.lab.experiments.functions import FUNCTIONS
from pipelines.lab.experiments.play import play

SEEDS = (100, 101)
COLUMNS = ("function", "control", "setting", "seed", "first", "moved", "back")
STEPS = {
    "ga": (0.03, 0.1, 0.3, 1.0),
    "immigrants": (0.03, 0.1, 0.3, 1.0),
    "restart": (0.03, 0.1, 0.3, 1.0),
    "self-adaptive-ga-plus": (0.1, 0.3, 1.0),
    "self-adaptive-ga-comma": (0.1, 0.3, 1.0),
    "gesmr": (0.1, 0.3, 1.0),
    "snes": (0.1, 0.3, 0.5, 1.0),
    "cmaes": (0.1, 0.3, 0.5, 1.0),
}


def settings() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Control, name of the setting, and what it changes in evolution."""
    for name, arm in HELD.items():
        yield "constant-rate", name.split()[1], arm["evolution"]
    for control, steps in STEPS.items():
        evolution = CONTROLS[control]["evolution"]
        for sigma in steps:
            options = {**evolution.get("options", {}), "sigma": sigma}
            if control == "immigrants":
                options["share"] = 0.125  # with the share of 1 that suits CartPole none arrives
            yield control, f"{sigma:g}", {**evolution, "options": options}
    for sigma in (0.03, 0.1, 0.3):
        for rate in (0.03, 0.1, 0.3):
            options = {"sigma": sigma, "learning_rate": rate}
            yield "openes", f"{sigma:g} {rate:g}", {"strategy": "openes", "options": options}


def main(file: Path) -> None:
    """Add the rows that `file` does not have."""
    if not file.exists():
        file.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    with file.open(encoding="utf-8") as read:
        done = {tuple(row[:4]) for row in csv.reader(read)}
    for seed in SEEDS:
        for function in FUNCTIONS:
            for control, setting, evolution in settings():
                key = (function, control, setting, str(seed))
                if key in done:
                    continue
                world = {"env": {"kwargs": {"function": function, "max_episode_steps": 1}}}
                arm = {**world, "evolution": evolution}
                experiment = replace(functions_2d(quick=False), arms={"it": arm})
                with tempfile.TemporaryDirectory() as folder:
                    found = play(experiment, "it", seed, Path(folder))
                taken = ["" if p.generations is None else p.generations for p in found.phases]
                with file.open("a", newline="", encoding="utf-8") as write:
                    csv.writer(write, lineterminator="\n").writerow([*key, *taken])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
