"""All that the routes share, made once by `create_app`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from serving.auth import Keeper
from serving.control.episodes import Episodes, NotReady
from serving.control.follower import Follower
from serving.control.routing import Served
from serving.control.watch import Watch
from serving.limits import Limits
from serving.metrics import Metrics
from serving.predictor import PredictionError, Predictor
from serving.registry.artefacts import ArtefactStore
from serving.registry.database import Database
from serving.registry.ledger import Ledger
from serving.schemas import BadRequest
from serving.settings import Settings
from serving.tokens import Tokens
from srghn.errors import LedgerError

#: The one model that is served, as `/v2` names it.
MODEL = "policy"


@dataclass
class Service:
    """One worker: the ledger it follows, what it serves, what it counts."""

    settings: Settings
    limits: Limits
    ledger: Ledger = field(init=False)
    draining: bool = False

    def __post_init__(self) -> None:
        database = Database(
            self.settings.database_url, home=self.settings.home, wait=self.limits.lock_seconds
        )
        self.ledger = Ledger(database, witness_key=self.settings.witness_key)
        self.store = ArtefactStore(self.settings.home / "artefacts")
        self.keeper = Keeper(Tokens(database), self.settings.auth, self.settings.public)
        self.metrics = Metrics()
        unblind = self.settings.unblind
        self.follower = Follower(self.ledger, self.store, self.metrics, self.limits, unblind)
        self.watch = Watch(self.ledger)
        self.follower.looks += [self.keeper.look, self._watch]
        self.episodes = Episodes(self.ledger, self.follower, self.metrics, self.limits, MODEL)

    def _watch(self) -> None:
        self.watch.look()
        self.metrics.ledger.watch = self.watch.view()

    @property
    def reports(self) -> Path:
        return self.settings.home / "reports"

    def choose(self, client: str | None) -> tuple[Served, Predictor]:
        """What answers a request outside any episode; raises `NotReady`."""
        served = self.follower.served
        predictor = served.choose(client)
        if predictor is None:
            raise NotReady(served.problem)
        return served, predictor

    def find(self, model: str, wanted: str | None) -> tuple[Served, Predictor]:
        """The predictor of a model and a version's number, or of its champion.

        Raises `BadRequest` (404) and `NotReady`.
        """
        if model != MODEL:
            raise BadRequest(404, "model", repr(MODEL), repr(model[:80]))
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
        self, served: Served, predictor: Predictor, observations: NDArray[np.float32]
    ) -> tuple[Predictor, NDArray[Any]]:
        """Who answered, and the actions. The champion covers for any other that fails.

        Raises `NotReady` if the champion fails.
        """
        try:
            return predictor, predictor.act(observations)
        except PredictionError as error:
            champion = self._cover(served, predictor, error)
            return self.predict(served, champion, observations)

    def act_one(
        self, served: Served, predictor: Predictor, observation: list[float]
    ) -> tuple[Predictor, Any]:
        """`predict` for one observation, and its action."""
        try:
            return predictor, predictor.act_one(observation)
        except PredictionError as error:
            champion = self._cover(served, predictor, error)
            return self.act_one(served, champion, observation)

    def step_one(
        self, served: Served, predictor: Predictor, observation: list[float], memory: bytes
    ) -> tuple[Predictor, Any, bytes]:
        """`act_one` within an episode: also what its next step goes on from."""
        try:
            return predictor, *predictor.step_one(observation, memory)
        except PredictionError as error:
            champion = self._cover(served, predictor, error)
            return self.step_one(served, champion, observation, b"")

    def _cover(self, served: Served, failed: Predictor, error: PredictionError) -> Predictor:
        """Who answers in place of one that failed; raises `NotReady` if that was the champion."""
        champion = served.champion
        if champion is None or failed is champion:
            raise NotReady(str(error)) from error
        self.follower.controller.report(failed.version, str(error))
        return champion

    def problem(self) -> str | None:
        """Why this worker is not ready, or None."""
        if self.draining:
            return "draining: this server is about to stop"
        try:
            self.ledger.database().require()  # one look at the file's name, no lock
        except LedgerError as error:
            return str(error)
        return self.follower.served.problem


def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found
