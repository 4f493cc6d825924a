"""The observation score of the watch: do the champion's observations still match the sandbox?

The score is advice and raises no alarm, because a better world also moves observations. At the
promotion `pipelines.adapt` writes the quantiles of sandbox observations into the ledger, for the
same steps that service keeps, of episodes that it played until those steps.

So the score takes observations in order of start, of episodes of which nearly all got as far as
their step or ended. In order of arrival those of early steps come first, and right after a
promotion there are no others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.control.samples import step_of
from serving.registry import episodes
from serving.registry.ledger import Ledger
from serving.registry.records import Champion
from serving.registry.samples import latest, newest, oldest
from srghn.inference.whereabouts import farthest

#: Event of the policy that holds the quantiles of a champion's generation.
BASELINE = "observations"
#: Most (latest) and fewest observations to compare, and the p-value below which they moved.
WINDOW, FEWEST, SELDOM = 200, 50, 0.001
#: Largest share of the episodes whose observation is still to come, and most starts (and samples)
#: that are read.
TO_COME, READ = 0.05, 2000
#: Seconds from one score to the next, since busy servers always have new observations.
AGAIN = 10.0


@dataclass(frozen=True)
class Score:
    """The difference of the latest `count` observations from the sandbox, in the worst dimension.

    `distance` is the largest difference of the two distribution functions, from 0 to 1.
    """

    count: int
    distance: float
    dimension: int
    p: float

    @property
    def moved(self) -> bool:
        return self.p < SELDOM

    @property
    def words(self) -> str:
        how = "moved" if self.moved else "are where they were"
        return (
            f"{how}: element {self.dimension} by {self.distance:.2f} of its distribution "
            f"(p {self.p:.2g}, {self.count} observations)"
        )


class Sight:
    """The score of one policy's champion; computed again when there are new observations."""

    def __init__(self, ledger: Ledger, policy: str, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._policy, self._clock = ledger, policy, clock
        self._at: tuple[int, int] | None = None
        self._next = 0.0
        self._score: Score | None = None

    def score(self, champion: Champion) -> Score | None:
        """The score; None without quantiles for this champion, or with too few observations."""
        at = champion.generation, newest(self._ledger.database(), self._policy)
        fresh = self._at is None or self._at[0] != champion.generation
        if at != self._at and (fresh or self._clock() >= self._next):
            self._at, self._score = at, self._compare(champion)
            self._next = self._clock() + (AGAIN if self._score else 0.0)
        return self._score

    def _compare(self, champion: Champion) -> Score | None:
        kept, of = baseline(self._ledger, champion), (champion.version, champion.generation)
        database = self._ledger.database()
        found = latest(database, self._policy, *of, READ)
        if kept is None or not found:
            return None
        seen = {each.episode: each for each in found if each.step == step_of(each.episode)}
        with database.read() as connection:
            starts = episodes.newest(connection, self._policy, READ)
        # What was taken earlier may be deleted, or is not read.
        whole = found[-1].at if len(found) == READ else oldest(database, self._policy)
        now = self._clock()
        begun = [
            row for row in starts if (row.version, row.generation) == of and row.started_at >= whole
        ]
        chosen = window(
            [row.episode in seen for row in begun],
            [row.runs(now) for row in begun],
        )
        if chosen is None:
            return None
        part, to_come = chosen
        rows = [seen[row.episode].values for row in begun[part] if row.episode in seen]
        moved = farthest(np.stack(rows).astype(np.float64), kept.quantiles, kept.count, to_come)
        return Score(len(rows), moved.distance, moved.dimension, moved.p)


def window(sampled: Sequence[bool], running: Sequence[bool]) -> tuple[slice, float] | None:
    """The latest starts to compare, and the share of their observations that is still to come.

    `sampled` and `running` are of starts (n,), the latest first: whether the observation is kept,
    and whether the episode runs. There are `WINDOW` observations, or all from at least `FEWEST` on.
    None if so many are not there yet, or too many are to come.
    """
    here = np.asarray(sampled, bool)
    seen = np.concatenate([[0], np.cumsum(here)])
    open_ = np.concatenate([[0], np.cumsum(~here & np.asarray(running, bool))])
    ends = np.minimum(np.searchsorted(seen, seen + WINDOW), len(here))
    counts, to_come = seen[ends] - seen, open_[ends] - open_
    fit = (counts >= FEWEST) & (to_come <= TO_COME * (ends - np.arange(len(seen))))
    if not fit.any():
        return None
    first = int(np.argmax(fit))
    share = to_come[first] / (counts[first] + to_come[first])
    return slice(first, int(ends[first])), float(share)


@dataclass(frozen=True)
class Baseline:
    """Quantiles (d, GRID) of `count` observations in the sandbox."""

    quantiles: NDArray[np.float64]
    count: int


def baseline(ledger: Ledger, champion: Champion) -> Baseline | None:
    """The sandbox quantiles of this champion's generation; None if they were not recorded."""
    for event in reversed(ledger.notes(champion.policy, BASELINE)):
        if event.generation < champion.generation:  # written before this one was promoted
            break
        said = ledger.evidence(str(event.evidence_sha256))
        if said["generation"] == champion.generation:
            return Baseline(np.array(said["quantiles"], np.float64), int(said["count"]))
    return None
