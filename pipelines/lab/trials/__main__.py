"""A table of how often a trial is right, over drifts, orders of arrival and missing outcomes.

`python -m pipelines.lab.trials docs/results/trials.csv` appends the missing rows; with `liars.csv`,
those of clients who lie. Each row is one `srghn canary simulate`; its first columns are the
options. Rows are independent and seeded.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.lab.trials.scenarios import HONEST, SCENARIOS
from pipelines.lab.trials.simulate import summary

TRIALS, CLIENTS, SEED, MARGIN = 400, 50, 0, 0.05
KEYS = ("scenario", "weight", "effect", "sd", "max_episodes")
RESULTS = (
    "promoted",
    "aborted",
    "expired",
    "median_episodes",
    "nine_in_ten_episodes",
    "planned_episodes",
    "promoted_within_plan",
)


def rows() -> Iterator[dict[str, Any]]:
    """The options of every row: equal arms, worse by exactly the margin, and better by 5%."""
    for weight in (0.5, 0.25, 0.75, 0.1):
        for scenario in HONEST:
            if scenario == "weight-steps" and weight != 0.5:
                continue  # it has its own weights
            for effect in (0.0, -MARGIN):
                yield _row(scenario, weight, effect, 0.1, 6000)
    for scenario in HONEST:
        yield _row(scenario, 0.25, MARGIN, 0.2, 4000)
        yield _row(scenario, 0.5, 0.0, 0.2, 6000)


def liars() -> Iterator[dict[str, Any]]:
    """How far a fifth of the clients can push a decision, by the canary's true effect."""
    for scenario in SCENARIOS:
        if scenario not in HONEST:
            for effect in (0.2, 0.1, 0.0, -MARGIN, -0.1, -0.2, -0.3):
                yield _row(scenario, 0.5, effect, 0.1, 3000)


#: The rows of a table, by its file's name.
TABLES = {"trials": rows, "liars": liars}


def _row(scenario: str, weight: float, effect: float, sd: float, most: int) -> dict[str, Any]:
    return dict(zip(KEYS, (scenario, weight, effect, sd, most), strict=True))


def measure(row: dict[str, Any]) -> dict[str, Any]:
    """One row's results, as `srghn canary simulate` prints them."""
    found = summary(
        row["scenario"],
        weight=row["weight"],
        trials=TRIALS,
        effect=row["effect"],
        deviation=row["sd"],
        clients=CLIENTS,
        seed=SEED,
        margin=MARGIN,
        max_episodes=row["max_episodes"],
    )
    return {name: found[name] for name in RESULTS}


def main(path: Path) -> None:
    done = set()
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            done = {tuple(row[key] for key in KEYS) for row in csv.DictReader(file)}
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join((*KEYS, *RESULTS)) + "\n", encoding="utf-8")
    for row in TABLES[path.stem]():
        if tuple(str(row[key]) for key in KEYS) in done:
            continue
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, (*KEYS, *RESULTS)).writerow(row | measure(row))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
