"""Keeps observations for the diagnosis: the latest ones, two in a row per episode.

They are written off the hot path. Two in a row show how the world moves. The episode's name alone
decides which step is kept, so the sandbox can choose its steps in the same way. Steps are spread
over octaves, so that both short and long episodes give observations.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache

import numpy as np

from serving.registry.ledger import Ledger
from serving.registry.samples import Sample, keep
from serving.trial.tokens import Episode
from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

#: Kept steps are below 2 ** OCTAVES; at most `WAITING` samples wait to be written, and no more
#: bytes of them than `WAITING_BYTES`, which is one transaction.
OCTAVES, WAITING, WAITING_BYTES = 9, 4000, 16 * 2**20


@lru_cache(maxsize=1024)  # asked for at every step of an episode
def step_of(episode: str) -> int:
    """The step, from 0, whose observation is kept with the next one, if the episode lasts."""
    share = zlib.crc32(episode.encode()) / 2**32
    return int(2 ** (OCTAVES * share)) - 1


def in_pairs(samples: Iterable[Sample]) -> dict[str, tuple[Sample, Sample | None]]:
    """Episode -> the observation at its step, and the next observation or None.

    A next observation without its first is left out.
    """
    found = {(each.episode, each.step): each for each in samples}
    return {
        name: (first, found.get((name, step + 1)))
        for (name, step), first in found.items()
        if step == step_of(name)
    }


class Samples:
    """Collects observations of one policy's requests; `flush` writes them.

    The ledger keeps the latest `most`; 0: none. If they arrive faster than they are written, some
    are dropped.
    """

    def __init__(self, ledger: Ledger, policy: str, most: int) -> None:
        self._database, self._policy, self._most = ledger.database(), policy, most
        self._waiting: deque[Sample] = deque(maxlen=WAITING)

    def offer(self, episode: Episode, observation: Sequence[float]) -> None:
        """Keep it if this is one of its two steps. Called for every action, so it must be fast."""
        if not self._most or episode.steps - step_of(episode.name) not in (0, 1):
            return
        if episode.moved or episode.loose:  # two versions, or an unknown number of steps
            return
        data = np.asarray(observation, "<f4").tobytes()
        if (len(self._waiting) + 1) * len(data) > WAITING_BYTES:
            with suppress(IndexError):  # they are being written
                self._waiting.popleft()
        self._waiting.append(
            Sample(episode.version, episode.generation, episode.name, episode.steps,
                   time.time(), data)
        )  # fmt: skip

    def flush(self) -> None:
        """Write the waiting samples in one transaction.

        If that fails, they are dropped and a warning is logged; serving goes on.
        """
        found: list[Sample] = []
        with suppress(IndexError):  # `offer` may drop some meanwhile
            found += (self._waiting.popleft() for _ in range(len(self._waiting)))
        if not found:
            return
        try:
            keep(self._database, self._policy, found, self._most)
        except LedgerError as error:
            logger.warning("%d observations were not kept: %s", len(found), error)
