"""Keeps an episode on one version, in every worker and across a swap."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict

from serving.control.follower import Follower
from serving.control.routing import Served
from serving.limits import Limits
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.registry.ledger import Ledger
from serving.registry.records import Pin
from serving.schemas import BadRequest
from srghn.errors import LedgerError

logger = logging.getLogger(__name__)


class NotReady(BadRequest):
    """There is nothing to answer with; says why."""

    def __init__(self, problem: str | None) -> None:
        super().__init__(503, "service", "a champion to be served", problem or "nothing")


class Pins:
    """Which version answers an episode: chosen at its first action, kept until its outcome.

    An episode is moved, and its outcome counts for nobody, if its version was withdrawn (aborted,
    revoked) or it ran longer than `episode_seconds`. While the ledger cannot be written, episodes
    are kept by this worker's memory alone and count for nobody either.
    """

    def __init__(
        self, ledger: Ledger, follower: Follower, metrics: Metrics, limits: Limits
    ) -> None:
        self._ledger, self._follower = ledger, follower
        self._metrics, self._limits = metrics, limits
        self._known: OrderedDict[str, Pin] = OrderedDict()

    async def choose(self, episode_id: str) -> tuple[Served, Predictor]:
        """What answers this episode; raises `NotReady`, or `BadRequest` (409) after its outcome."""
        known, served = self._known.get(episode_id), self._follower.served
        held = served.find(known.version) if known and not self._too_old(known) else None
        if held is not None:
            self._known.move_to_end(episode_id)
            return served, held
        pin, predictor = await asyncio.to_thread(self._pin, episode_id)
        self._known[episode_id] = pin
        if len(self._known) > self._limits.pins:
            self._known.popitem(last=False)
        return self._follower.served, predictor

    def forget(self, episode_id: str) -> None:
        """The episode is over."""
        self._known.pop(episode_id, None)

    def _pin(self, episode_id: str) -> tuple[Pin, Predictor]:
        served = self._follower.served
        chosen = served.choose(episode_id)
        if chosen is None:
            raise NotReady(served.problem)
        wanted = Pin(
            episode_id,
            chosen.version,
            served.route_of(chosen),
            served.epoch,
            served.generation,
            time.time(),
            moved=False,
            over=False,
        )
        try:
            return self._settle(wanted, chosen)
        except LedgerError as error:
            self._metrics.counts.add("ledger_errors")
            logger.error("episode %s is not pinned: %s", episode_id, error)
            return wanted, chosen

    def _settle(self, wanted: Pin, chosen: Predictor) -> tuple[Pin, Predictor]:
        """The pin that holds for all workers, and its predictor."""
        pin = self._ledger.pin(wanted)
        if pin.over:
            raise BadRequest(
                409, "episode_id", "an episode that goes on", "one whose outcome was posted",
                hint="give the next episode an id of its own",
            )  # fmt: skip
        predictor = None if self._too_old(pin) else self._follower.hold(pin.version)
        if predictor is not None:
            return pin, predictor
        pin = self._ledger.pin(wanted, old=pin)
        return pin, self._follower.hold(pin.version) or chosen

    def _too_old(self, pin: Pin) -> bool:
        return time.time() - pin.pinned_at > self._limits.episode_seconds
