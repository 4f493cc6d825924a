"""A server under a steady load for a long time: its memory, its slowest answers, and its end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.serving.test_serving_process import RIGHT


@dataclass
class Minute:
    """What one minute had: answers, those that were not 200, the p99 in ms, memory in MiB."""

    number: int
    answers: int
    wrong: int
    p99_ms: float
    memory: float
    load: float


@dataclass
class Soak:
    """What came of it. `dropped`: requests that were under way at SIGTERM and got no answer.

    `said` counts what answers that were not 200 said.
    """

    rate: float = 0.0
    minutes: list[Minute] = field(default_factory=list)
    dropped: int = 0
    under_way: int = 0
    code: int | None = None
    said: Counter[str] = field(default_factory=Counter)

    @property
    def growth(self) -> float:
        """Memory at the end, of that after the fifth minute (or the first, of a short one), -1."""
        at = self.minutes[min(4, len(self.minutes) - 1)]
        return self.minutes[-1].memory / at.memory - 1

    @property
    def slowing(self) -> float:
        """p99 of the last minute, of the first's."""
        return self.minutes[-1].p99_ms / self.minutes[0].p99_ms


class Load:
    """So many connections that ask in turns: an action, an episode's step, a batch, /v2."""

    def __init__(self, url: str, connections: int, name: str) -> None:
        self.url, self.connections, self.name = url, connections, name
        self.seconds: list[float] = []
        self.wrong = 0
        self.said: Counter[str] = Counter()
        self.pending: set[int] = set()
        self.cut_of: set[int] = set()
        self.stopping = False
        self.count = 0

    async def run(self, rate: float | None, until: asyncio.Event) -> None:
        """Ask at a rate in requests a second, or without pause, until told to stop."""
        await asyncio.gather(*(self._ask(n, rate, until) for n in range(self.connections)))

    async def _ask(self, number: int, rate: float | None, until: asyncio.Event) -> None:
        pause = 0.0 if rate is None else self.connections / rate
        drawn = random.Random(number)
        async with httpx.AsyncClient(
            base_url=self.url, timeout=30, limits=httpx.Limits(max_connections=1)
        ) as http:
            turn, bodies = (
                time.monotonic() + pause * drawn.random(),
                requests(f"{self.name}-{number}"),
            )
            answer: dict[str, Any] | None = None
            while not until.is_set():
                path, body = bodies.send(answer) if answer is not None else next(bodies)
                await asyncio.sleep(max(0.0, turn - time.monotonic()))
                turn = max(turn + pause, time.monotonic() - 5 * pause)
                answer = await self._send(http, path, body)
                if answer is None:
                    bodies = requests(f"{self.name}-{number}-{self.count}")
                    if self.stopping:
                        return

    async def _send(self, http: httpx.AsyncClient, path: str, body: Any) -> dict[str, Any] | None:
        self.count += 1
        mine, begun = self.count, time.monotonic()
        self.pending.add(mine)
        try:
            answer = await http.post(path, json=body)
        except httpx.TransportError:
            self.cut_of.add(mine)
            self.wrong += not self.stopping
            return None
        finally:
            self.pending.discard(mine)
        self.seconds.append(time.monotonic() - begun)
        if answer.status_code == 200:
            return dict(answer.json())
        if not (self.stopping and answer.status_code == 503):
            self.wrong += 1
            self.said[f"{answer.status_code}: {answer.json().get('error')}"] += 1
        return None


def requests(name: str) -> Iterator[Any]:
    """What one client asks: path and body by turns, given the answers to them."""
    number = 0
    while True:
        episode = f"{name}-{number}"
        number += 1
        answer = yield "/v1/act", {"observation": RIGHT, "episode_id": episode}
        for _ in range(9):
            answer = yield "/v1/act", {"observation": RIGHT, "token": answer["token"]}
        outcome = {"return": 200.0, "terminated": True, "token": answer["token"]}
        yield f"/v1/episodes/{episode}/outcome", outcome
        for _ in range(10):
            yield "/v1/act", {"observation": RIGHT}
        yield "/v1/act/batch", {"observations": [RIGHT] * 16}
        tensor = {"name": "obs", "shape": [1, 4], "datatype": "FP32", "data": RIGHT}
        yield "/v2/models/policy/infer", {"inputs": [tensor]}


async def soak(
    url: str, process: Any, *, minutes: int, seconds: float, share: float, connections: int
) -> Soak:
    """Find how much it answers, ask a share of that for so many minutes of so many seconds, end."""
    found, worker = Soak(), worker_of(process.pid)
    found.rate = share * await _capacity(url, connections, min(10.0, seconds))
    load, until = Load(url, connections, "soak"), asyncio.Event()
    asking = asyncio.create_task(load.run(found.rate, until))
    for number in range(1, minutes + 1):
        await asyncio.sleep(seconds)
        taken, load.seconds = sorted(load.seconds), []
        wrong, load.wrong = load.wrong, 0
        p99 = 1000 * taken[int(0.99 * (len(taken) - 1))] if taken else float("nan")
        mib = memory(worker)
        found.minutes.append(Minute(number, len(taken), wrong, p99, mib, os.getloadavg()[0]))
    while not load.pending:  # it ends while it is asked
        await asyncio.sleep(0.0005)
    under_way, load.stopping = set(load.pending), True
    process.send_signal(signal.SIGTERM)
    with suppress(TimeoutError):
        await asyncio.wait_for(asking, 40)
    found.under_way, found.dropped = len(under_way), len(under_way & load.cut_of)
    found.said = load.said
    found.code = await asyncio.to_thread(process.wait, 40)
    return found


async def _capacity(url: str, connections: int, seconds: float) -> float:
    load, until = Load(url, connections, "first"), asyncio.Event()
    asking = asyncio.create_task(load.run(None, until))
    await asyncio.sleep(seconds)
    until.set()
    await asking
    return len(load.seconds) / seconds


def worker_of(pid: int) -> int:
    """The process that answers: the command's own, or its child."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


def memory(pid: int) -> float:
    """Resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)
