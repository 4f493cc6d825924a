"""Trials over HTTP: 50 clients at once, and each decision held against the simulator's code.

    python -m tests.benchmarks.trials_http --trials 20 --table docs/results/trials-http.csv

A real server decides trials of real versions while clients play episodes whose returns, lengths and
gaps are a scenario's. Then the log of each trial is read from the ledger and decided again as
`srghn canary simulate` decides one: look by look, on the same rules. Action, number of episodes and
both capitals must be equal. Exit code 1 unless all of them are.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from pipelines.lab.trials.scenarios import LONGEST, SCENARIOS, Scenario
from pipelines.lab.trials.simulate import Traffic, draw_returns, replay
from serving.client.http import AGAIN
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Canary, Who
from serving.registry.rules import DeploymentRules
from serving.registry.trial_log import began_with, to_log
from serving.trial.assignment import arm_of, trial_key
from serving.trial.decision import Decision
from serving.trial.rules import TrialTerms, WeightStep
from srghn.config import CanaryParams
from srghn.quiet import be_quiet
from srghn.seeding import stream
from tests.serving.conftest import Home, maker, run_server

#: Seconds that the longest episode takes here, and after which an outcome that never comes is
#: missing: at least, and `CALM` times as long as the slowest of a round that each client played
#: just before. A busy machine must not make outcomes miss it.
LONG, DEADLINE, CALM = 0.6, 4.0, 4.0
#: Waits go by progress: they fail when nothing has moved for so many seconds, or when a trial goes
#: on for so many episodes.
STUCK, MOST = 600.0, 20_000
MAX_EPISODES = 3000
#: A busy machine syncs slowly; what is measured here is no latency.
PATIENT = {
    "SRGHN_LIMIT_POLL_SECONDS": "0.1",
    "SRGHN_LIMIT_START_SECONDS": "30",
    "SRGHN_LIMIT_LOCK_SECONDS": "30",
    "SRGHN_LIMIT_HEAD_SECONDS": "120",
    "SRGHN_LIMIT_BODY_SECONDS": "120",
}
OBSERVATION = [0.0, 0.0, 0.1, 0.0]
#: Scenario and the canary's effect.
KINDS = (("common-drop", 0.0), ("long-bad", -0.1), ("missing-random", 0.0))
NAMES = ("scenario", "effect", "trials", "promoted", "aborted", "expired", "median", "equal")


@dataclass
class Play:
    """One trial's traffic. `arm_of` is what no client could know: the arm by the trial's secret."""

    url: str
    ledger: Ledger
    canary: Canary
    traffic: Traffic
    seed: int
    numbers: Iterator[int] = field(default_factory=itertools.count)
    played: int = 0
    over: bool = False

    @property
    def scenario(self) -> Scenario:
        return self.traffic.scenario

    async def run(self, clients: int) -> None:
        """Play until the trial is over."""
        watching = asyncio.create_task(self._watch())
        await asyncio.gather(*(self._client(n) for n in range(clients)))
        await watching

    async def _watch(self) -> None:
        seen, moved = 0, time.monotonic()
        while not self.over:
            await asyncio.sleep(0.1)
            running = await asyncio.to_thread(self.ledger.canary)
            self.over = running is None or running.epoch != self.canary.epoch
            if self.played != seen:
                seen, moved = self.played, time.monotonic()
            assert time.monotonic() - moved < STUCK, f"nothing moved after {seen} episodes"
            assert seen < MOST, f"a trial goes on after {seen} episodes"

    async def _client(self, number: int) -> None:
        rng, line = stream(self.seed, "trial-client", number), Line(self.url)
        key = trial_key(self.ledger.secret(POLICY), POLICY, self.canary.epoch)
        while not self.over:
            n = next(self.numbers)
            name = f"t{self.canary.epoch}-{n}"
            acting = {"observation": OBSERVATION, "episode_id": name}
            said = await line.post("/v1/act", acting)
            arms = np.array([arm_of(key, name, self.canary.rules.weight)], np.int8)
            values = draw_returns(self.traffic, arms, np.array([n]), rng)
            await asyncio.sleep(self.scenario.duration(values, rng)[0] / LONGEST * LONG)
            said = await line.post("/v1/act", {**acting, "token": said["token"]})
            if not self.scenario.missing(values, rng)[0]:
                returned = 500 * float(values[0])
                post = {"return": returned, "terminated": True, "token": said["token"]}
                await line.post(f"/v1/episodes/{name}/outcome", post)
            self.played += 1
        await line.close()


async def slowest(url: str, clients: int, name: str) -> float:
    """Seconds of the slowest episode of a round: each client starts, goes on and posts once."""

    async def play(number: int) -> float:
        line, begun = Line(url), time.monotonic()
        acting = {"observation": OBSERVATION, "episode_id": f"{name}-{number}"}
        said = await line.post("/v1/act", acting)
        said = await line.post("/v1/act", {**acting, "token": said["token"]})
        post = {"return": 300.0, "terminated": True, "token": said["token"]}
        await line.post(f"/v1/episodes/{name}-{number}/outcome", post)
        await line.close()
        return time.monotonic() - begun

    return max(await asyncio.gather(*(play(number) for number in range(clients))))


class Line:
    """One connection, kept open: the clients must cost less than the server."""

    def __init__(self, url: str) -> None:
        self._host, self._port = url.removeprefix("http://").split(":")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, said: dict[str, Any]) -> dict[str, Any]:
        """The content of an answer; asks again while the server says 'not now'."""
        until = time.monotonic() + STUCK
        while True:
            status, content = await self._post(path, said)
            if status == 200:
                found: dict[str, Any] = json.loads(content)
                return found
            assert status in AGAIN, (path, status, content)
            assert time.monotonic() < until, (path, status, content)
            await asyncio.sleep(0.2)

    async def _post(self, path: str, said: dict[str, Any]) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, int(self._port))
        reader, writer = self._streams
        body = json.dumps(said).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
        return int(lines[0].split()[1]), await reader.readexactly(length)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()


@dataclass(frozen=True)
class Told:
    """What the server decided, and what the simulator's code makes of the same log."""

    server: dict[str, Any]
    simulator: Decision

    @property
    def equal(self) -> bool:
        """Every field of the decision: action, episodes, capitals, counts and words."""
        return self.server == json.loads(json.dumps(self.simulator.to_json()))


