"""Clients in a world that may change, and the results of their episodes."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Self

from pipelines.demo.clients import Client, Played
from srghn import seeding
from srghn.envs import EnvVersion, Perturbation
from srghn.errors import ServiceError

CLIENTS = 3
#: Most episodes that may be lost to errors, such as 503 while the ledger is busy.
LOST = 20


@dataclass(frozen=True)
class Place:
    """The clients' world; `name` is only for the picture, and the service does not know it."""

    name: str
    mode: str
    perturbation: Perturbation | None = None


@dataclass(frozen=True)
class Met:
    """An episode: its place, its return, and when it ended (Unix seconds)."""

    place: str
    played: Played
    ended: float


class Traffic:
    """Plays episodes over HTTP, one after another in each of `CLIENTS` threads, until closed.

    `place` is the world of the next episodes; a client waits `pause` seconds between two.
    """

    def __init__(self, url: str, version: EnvVersion, place: Place, seed: int, name: str) -> None:
        self.place, self.pause = place, 0.0
        self.episodes: list[Met] = []
        self._url, self._version, self._seed, self._name = url, version, seed, name
        self._count = self._lost = 0
        self._lock, self._over = threading.Lock(), threading.Event()
        self._failed: Exception | None = None
        self._threads = [
            threading.Thread(target=self._live, name=f"client-{i}") for i in range(CLIENTS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise the error that ended a client, if any."""
        if self._failed is not None:
            raise ServiceError(f"a client of the demo ended: {self._failed}") from self._failed

    def _live(self) -> None:
        try:
            with closing(Client(self._url)) as client:
                while not self._over.is_set():
                    self._try(client)
                    self._over.wait(self.pause)
        except Exception as error:  # noqa: BLE001  raised by `check` in the main thread
            self._failed = error

    def _try(self, client: Client) -> None:
        """Play an episode; if the server refuses it, it is lost, and the client goes on."""
        try:
            self._play(client)
        except ServiceError:
            self._lost += 1
            if self._lost > LOST:
                raise
            self._over.wait(0.5)

    def _play(self, client: Client) -> None:
        with self._lock:
            number, self._count = self._count, self._count + 1
        place = self.place
        seed = seeding.seed(self._seed, "demo-shift", self._name, number) & 0x7FFFFFFF
        name = f"{self._name}-{number}"
        played = client.play(self._version, place.mode, seed, name, place.perturbation)
        with self._lock:
            self.episodes.append(Met(place.name, played, time.time()))
