"""Tables about the watch: its false alarms, its delay after a drop, its observation score.

`python -m pipelines.lab.watching docs/results` writes `watch-alarms.csv`, `watch-delay.csv`,
`watch-missing.csv` (episodes without an outcome), `watch-observations.csv`, `watch-starts.csv` (all
clients begin at once) and `watch-liars.csv` (one token makes outcomes up). All draws are seeded, so
the tables are the same every time.
"""

from __future__ import annotations

import csv
import heapq
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.adapt.baseline import EPISODES as PLAYED
from serving.control.sight import SELDOM, WINDOW
from serving.control.watch import WatchState, within
from serving.registry.rules import WatchTerms
from srghn import seeding
from srghn.inference.detect import Detector
from srghn.inference.sequences import lower_bounds
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
#: Shares of episodes that may lack an outcome, and that do.
ACCEPTED = (
    *((0.1, share) for share in (0.15, 0.2, 0.3, 0.5, 1.0)),
    *((0.3, share) for share in (0.4, 0.5, 1.0)),
    *((accepted, 0.2) for accepted in (0.3, 0.5, 0.8)),
)
DROPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.882)
#: Clients that play one episode after the other from a promotion on, their episodes in all, and the
#: steps from one look of the watch to the next. The gate judged `JUDGED` episodes at `GATE_ALPHA`.
CLIENTS, PLAYED_BY_ALL, LOOK = 200, 2000, 5
JUDGED, GATE_ALPHA, MARGIN = 600, 0.05 / 3, 0.05
#: Shares of a liar's evidence, honest clients, outcomes of theirs in a run, runs; and how many
#: outcomes the liar posts for each of theirs.
SHARES, HONEST, TOLD, LIAR_RUNS, LIES = (0.05, 0.1, 0.2, 1.0), 40, 5_000, 100, 4


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


def first_alarm(detector: Detector, values: Float) -> int | None:
    """After which of the values (n,) the detector alarms; no later one is looked at."""
    for place in range(0, len(values), 500):
        detector, at = detector.until(values[place : place + 500], RUN_LENGTH)
        if at is not None:
            return place + at
    return None


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
    return first_alarm(detector, bad)


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


def missing_delay(accepted: float, share: float, run: int) -> int | None:
    """Episodes until the event of the detector of missing outcomes; None without one in `MOST`.

    If `share` is above what is `accepted`, the event is the alarm, and `GOOD` episodes as under the
    champion before precede. If it is below, the event is the end of an alarm that stands.
    """
    draws = seeding.stream(SEED, "watch-missing", str(accepted), str(share), run)
    detector = Detector(1 - accepted, "fall" if share > accepted else "recovery")
    if share > accepted:
        detector = detector.update(draws.random(GOOD) >= accepted - WatchTerms().missing)
    return first_alarm(detector, (draws.random(MOST) >= share).astype(np.float64))


