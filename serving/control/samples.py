"""Observations kept for the diagnosis: at most one an episode, the latest ones, off the hot path.

Which step is kept depends on the episode's name alone, so the sandbox can draw its own the same
way. Steps are spread over octaves: half of short episodes have one, and long ones too.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections import deque
from collections.abc import Sequence

import numpy as np

from serving.registry.ledger import Ledger
from serving.registry.samples import Sample, keep
from serving.trial.tokens import Episode
from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

#: Steps that are kept lie below 2 ** OCTAVES; so many samples may wait to be written.
OCTAVES, WAITING = 9, 1000


def step_of(episode: str) -> int:
    """The step, from 0, at which this episode's observation is kept, if it gets there."""
    share = zlib.crc32(episode.encode()) / 2**32
    return int(2 ** (OCTAVES * share)) - 1


class Samples:
    """Takes observations of one policy as they are asked about; `flush` writes them.

    Keeps the latest `most`; 0: none. What comes faster than it is written is dropped.
    """

    def __init__(self, ledger: Ledger, policy: str, most: int) -> None:
        self._database, self._policy, self._most = ledger.database(), policy, most
        self._waiting: deque[Sample] = deque(maxlen=WAITING)

    def offer(self, episode: Episode, observation: Sequence[float]) -> None:
        """Keep it, if this is the episode's step; called for every action, so it must be quick."""
        if not self._most or episode.steps != step_of(episode.name):
            return
        if episode.moved or episode.loose:  # of two versions, or of a step that nobody knows
            return
        data = np.asarray(observation, "<f4").tobytes()
        self._waiting.append(
            Sample(episode.version, episode.generation, episode.name, episode.steps,
                   time.time(), data)
        )  # fmt: skip

    def flush(self) -> None:
        """Write what waits, in one transaction; what cannot be written is dropped, and it is said.

        Samples are no reason to stop serving.
        """
        count = len(self._waiting)
        if not count:
            return
        found = [self._waiting.popleft() for _ in range(count)]
        try:
            keep(self._database, self._policy, found, self._most)
        except LedgerError as error:
            logger.warning("%d observations were not kept: %s", count, error)
