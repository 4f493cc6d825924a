"""A server, or commands, killed at a named boundary of a write or at a random moment.

Both run in a process forked from one that has imported everything; `Boundaries` kills the child in
the middle of a write. What a client was answered, and what a command printed, is written down, and
must be in the ledger afterwards (`Yard.check`).
"""

from __future__ import annotations

import http.client
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sqlite3
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from serving.control.release import CANARY
from serving.limits import Limits
from serving.registry.database import Database
from serving.registry.ledger import Ledger
from serving.registry.mirror import Mirror
from serving.registry.records import Who
from serving.registry.rules import DeploymentRules, HoldbackTerms
from serving.serve import _work
from serving.settings import Settings
from serving.tokens import Tokens
from srghn.config import CanaryParams
from tests.serving.conftest import Home, maker
from tests.serving.registry.killing import Boundaries, Yard

_fork = multiprocessing.get_context("fork")
OBSERVATION = [0.0, 0.0, 0.1, 0.0]
ANN = Who("ann", "because")
#: A busy machine syncs slowly, and a client must be answered before the next step.
LIMITS = Limits(poll_seconds=0.05, start_seconds=20, lock_seconds=20, shadow_rate=1000)


@dataclass(frozen=True)
class Stand:
    """A home as it is before each kill: a champion, a version on trial, one approved."""

    template: Path
    token: str
    approved: int

    @classmethod
    def make(cls, folder: Path) -> Stand:
        home = Home(folder / "template", maker(folder))
        home.first()
        rules = DeploymentRules(holdback=HoldbackTerms(share=0.5))
        home.ledger.set_deployment_rules(rules, who=ANN)
        home.second(bias=1.0)
        home.ledger.end_holdback(who=ANN)
        home.steps.canary(home.approved(bias=2.0), weight=0.5)
        digest = home.candidate(bias=3.0)
        canary = {CANARY: CanaryParams(return_low=0.0, return_high=500.0).model_dump(mode="json")}
        manifest = {**home.store.load(digest).manifest, **canary}
        approved = home.steps.approved(digest, manifest=manifest)
        database = Database(home.settings.database_url, home=home.settings.home)
        token = Tokens(database).add("root", ["admin", "review", "infer", "outcome"])
        database.close()
        home.ledger.close()
        return cls(folder / "template", token, approved)

    def fresh(self, folder: Path) -> Yard:
        """A copy to be killed in."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.template, folder)
        return Yard(folder)


def settings_of(yard: Yard) -> Settings:
    return Settings(home=yard.folder).resolved()


# ------------------------------------------------------------------------------ server


def kill_server(
    stand: Stand, yard: Yard, fatal: int, kind: str = "", after: float | None = None
) -> bool:
    """Serve clients and an operator until the server dies, and look at what it left.

    It dies at the `fatal`-th boundary of a kind, or after so many seconds.

    Returns whether it was killed; what was acknowledged is in the ledger, or an assertion fails.
    """
    bound = socket.create_server(("127.0.0.1", 0))
    port = int(bound.getsockname()[1])

    def child() -> None:
        os.environ["SRGHN_HOME"] = str(yard.folder)
        Boundaries(fatal, yard.folder / "boundaries", kind).install()
        _work(settings_of(yard), LIMITS, bound, lambda: None)

    process = _fork.Process(target=child)
    process.start()
    bound.close()
    timer = threading.Timer(after, process.kill) if after is not None else None
    if timer is not None:
        timer.start()
    with suppress(OSError, http.client.HTTPException):  # the server is gone
        Operator(stand, yard, port).work()
    if process.is_alive() and process.exitcode is None:
        process.terminate()
    process.join(120)
    if timer is not None:
        timer.cancel()
    yard.check()
    return process.exitcode == -signal.SIGKILL


@dataclass
class Operator:
    """Plays episodes and takes an operator's steps, and writes down what was acknowledged."""

    stand: Stand
    yard: Yard
    port: int

    def work(self) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self._keys = itertools.count()
        self._episodes(6)
        self._step("/v1/canary/weight", weight=0.4)
        self._step(f"/v1/versions/{self.stand.approved}/shadow")
        self._episodes(6)
        self._until_copied(12)
        self._step("/v1/canary/status", status="held")
        self._step("/v1/canary/status", status="running")
        self._step(f"/v1/versions/{self.stand.approved}/shadow/stop")
        self._step("/v1/canary/abort")
        self._step("/v1/mode", mode="flipped")  # which makes the approval stale
        self._step("/v1/rollback")
        self._episodes(4, first=12)
        self._line.close()

    def _episodes(self, count: int, first: int = 0) -> None:
        for n in range(count):
            name = f"{os.getpid()}-{first}-{n}-{next(self._keys)}"
            said = self._post("/v1/act", observation=OBSERVATION, episode_id=name)
            if "recorded" not in said:
                self.yard.say(episode=name)
            value = float(n)
            post = {"return": value, "terminated": True, "token": said["token"]}
            self._post(f"/v1/episodes/{name}/outcome", **post)
            self.yard.say(episode=name, ret=value)

    def _until_copied(self, wanted: int) -> None:
        """Play on until so many copies of requests are compared: their process begins late."""
        deadline = time.monotonic() + 120
        with closing(sqlite3.connect(self.yard.folder / "ledger.db", timeout=20)) as ledger:
            query = "SELECT coalesce(sum(copies), 0) FROM compared"
            while ledger.execute(query).fetchone()[0] < wanted and time.monotonic() < deadline:
                self._episodes(1, first=20)
                time.sleep(0.1)

    def _step(self, path: str, **said: Any) -> None:
        key = f"k{next(self._keys)}-{path.rsplit('/', 1)[1]}"
        champion = self._ask("GET", "/v1/champion", None)
        headers = {"idempotency-key": key, "if-match": str(champion["generation"])}
        self._ask("POST", path, {"reason": "because", **said}, headers)
        self.yard.say(key=key)

    def _post(self, path: str, **said: Any) -> dict[str, Any]:
        return self._ask("POST", path, said)

    def _ask(
        self, verb: str, path: str, said: Any, more: dict[str, str] | None = None
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.stand.token}", **(more or {})}
        body = None if said is None else json.dumps(said)
        self._line.request(verb, path, body, headers)
        answer = self._line.getresponse()
        content = answer.read()
        assert answer.status == 200, (path, content)
        found: dict[str, Any] = json.loads(content)
        return found