def missing_rows() -> list[dict[str, Any]]:
    rows = []
    for accepted, share in ACCEPTED:
        found = [missing_delay(accepted, share, run) for run in range(RUNS)]
        seen = sorted(MOST if each is None else each for each in found)
        rows.append(
            {
                "accepted": accepted,
                "missing": share,
                "event": "alarm" if share > accepted else "end of one",
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


@dataclass(frozen=True)
class Service:
    """A champion's episodes: returns in [0, 1] and lengths in steps; the share `fails` is short."""

    name: str
    fails: float
    play: Callable[[np.random.Generator, float], tuple[float, int]]

    def draw(self, draws: np.random.Generator, drop: float = 0.0) -> tuple[float, int]:
        """One episode, where the share that fails is larger by `drop`."""
        return self.play(draws, self.fails + drop)


def _pole(draws: np.random.Generator, fails: float) -> tuple[float, int]:
    """It stands for 500 steps, or falls within 60; each step is worth as much."""
    length = int(draws.integers(9, 60)) if draws.random() < fails else 500
    return length / 500, length


def _lander(draws: np.random.Generator, fails: float) -> tuple[float, int]:
    """It lands after some 300 steps, or crashes after some 80."""
    crash = draws.random() < fails
    mean, spread, short, long = (0.3, 0.1, 60, 110) if crash else (0.85, 0.06, 200, 350)
    return float(np.clip(draws.normal(mean, spread), 0, 1)), int(draws.integers(short, long))


def _length(draws: np.random.Generator, fails: float) -> tuple[float, int]:
    """A bell-shaped length, and the return is the length."""
    return_ = float(draws.beta(8 * (1 - fails), 2 + 8 * fails))
    return return_, max(1, int(500 * return_))


SERVICES = (
    Service("pole", 0.05, _pole),
    Service("lander", 0.05, _lander),
    Service("return is length", 0.0, _length),
)


def service(of: Service, draws: np.random.Generator, drop: float) -> Float:
    """Episodes (n, 3) in order of start: begin and end in steps, and return.

    All clients begin at once, and each begins its next episode at the step after.
    """
    clients = [(0.0, client) for client in range(CLIENTS)]
    rows = []
    for _ in range(PLAYED_BY_ALL):
        begin, client = heapq.heappop(clients)
        return_, length = of.draw(draws, drop)
        end = begin + length + draws.random() / 2
        rows.append((begin, end, return_))
        heapq.heappush(clients, (end, client))
    return np.array(rows)


def by_arrival(rows: Float, mean: float) -> int | None:
    """Episodes that ended by the alarm of a watch that counts outcomes as they arrive, or None."""
    arrived = rows[np.argsort(rows[:, 1]), 2]
    return first_alarm(Detector(mean, "fall"), arrived)


def by_start(rows: Float, mean: float) -> int | None:
    """The same for one that counts in order of start and looks ahead every `LOOK` steps."""
    if first_alarm(Detector(mean, "fall"), rows[:, 2]) is None:
        return None  # so the look ahead has none either
    for now in np.arange(LOOK, rows[:, 1].max() + LOOK, LOOK):
        begun = rows[rows[:, 0] <= now]
        running = (begun[:, 1] > now).tolist()
        if Detector(mean, "fall").until(begun[:, 2], RUN_LENGTH, running)[1] is not None:
            return int((begun[:, 1] <= now).sum())
    raise AssertionError("the whole count has an alarm, and the look ahead has none")


def start_row(of: Service, drop: float) -> dict[str, Any]:
    """Alarms after a promotion, by both orders; `drop`: more of the episodes fail than judged."""
    arrival, start = [], []
    for run in range(RUNS):
        draws = seeding.stream(SEED, "watch-starts", of.name, str(drop), run)
        judged = np.array([of.draw(draws)[0] for _ in range(JUDGED)])
        mean = float(lower_bounds(judged[None], GATE_ALPHA)[0]) - MARGIN
        rows = service(of, draws, drop)
        arrival.append(by_arrival(rows, mean))
        start.append(by_start(rows, mean))
    return {
        "returns": of.name,
        "clients": CLIENTS,
        "more_fail": drop,
        "runs": RUNS,
        "episodes": PLAYED_BY_ALL,
        "alarms_by_arrival": sum(each is not None for each in arrival),
        "alarms_by_start": sum(each is not None for each in start),
        "at_most": "" if drop else poisson_bound(RUNS * PLAYED_BY_ALL / RUN_LENGTH),
        "median_by_arrival": _median(arrival),
        "median_by_start": _median(start),
    }


def _median(found: Sequence[int | None]) -> int | str:
    """The median of episodes until an alarm, or nothing if half of the runs have none."""
    seen = sorted(math.inf if each is None else each for each in found)
    return "" if seen[len(seen) // 2] == math.inf else int(seen[len(seen) // 2])


def start_rows() -> list[dict[str, Any]]:
    still = [start_row(of, 0.0) for of in SERVICES]
    return still + [start_row(SERVICES[0], drop) for drop in (0.1, 0.2, 0.4, 0.95)]


def liar_row(share: float, lie: float) -> dict[str, Any]:
    """Alarms while one token posts `LIES` outcomes of `lie` for each of an honest client.

    With the worst lie the honest ones keep the gate's bound. With the best one their mean is .2
    below the promise, and the alarm is a true one.
    """
    mean = PROMISE if lie else PROMISE + MARGIN
    level = mean - 0.2 if lie else mean
    found: list[int | None] = []
    for run in range(LIAR_RUNS):
        draws = seeding.stream(SEED, "watch-liars", str(share), str(lie), run)
        honest = draws.normal(level, SPREAD / 2, TOLD)
        who = draws.integers(1, HONEST + 1, TOLD)
        posted = [
            SimpleNamespace(poster=str(poster), arrived=1, value=value)
            for token, value in zip(who, np.clip(honest, 0, 1), strict=True)
            for poster, value in ((token, value), *[(0, lie)] * LIES)
        ]
        begun = WatchState(1, Detector(PROMISE, "fall"))
        kept: Any = within(posted, begun, share)[0]  # type: ignore[arg-type]
        at = first_alarm(begun.detector, np.array([row.value for row in kept]))
        found.append(at and sum(row.poster != "0" for row in kept[:at]))
    return {
        "poster_share": share,
        "lie": lie,
        "runs": LIAR_RUNS,
        "honest": TOLD,
        "alarms": sum(each is not None for each in found),
        "median": _median(found),
    }


def liar_rows() -> list[dict[str, Any]]:
    return [liar_row(share, lie) for lie in (0.0, 1.0) for share in SHARES]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "watch-alarms.csv", alarm_rows())
    write(folder / "watch-delay.csv", delay_rows())
    write(folder / "watch-missing.csv", missing_rows())
    write(folder / "watch-observations.csv", observation_rows())
    write(folder / "watch-starts.csv", start_rows())
    write(folder / "watch-liars.csv", liar_rows())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
