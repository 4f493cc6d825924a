"""`srghn up` in a home of its own beside a real MLflow server, and clients that never stop asking.

What a client sees while parts are killed is written down: a connection that broke is tried again
with the same request, and anything that is no 200 is a fault.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import numpy as np

from pipelines.services.processes import free_port
from serving import runs
from srghn.envs import EnvVersion

#: Only what hangs is given up: every wait is for something to have happened.
DEADLINE_SECONDS = 1800.0
SUPERVISED = ("HTTP server", "Prefect server", "worker")
#: What Prefect's client takes as a reason to ask again.
BUSY = (408, 429, 502, 503)
GOING = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED")
FLOW = "evolve-and-gate"


def wait_until(what: str, come: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> float:
    """Wait for it; returns the seconds it took. Raises `TimeoutError`."""
    begun = time.monotonic()
    while not come():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"no {what} in {seconds:g} s")
        time.sleep(0.1)
    return time.monotonic() - begun


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass
class Site:
    """The processes of one home on fixed ports. Parts may be killed by name, with SIGKILL."""

    folder: Path
    port: int = field(default_factory=free_port)
    mlflow_port: int = field(default_factory=free_port)
    up: subprocess.Popen[bytes] | None = None
    mlflow: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def prefect_url(self) -> str:
        noted = json.loads((self.home / "prefect" / "server.json").read_text())
        return str(noted["api_url"])

    def environment(self) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith(("SRGHN_", "PREFECT_"))}
        said = {"SRGHN_HOME": str(self.home), "SRGHN_MLFLOW_URI": self.mlflow_url}
        return {**own, **said, "OMP_NUM_THREADS": "1"}

    def srghn(self, *words: str) -> Any:
        """What a command prints with `--json`; raises `RuntimeError` with its last line."""
        command = [sys.executable, "-m", "pipelines.cli", *words, "--json"]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if not done.stdout:
            said = done.stderr.strip().splitlines()[-3:]
            raise RuntimeError(f"srghn {' '.join(words)} ended with {done.returncode}: {said}")
        return json.loads(done.stdout)

    def start_mlflow(self) -> None:
        data = self.folder / "mlflow"
        data.mkdir(exist_ok=True)
        self.mlflow = self._start(
            "mlflow", sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self.mlflow_port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{data / 'mlflow.db'}",
            "--artifacts-destination", str(data / "artifacts"),
        )  # fmt: skip
        wait_until("MLflow server", lambda: answers(f"{self.mlflow_url}/health"))

    def start_up(self) -> None:
        """`srghn up`, as systemd would start it; waits until all its parts are there, and new."""
        command, before = [sys.executable, "-m", "pipelines.cli", "up"], set(self.parts().values())
        self.up = self._start("up", *command, "--port", str(self.port))

        def is_up() -> bool:
            parts = self.parts()
            there = set(SUPERVISED) <= set(parts) and not before & set(parts.values())
            return there and all(self._answers(part) for part in SUPERVISED)

        wait_until("parts of srghn up", is_up)

    @property
    def ready(self) -> str:
        return f"{self.url}/health/ready"

    def parts(self) -> dict[str, int]:
        """The processes that `srghn up` keeps up, by name."""
        with suppress(OSError, ValueError):
            noted = json.loads((self.home / "services.json").read_text())
            return {name: int(mark.partition(":")[0]) for name, mark in noted.items()}
        return {}

    def stop(self) -> None:
        if self.up is not None and self.up.poll() is None:
            self.up.terminate()
            self.up.wait(60)
        self._kill_mlflow()

    # -------------------------------------------------------------------------------- kills

    def kill(self, part: str, run_id: str) -> float:
        """Kill a part with SIGKILL; returns the seconds until it was back (0: nobody starts it)."""
        if part == "engine":
            trace = runs.find(self.home, run_id)
            assert trace is not None
            os.kill(int(trace.process.partition(":")[0]), signal.SIGKILL)
            return 0.0
        if part == "MLflow server":
            self._kill_mlflow()
            time.sleep(5.0)  # a delivery is tried and fails meanwhile
            self.start_mlflow()
            return 0.0
        if part == "supervisor":
            assert self.up is not None
            self.up.kill()
            self.up.wait()
            begun = time.monotonic()
            self.start_up()
            return time.monotonic() - begun
        before = self.parts()[part]
        os.kill(before, signal.SIGKILL)
        return wait_until(part, lambda: self.parts()[part] != before and self._answers(part))

    def _answers(self, part: str) -> bool:
        urls = {"HTTP server": self.ready, "Prefect server": f"{self.prefect_url}/health"}
        return part not in urls or answers(urls[part])

    def _kill_mlflow(self) -> None:
        if self.mlflow is not None and self.mlflow.poll() is None:
            os.killpg(self.mlflow.pid, signal.SIGKILL)  # it has a process for each of its workers
            self.mlflow.wait()

    def _start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    # ------------------------------------------------------------------------------- Prefect

    def launch(self, run_id: str, **parameters: Any) -> str:
        """A flow run of the deployment `run`, as Prefect's form makes it; returns its id."""
        found = self._prefect("GET", f"/deployments/name/{FLOW}/run")
        body = {"name": run_id, "parameters": {"run_id": run_id, **parameters}, "tags": ["srghn"]}
        body["idempotency_key"] = uuid4().hex  # a busy server may have made it and not answered
        made = self._prefect("POST", f"/deployments/{found['id']}/create_flow_run", body)
        return str(made["id"])

    def cancel(self, flow_run: str) -> None:
        """What the button Cancel does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self._prefect("POST", f"/flow_runs/{flow_run}/set_state", {"state": state})

    def state(self, flow_run: str) -> str:
        return str(self._prefect("GET", f"/flow_runs/{flow_run}")["state"]["type"])

    def going(self) -> list[str]:
        """Names of flow runs that are not over, one that was only launched among them."""
        query = {"flow_runs": {"state": {"type": {"any_": list(GOING)}}}}
        return [run["name"] for run in self._prefect("POST", "/flow_runs/filter", query)]

    def _prefect(self, verb: str, path: str, body: Any = None) -> Any:
        """The API's answer; asked again while the server is busy or away, as Prefect's own client.

        Raises `TimeoutError`, and `httpx.HTTPStatusError` for a refusal.
        """
        found: list[httpx.Response] = []

        def asked() -> bool:
            with suppress(httpx.TransportError):
                url = self.prefect_url + path
                found[:] = [httpx.request(verb, url, json=body, timeout=30.0, trust_env=False)]
                return found[0].status_code not in BUSY
            return False

        wait_until(f"answer to {verb} {path}", asked)
        return found[0].raise_for_status().json()

    # ---------------------------------------------------------------------------------- runs

    def generations(self, run_id: str) -> int:
        """Generations in the newest checkpoint of a run."""
        folder = self.home / "workspaces" / run_id / "data" / "run" / "checkpoints"
        names = [path.name for path in folder.glob("0*") if path.name.isdecimal()]
        return max(map(int, names), default=0)

    def over(self, run_id: str) -> bool:
        trace = runs.find(self.home, run_id)
        return trace is not None and trace.over


@dataclass
class Seen:
    """What one client saw: requests answered, and what went wrong, each with its moment."""

    requests: int = 0
    episodes: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    broken: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


class Clients:
    """Clients that play whole episodes one after another, until the block ends."""

    def __init__(self, site: Site, world: EnvVersion, count: int = 3) -> None:
        self.seen = [Seen() for _ in range(count)]
        self._site, self._world, self._over = site, world, threading.Event()
        self._threads = [
            threading.Thread(target=self._live, args=(number,), name=f"client-{number}")
            for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def broken(self, since: float) -> int:
        """Connections that broke since a moment."""
        return sum(moment >= since for seen in self.seen for moment in seen.broken)

    def faults(self) -> list[str]:
        return [fault for seen in self.seen for fault in seen.faults]

    def _live(self, number: int) -> None:
        env, count = self._world.make("flipped"), 0  # as the champion was judged
        while not self._over.is_set():
            try:
                self._episode(number, f"client-{number}-{count}", env, 1000 * number + count)
            except Exception as error:  # noqa: BLE001  told at the end, and the client goes on
                self.seen[number].faults.append(repr(error))
                self._over.wait(1.0)
            count += 1
        env.close()

    def _episode(self, number: int, name: str, env: Any, seed: int) -> None:
        observation, _ = env.reset(seed=seed)
        total, over, body = 0.0, False, dict[str, Any](episode_id=name)
        while not over:
            body["observation"] = np.asarray(observation).tolist()
            said = self._post(number, "/v1/act", body)
            body["token"] = said["token"]
            observation, reward, terminated, truncated, _ = env.step(said["action"])
            total, over = total + float(reward), terminated or truncated
            self._over.wait(0.05)
        ended = {"return": total, "terminated": bool(terminated), "token": said["token"]}
        said = self._post(number, f"/v1/episodes/{name}/outcome", ended)
        if said.get("recorded", True):  # else the answer itself says that it is not kept
            self.seen[number].episodes.append(name)
        else:
            self.seen[number].unrecorded.append(name)

    def _post(self, number: int, path: str, body: Any) -> Any:
        """The answer; a broken connection is tried again, until the server is back."""
        seen, begun, again = self.seen[number], time.monotonic(), False
        while True:
            try:
                status, said = _post(self._site.url, path, body)
                break
            except (OSError, http.client.HTTPException):
                seen.broken.append(time.monotonic())
                again = True
                if time.monotonic() - begun > 120:
                    raise
                time.sleep(0.2)
        seen.requests += 1
        if not again:
            seen.slowest = max(seen.slowest, time.monotonic() - begun)
        if status == 409 and again:  # the outcome was written before the connection broke
            return said
        if status != 200:
            raise RuntimeError(f"{path} answered {status}: {said}")
        return said


def _post(url: str, path: str, body: Any) -> tuple[int, Any]:
    parts = urlsplit(url)
    line = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    try:
        line.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = line.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        line.close()