def one(home: Home, url: str, kind: tuple[str, float], seed: int, clients: int) -> Told:
    """One trial from its start to its end."""
    wait = CALM * asyncio.run(slowest(url, clients, f"round-{seed}")) + LONG
    rules = _rules(kind[0], max(DEADLINE, wait))
    home.ledger.set_deployment_rules(rules, who=Who("bench", f"{kind[0]} {seed}"))
    version = home.approved(bias=float(seed + 1))
    asked = CanaryParams(return_low=0, return_high=500)
    canary = home.steps.canary(version, params=asked)
    _wait(lambda: _follows(url, canary))
    traffic = Traffic(SCENARIOS[kind[0]], kind[1], 0.1, clients)
    asyncio.run(Play(url, home.ledger, canary, traffic, seed).run(clients))
    event = home.ledger.events(version, newest=True, limit=1)[0]
    if event.to_state == "STALE":  # what won is champion; its own event comes before
        raise AssertionError(f"trial {seed} went stale")
    server = home.ledger.evidence(str(event.evidence_sha256))
    found = home.ledger.resolved(POLICY, canary.epoch, 0, time.time() + 1e6)
    with home.ledger.database().read() as connection:
        rules = began_with(connection, canary.epoch)
    return Told(server, replay(to_log(found, rules), rules))


def _rules(scenario: str, deadline: float) -> DeploymentRules:
    missing = float(SCENARIOS[scenario].expect.get("missing", 0.0))
    terms = TrialTerms(
        steps=(WeightStep(weight=0.5, outcomes=20),),
        max_episodes=MAX_EPISODES,
        deadline=deadline if missing else STUCK,
        missing=missing,
    )
    return DeploymentRules(trial=terms)


def _follows(url: str, canary: Canary) -> bool:
    asked = {"observation": OBSERVATION}
    said = httpx.post(f"{url}/v1/act", json=asked, timeout=STUCK).json()
    return said["route"] == "trial"


def _wait(check: Callable[[], bool]) -> None:
    until = time.monotonic() + STUCK
    while not check():
        assert time.monotonic() < until, f"the server did not follow within {STUCK:g} seconds"
        time.sleep(0.05)


def measure(home: Home, url: str, number: int, trials: int, clients: int) -> dict[str, Any]:
    """A row of the table: the trials of one kind."""
    kind = KINDS[number]
    told = [one(home, url, kind, number * trials + n, clients) for n in range(trials)]
    actions = [trial.server["action"] for trial in told]
    values: tuple[Any, ...] = (
        *kind,
        trials,
        actions.count("promote"),
        actions.count("abort"),
        actions.count("expire"),
        float(np.median([trial.server["episodes"] for trial in told])),
        sum(trial.equal for trial in told),
    )
    return dict(zip(NAMES, values, strict=True))


def missing(table: Path | None) -> list[int]:
    """The kinds that have no row yet; makes the table where there is none."""
    if table is None:
        return list(range(len(KINDS)))
    if not table.exists():
        table.write_text(",".join(NAMES) + "\n", encoding="utf-8")
    with table.open(encoding="utf-8", newline="") as file:
        done = {row["scenario"] for row in csv.DictReader(file)}
    return [number for number, (name, _) in enumerate(KINDS) if name not in done]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20, help="of each kind")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--table", type=Path, help="a CSV file to which missing rows are added")
    chosen = parser.parse_args()
    be_quiet()
    equal = True
    with tempfile.TemporaryDirectory(prefix="srghn-trials-http-") as folder:
        home = Home(Path(folder) / "home", maker(Path(folder)))
        home.first()
        with run_server(home, environment=PATIENT) as (url, _):
            for number in missing(chosen.table):
                row = measure(home, url, number, chosen.trials, chosen.clients)
                print(row, flush=True)  # noqa: T201
                equal = equal and row["equal"] == row["trials"]
                if chosen.table:
                    with chosen.table.open("a", encoding="utf-8", newline="") as file:
                        csv.DictWriter(file, NAMES).writerow(row)
        home.ledger.close()
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