def server_boundaries(stand: Stand, yard: Yard) -> list[str]:
    """The boundaries that a server passes while it is worked with, and nobody kills it."""
    (yard.folder / "boundaries").unlink(missing_ok=True)
    assert not kill_server(stand, yard, 0)
    return (yard.folder / "boundaries").read_text().splitlines()


# ---------------------------------------------------------------------------- commands


def commands(stand: Stand) -> list[list[str]]:
    """What an operator types, each ending in a step of the ledger."""
    shadow = ["canary", "shadow", str(stand.approved)]
    return [
        ["deploy", "rules", "set", "guards.latency=3"],
        shadow,
        [*shadow, "--stop"],
        ["canary", "weight", "0.3"],
        ["canary", "pause"],
        ["canary", "resume"],
        ["canary", "abort", str(stand.approved - 1)],
        ["canary", "start", str(stand.approved)],
        ["mode", "set", "flipped"],  # which ends the trial: its version is stale
        ["rollback"],
    ]


def run_commands(stand: Stand, yard: Yard) -> None:
    """In the child alone: one command after the other, each said aloud when it has ended well."""
    from pipelines.cli import app
    from pipelines.versions.release import Release

    os.environ["SRGHN_HOME"] = str(yard.folder)
    os.environ["SRGHN_MLFLOW_URI"] = ""
    # its candidates were evolved in no world that could be pinned again; MLflow is no part of this
    Release.require_world = lambda self, version: None  # type: ignore[method-assign]
    Mirror.deliver = lambda self: None  # type: ignore[method-assign,assignment,return-value]
    Release.mirror = lambda self: Mirror(self.ledger, "")  # type: ignore[method-assign]
    for number, words in enumerate(commands(stand)):
        done = CliRunner().invoke(app, [*words, "--reason", f"command {number}"])
        assert done.exit_code == 0, (words, done.output, done.exception)
        ledger = Ledger(yard.url)
        yard.say(event=ledger.events(newest=True, limit=1)[0].hash)
        ledger.close()


def kill_command(stand: Stand, yard: Yard, fatal: int) -> bool:
    """Type commands until one is killed at a boundary; whether one was."""
    killed = yard.run(lambda: run_commands(stand, yard), fatal) == -signal.SIGKILL
    yard.check()
    return killed


def after(seed: int, seconds: float) -> float:
    """A random moment of a server's work."""
    return random.Random(seed).uniform(0.0, seconds)
