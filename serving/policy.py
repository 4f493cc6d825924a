"""One policy in one worker: the version that answers, and the champion if that one fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.control.episodes import Episodes, NotReady
from serving.control.follower import Follower
from serving.control.release import end_shadow
from serving.control.routing import Served
from serving.control.samples import Samples
from serving.control.shadow import Shadow, views
from serving.control.watch import Watch
from serving.limits import Limits
from serving.metrics import Metrics
from serving.predictor import PredictionError, Predictor
from serving.registry.artefacts import ArtefactStore
from serving.registry.ledger import Ledger
from serving.registry.names import base_of, page_of
from serving.schemas import BadRequest

#: A request's observation, or its batch, in a given predictor's form.
Again = Callable[[Predictor], list[float]]
Afresh = Callable[[Predictor], NDArray[np.float32]]


class PolicyService:
    """A policy's champion, trial, watch, episodes and counts; policies share nothing."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        store: ArtefactStore,
        limits: Limits,
        unblind: bool,
        samples: int = 0,
    ) -> None:
        """Raises `LedgerError` if the ledger knows no such policy, or cannot be used."""
        self.name, self._ledger, self._store = name, ledger, store
        self.metrics = Metrics(name)
        self.follower = Follower(ledger, store, self.metrics, limits, unblind, name)
        self.watch = Watch(
            ledger, name, remembered=limits.pin_seconds, deadline=limits.episode_seconds
        )
        self.shadow = Shadow(ledger, store.folder, self.metrics.counts, limits, name)
        self.samples = Samples(ledger, name, samples)
        self.follower.looks += [self.shadow.look, self._end_shadow, self._show]
        self.follower.surveys += [self._watch, self.samples.flush]
        self.episodes = Episodes(ledger, self.follower, self.metrics, limits, name)

    @property
    def base(self) -> str:
        """The path prefix of its routes."""
        return base_of(self.name)

    @property
    def page(self) -> str:
        """The path of its page."""
        return page_of(self.name)

    @property
    def problem(self) -> str | None:
        """Why the policy is not ready, or None."""
        return self.follower.problem

    def _watch(self) -> None:
        self.watch.look()
        self.metrics.ledger.watch = seen = self.watch.view()
        self.watch.tell_silence(seen)

    def _end_shadow(self) -> None:
        end_shadow(self._ledger, self._store, self.name)

    def _show(self) -> None:
        self.metrics.ledger.tried = views(self._ledger, self.name)
        self.metrics.ledger.holdback = self._ledger.holdback(self.name)

    def choose(self, served: Served, client: str | None, joins: bool) -> Predictor:
        """The version that answers a request outside an episode; raises `NotReady`."""
        predictor = served.choose(client, joins)
        if predictor is None:
            raise NotReady(served.problem)
        return predictor

    def find(self, wanted: str | None) -> tuple[Served, Predictor]:
        """The predictor of a version's number; without one, the champion's.

        Raises `BadRequest` (404).
        """
        served = self.follower.served
        if served.champion is None:
            raise NotReady(served.problem)
        if wanted is None:
            return served, served.champion
        for predictor in (served.champion, served.canary):
            if predictor is not None and str(predictor.version) == wanted:
                return served, predictor
        raise BadRequest(404, "version", "one that is served now", repr(wanted[:80]))

    def predict(
        self,
        served: Served,
        predictor: Predictor,
        observations: NDArray[np.float32],
        again: Afresh | None = None,
    ) -> tuple[Predictor, NDArray[Any]]:
        """Who answered, and the actions (n, *action_shape) for observations (n, d).

        If another version fails, the champion answers; `again` gives the batch in its form. Raises
        `NotReady` if the champion fails.
        """
        try:
            return predictor, predictor.act(observations)
        except PredictionError as error:
            champion = self._cover(served, predictor, error)
            covered = again(champion) if again else observations
            return self.predict(served, champion, covered)

    def act_one(
        self,
        served: Served,
        predictor: Predictor,
        observation: list[float],
        again: Again | None = None,
    ) -> tuple[Predictor, Any]:
        """As `predict`, for one observation of d numbers and its action.

        `again` gives the observation in the champion's form, in case the champion has to answer.
        """
        try:
            return predictor, predictor.act_one(observation)
        except PredictionError as error:
            champion = self._cover(served, predictor, error)
            return self.act_one(served, champion, again(champion) if again else observation)

    def step_one(
        self,
        served: Served,
        predictor: Predictor,
        observation: list[float],
        memory: bytes,
        again: Again | None = None,
    ) -> tuple[Predictor, Any, bytes]:
        """As `act_one`, within an episode; also returns the state for the next step."""
        try:
            return predictor, *predictor.step_one(observation, memory)
        except PredictionError as error:
            champion = self._cover(served, predictor, error)
            covered = again(champion) if again else observation
            return self.step_one(served, champion, covered, b"")

    def _cover(self, served: Served, failed: Predictor, error: PredictionError) -> Predictor:
        """The champion, to answer for a version that failed; raises `NotReady` if it has failed."""
        champion = served.champion
        if champion is None or failed is champion:
            raise NotReady(str(error)) from error
        return champion
