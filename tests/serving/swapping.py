"""Champions swapped under many connections, a worker killed meanwhile: what clients saw."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from srghn.errors import SrghnError
from tests.serving.test_serving_process import LEFT, RIGHT, ready, wait_for

#: Answers of a trial tell their version, so that it can be compared.
UNBLIND = {
    "SRGHN_UNBLIND": "true",
    "SRGHN_LIMIT_POLL_SECONDS": "0.1",
    # a busy machine: its disk may take longer than the second that a commit is given
    "SRGHN_LIMIT_START_SECONDS": "30",
    "SRGHN_LIMIT_LOCK_SECONDS": "30",
}


@dataclass
class Seen:
    """What all clients saw. `champions`: which versions answered as champion of a generation."""

    codes: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    cut: int = 0
    episodes: int = 0
    across: int = 0
    champions: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))


class Client:
    """One connection: batches, and episodes that post their outcome."""

    def __init__(self, url: str, name: str, seen: Seen, stop: threading.Event) -> None:
        self.url, self.name, self.seen, self.stop = url, name, seen, stop

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=self.url, timeout=30, limits=limits) as http:
            number = 0
            while not self.stop.is_set():
                await self._batch(http)
                await self._episode(http, f"{self.name}-{number}")
                number += 1

    async def _post(self, http: httpx.AsyncClient, path: str, body: Any) -> dict[str, Any] | None:
        """An answer's content; a connection that is cut is no answer, and is asked again once."""
        for _ in range(2):
            try:
                answer = await http.post(path, json=body)
            except httpx.TransportError:
                self.seen.cut += 1
                continue
            self.seen.codes[answer.status_code] += 1
            if answer.status_code == 200:
                content: dict[str, Any] = answer.json()
                self._generation(content)
                return content
            self.seen.wrong.append(f"{path}: {answer.status_code} {answer.text}")
            return None
        self.seen.wrong.append(f"{path}: no answer, twice")
        return None

    def _generation(self, content: dict[str, Any]) -> None:
        if content.get("route") == "champion" and "generation" in content:
            self.seen.champions[content["generation"]].add(content["version"])

    async def _batch(self, http: httpx.AsyncClient) -> None:
        said = await self._post(http, "/v1/act/batch", {"observations": [RIGHT, LEFT] * 16})
        # champions of odd and even versions push the other way: a mixed batch would mix these
        if said is not None and said["actions"] != expected(said["version"]):
            self.seen.wrong.append(f"batch of version {said['version']}: {said['actions']}")

    async def _episode(self, http: httpx.AsyncClient, name: str) -> None:
        said: dict[str, Any] | None = {"episode_id": name}
        version, generations = None, set()
        for _ in range(8):
            body = {"observation": RIGHT, **({"token": said["token"]} if version else said)}
            said = await self._post(http, "/v1/act", body)
            if said is None:
                return
            version = version or said["version"]
            generations.add(said["generation"])
            if said["version"] != version or said["action"] != expected(version)[0]:
                self.seen.wrong.append(f"{name}: version {version} became {said}")
        better = version == max(max(v) for v in self.seen.champions.values()) + 1
        outcome = {"return": 490.0 if better else 10.0, "terminated": True, "token": said["token"]}
        await self._post(http, f"/v1/episodes/{name}/outcome", outcome)
        self.seen.episodes += 1
        self.seen.across += len(generations) > 1


def expected(version: int) -> list[int]:
    return [1, 0] * 16 if version % 2 else [0, 1] * 16


def swap(home: Any, running: Any, *, swaps: int, connections: int) -> Seen:
    """Champions swapped so often under so many connections to two workers, one of them killed."""
    home.first()
    seen, stop = Seen(), threading.Event()
    with running(home, "--workers", "2", environment=UNBLIND) as (url, process):
        wait_for(ready(url))
        clients = [Client(url, f"c{n}", seen, stop) for n in range(connections)]
        load = threading.Thread(target=lambda: asyncio.run(_all(clients)))
        load.start()
        try:
            wait_for(lambda: 1 in seen.champions)
            for number in range(2, swaps + 2):
                promote(home, number)
                wait_for(lambda: served(url) == number)  # noqa: B023
                wait_for(lambda: number in seen.champions)  # noqa: B023
                if number == swaps // 2 + 1:
                    os.kill(busiest(process.pid), signal.SIGKILL)
            wait_for(lambda: len(children(process.pid)) == 2)  # another worker began
            time.sleep(0.5)  # both workers' answers of the last one
        finally:
            stop.set()
            load.join()
    return seen


async def _all(clients: list[Client]) -> None:
    await asyncio.gather(*(client.run() for client in clients))


def promote(home: Any, number: int) -> None:
    """A version more through gate and trial; open episodes of clients are waited for."""
    new = home._new(bias=float(number), flip=number % 2 == 0)
    version = home.steps.approved(**new)
    home.steps.play(home.steps.canary(version), 10.0, 490.0, 12)
    deadline = time.monotonic() + 60
    while home.ledger.champion().version != version:
        assert time.monotonic() < deadline, home.ledger.version(version).state
        with contextlib.suppress(SrghnError):  # the server may be quicker
            generation = home.ledger.champion().generation
            from serving.registry.records import Who

            home.ledger.promote(version, expected_generation=generation, who=Who("ann", "better"))
        time.sleep(0.02)


def served(url: str) -> int | None:
    answer = httpx.get(f"{url}/health/ready", timeout=10)
    return answer.json().get("version") if answer.status_code == 200 else None


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def busiest(pid: int) -> int:
    """The worker with most connections."""
    return max(children(pid), key=lambda child: len(os.listdir(f"/proc/{child}/fd")))


def problems(seen: Seen, connections: int) -> list[str]:
    """Everything that a client must never see."""
    found = list(seen.wrong)
    found += [f"{code}: {count}" for code, count in seen.codes.items() if code != 200]
    several = {g: v for g, v in seen.champions.items() if len(v) != 1}
    found += [f"generation {g} is versions {sorted(v)}" for g, v in several.items()]
    if seen.cut > connections:
        found.append(f"{seen.cut} connections were cut, of {connections}")
    return found
