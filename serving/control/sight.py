"""Does the champion still see what it saw in the sandbox? The observation score of the watch.

Advice and no alarm: another policy, or a world that is better for it, moves observations as well.
What it saw there is frozen in the ledger as quantiles when it was promoted (`pipelines.adapt`), of
the same steps that service keeps.
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
#: Observations that are compared, the latest ones, and the fewest; p from which on they moved.
WINDOW, FEWEST, SELDOM = 200, 50, 0.001


@dataclass(frozen=True)
class Score:
    """How far the latest `count` observations are from where they were, in their worst dimension.

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
    """The score of one policy's champion; computed anew when observations are new."""

    def __init__(self, ledger: Ledger, policy: str) -> None:
        self._ledger, self._policy = ledger, policy
        self._at: tuple[int, int] | None = None
        self._score: Score | None = None

    def score(self, champion: Champion) -> Score | None:
        """None while there are no quantiles of it, or too few observations."""
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
    """Quantiles (d, GRID) of `count` observations of the sandbox."""

    quantiles: NDArray[np.float64]
    count: int


def baseline(ledger: Ledger, champion: Champion) -> Baseline | None:
    """What this champion saw in the sandbox, of its own generation; None where nobody looked."""
    for event in reversed(ledger.notes(champion.policy, BASELINE)):
        if event.generation < champion.generation:  # written before this one was promoted
            break
        said = ledger.evidence(str(event.evidence_sha256))
        if said["generation"] == champion.generation:
            return Baseline(np.array(said["quantiles"], np.float64), int(said["count"]))
    return None
