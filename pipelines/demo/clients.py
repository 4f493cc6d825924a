"""Simulated clients: they run episodes of a world, request every action, and post the outcome."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from srghn.envs import EnvVersion, Perturbation
from srghn.errors import ServiceError

TIMEOUT_SECONDS = 30.0
#: Simulated clients at once.
CLIENTS = 4


@dataclass(frozen=True)
class Played:
    """One whole episode over HTTP: the version and route that answered, and how it ended."""

    episode_id: str
    version: int
    route: str
    return_: float
    length: int


class Client:
    """One client with one keep-alive connection. Raises `ServiceError` for a status above 299."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port, timeout=TIMEOUT_SECONDS
        )

    def close(self) -> None:
        self._connection.close()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", path, json.dumps(body), headers)
        return self._answer(path)

    def get(self, path: str) -> dict[str, Any]:
        self._connection.request("GET", path)
        return self._answer(path)

    def _answer(self, path: str) -> dict[str, Any]:
        response = self._connection.getresponse()
        text = response.read()
        if response.status >= 300:
            raise ServiceError(f"{path} answered {response.status}: {text.decode()[:300]}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def play(
        self,
        version: EnvVersion,
        mode: str,
        seed: int,
        episode_id: str,
        perturbation: Perturbation | None = None,
    ) -> Played:
        """Play an episode of the world in `mode` with the server's actions; post its outcome."""
        env = version.make(mode, perturbation)
        observation, _ = env.reset(seed=seed)
        total, length, over, answer = 0.0, 0, False, {}
        body: dict[str, Any] = {"episode_id": episode_id}
        while not over:
            body["observation"] = np.asarray(observation).tolist()
            answer = self.post("/v1/act", body)
            body["token"] = answer["token"]
            action = np.asarray(answer["action"], dtype=env.action_space.dtype)
            observation, reward, terminated, truncated, _ = env.step(
                action if action.ndim else action.item()
            )
            total, length = total + float(reward), length + 1
            over = terminated or truncated
        env.close()
        self.post(
            f"/v1/episodes/{episode_id}/outcome",
            {"return": total, "terminated": bool(terminated), "token": answer["token"]},
        )
        return Played(episode_id, answer["version"], answer["route"], total, length)


def play_many(
    url: str, version: EnvVersion, mode: str, seeds: list[int], prefix: str
) -> Iterator[Played]:
    """Episodes by `CLIENTS` concurrent clients, as they end; none begin once iteration stops."""

    def one(seed: int) -> Played:
        with closing(Client(url)) as client:
            return client.play(version, mode, seed, f"{prefix}-{seed}")

    with ThreadPoolExecutor(CLIENTS, thread_name_prefix="client") as pool:
        for start in range(0, len(seeds), CLIENTS):
            yield from pool.map(one, seeds[start : start + CLIENTS])
