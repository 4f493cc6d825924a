"""All that the routes share, made once by `create_app`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from serving.control.follower import Follower
from serving.control.pins import NotReady, Pins
from serving.control.routing import Served
from serving.limits import Limits
from serving.metrics import Metrics
from serving.predictor import PredictionError, Predictor
from serving.registry.artefacts import ArtefactStore
from serving.registry.database import Database
from serving.registry.ledger import Ledger
from serving.settings import Settings
from serving.tokens import Tokens


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
        store = ArtefactStore(self.settings.home / "artefacts")
        self.tokens = Tokens(database)
        self.metrics = Metrics()
        self.follower = Follower(self.ledger, store, self.metrics, self.limits)
        self.pins = Pins(self.ledger, self.follower, self.metrics, self.limits)

    @property
    def reports(self) -> Path:
        return self.settings.home / "reports"

    def choose(self, key: str | None) -> tuple[Served, Predictor]:
        """What answers a request outside any episode; raises `NotReady`."""
        served = self.follower.served
        predictor = served.choose(key or secrets.token_hex(8))
        if predictor is None:
            raise NotReady(served.problem)
        return served, predictor

    def predict(
        self, served: Served, predictor: Predictor, observations: NDArray[np.float32]
    ) -> tuple[Predictor, list[Any]]:
        """Who answered, and the actions. The champion covers for any other that fails.

        Raises `NotReady` if the champion fails.
        """
        try:
            return predictor, predictor.act(observations)
        except PredictionError as error:
            champion = served.champion
            if champion is not None and predictor is not champion:
                self.follower.controller.report(predictor.version, str(error))
                return self.predict(served, champion, observations)
            raise NotReady(str(error)) from error

    def problem(self) -> str | None:
        """Why this worker is not ready, or None."""
        if self.draining:
            return "draining: this server is about to stop"
        return self.follower.served.problem


def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found
