"""The observation score of the watch: do the champion's observations still match the sandbox?

The score is advice and raises no alarm, because a better world also moves observations. At the
promotion `pipelines.adapt` writes the quantiles of sandbox observations into the ledger, for the
same steps that service keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.control.samples import step_of
from serving.registry.ledger import Ledger
from serving.registry.records import Champion
from serving.registry.samples import latest, newest
from srghn.inference.whereabouts import farthest

#: Event of the policy that holds the quantiles of a champion's generation.
BASELINE = "observations"
#: Most (latest) and fewest observations to compare, and the p-value below which they moved.
WINDOW, FEWEST, SELDOM = 200, 50, 0.001


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

    def __init__(self, ledger: Ledger, policy: str) -> None:
        self._ledger, self._policy = ledger, policy
        self._at: tuple[int, int] | None = None
        self._score: Score | None = None

    def score(self, champion: Champion) -> Score | None:
        """The score; None without quantiles for this champion, or with too few observations."""
        at = champion.generation, newest(self._ledger.database(), self._policy)
        if at != self._at:
            self._at, self._score = at, self._compare(champion)
        return self._score

    def _compare(self, champion: Champion) -> Score | None:
        kept = baseline(self._ledger, champion)
        found = latest(
            self._ledger.database(), self._policy, champion.version, champion.generation, 2 * WINDOW
        )
        rows = [each.values for each in found if each.step == step_of(each.episode)][:WINDOW]
        if kept is None or len(rows) < FEWEST:
            return None
        moved = farthest(np.stack(rows).astype(np.float64), kept.quantiles, kept.count)
        return Score(len(rows), moved.distance, moved.dimension, moved.p)


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
