"""Three tables about the watch: its false alarms, its delay after a drop, its observation score.

`python -m pipelines.lab.watching docs/results` writes `watch-alarms.csv`, `watch-delay.csv` and
`watch-observations.csv`. All draws are seeded, so the tables are the same every time.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.adapt.baseline import EPISODES as PLAYED
from serving.control.sight import SELDOM, WINDOW
from srghn import seeding
from srghn.inference.detect import Detector
from srghn.inference.whereabouts import farthest, quantiles

Float = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, float], Float]

EPISODES, SEED = 100_000, 0
PROMISES, RUN_LENGTHS = (0.9, 0.5), (1_000.0, 10_000.0, 100_000.0)
#: Good episodes before a drop; runs for a row of delays; most episodes after a drop.
GOOD, RUNS, MOST = 200, 200, 20_000
PROMISE, RUN_LENGTH, SPREAD = 0.9, 100_000.0, 0.1
#: Looks at unchanged observations; elements of an observation; shifts of the first element, in its
#: standard deviations.
LOOKS, ELEMENTS, SHIFTS = 5_000, (1, 4, 27), (0.0, 0.2, 0.4, 0.6, 1.0)
DROPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.882)


def constant(draws: np.random.Generator, count: int, mean: float) -> Float:
    return np.full(count, mean)


def all_or_nothing(draws: np.random.Generator, count: int, mean: float) -> Float:
    """1 with probability `mean`, else 0: the largest possible variance."""
    return (draws.random(count) < mean).astype(np.float64)


def bell(draws: np.random.Generator, count: int, mean: float) -> Float:
    """Beta, with a fifth of the largest possible standard deviation."""
    return draws.beta(24 * mean, 24 * (1 - mean), count)


def rare_crash(draws: np.random.Generator, count: int, mean: float) -> Float:
    """A fiftieth of the episodes returns 0; all others are equal, and the mean is `mean`."""
    lost = min(0.02, 1 - mean)
    return np.where(draws.random(count) < lost, 0.0, mean / (1 - lost))


def ceiling(draws: np.random.Generator, count: int, mean: float) -> Float:
    """Most episodes reach the ceiling and the others end anywhere, as in CartPole."""
    anywhere = 2 * (1 - mean)
    return np.where(draws.random(count) < anywhere, draws.random(count), 1.0)


DISTRIBUTIONS: tuple[Draw, ...] = (constant, all_or_nothing, bell, rare_crash, ceiling)


def alarms(values: Float, mean: float, run_length: float) -> int:
    """Number of alarms over the values (n,); the detector restarts after each."""
    detector, count, place = Detector(mean, "fall"), 0, 0
    while place < len(values):
        part = values[place : place + 1000]
        moved, at = detector.until(part, run_length)
        detector = moved if at is None else detector.reset()
        count, place = count + (at is not None), place + (at or len(part))
    return count


def poisson_bound(expected: float, level: float = 0.99) -> int:
    """The smallest k with P(Poisson(expected) <= k) >= level."""
    term = total = math.exp(-expected)
    k = 0
    while total < level:
        k += 1
        term *= expected / k
        total += term
    return k


def alarm_rows() -> list[dict[str, Any]]:
    """Alarms in `EPISODES`, for every distribution with its mean exactly at the promise."""
    rows = []
    for draw in DISTRIBUTIONS:
        for promise in PROMISES:
            for run_length in RUN_LENGTHS:
                name = draw.__name__.replace("_", " ")
                draws = seeding.stream(SEED, "watch-alarms", name, str(promise), int(run_length))
                values = draw(draws, EPISODES, promise)
                rows.append(
                    {
                        "returns": name,
                        "promise": promise,
                        "run_length": int(run_length),
                        "episodes": EPISODES,
                        "alarms": alarms(values, promise, run_length),
                        "at_most": poisson_bound(EPISODES / run_length),
                    }
                )
    return rows


def delay(drop: float, run: int) -> int | None:
    """Episodes after a drop until the alarm; None if there is none in `MOST`.

    Before the drop the champion is .05 above the promise; its standard deviation is `SPREAD`.
    """
    draws = seeding.stream(SEED, "watch-delay", str(drop), run)
    good = np.clip(draws.normal(PROMISE + 0.05, SPREAD, GOOD), 0, 1)
    bad = np.clip(draws.normal(PROMISE - drop, SPREAD, MOST), 0, 1)
    detector = Detector(PROMISE, "fall").update(good)
    return detector.until(bad, RUN_LENGTH)[1]


def delay_rows() -> list[dict[str, Any]]:
    rows = []
    for drop in DROPS:
        found = [delay(drop, run) for run in range(RUNS)]
        seen = sorted(MOST if each is None else each for each in found)
        rows.append(
            {
                "drop": drop,
                "runs": RUNS,
                "median": seen[len(seen) // 2],
                "nine_in_ten": seen[math.ceil(0.9 * len(seen)) - 1],
                "unseen": found.count(None),
            }
        )
    return rows


def seen(draws: np.random.Generator, count: int, elements: int, shift: float) -> Float:
    """Observations (count, elements): bell-shaped, one in three a flag; the first one is moved."""
    values = draws.normal(0.0, 1.0, (count, elements))
    values[:, 0] += shift
    values[:, 2::3] = values[:, 2::3] > 0.5
    return values


def observation_rows() -> list[dict[str, Any]]:
    """How often observations are said to have moved, by how far one element did (0: stands still).

    Each look is at other observations, and at other quantiles of the sandbox.
    """
    rows = []
    for elements in ELEMENTS:
        for shift in SHIFTS:
            draws = seeding.stream(SEED, "watch-observations", elements, str(shift))
            looks, told = LOOKS if shift == 0 else LOOKS // 10, 0
            for _ in range(looks):
                kept = quantiles(seen(draws, PLAYED, elements, 0.0))
                window = seen(draws, WINDOW, elements, shift)
                told += farthest(window, kept, PLAYED).p < SELDOM
            bound = poisson_bound(looks * SELDOM)
            rows.append(
                {
                    "elements": elements,
                    "moved_by": shift,
                    "looks": looks,
                    "told": told,
                    "at_most": bound if shift == 0 else "",
                }
            )
    return rows


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "watch-alarms.csv", alarm_rows())
    write(folder / "watch-delay.csv", delay_rows())
    write(folder / "watch-observations.csv", observation_rows())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
