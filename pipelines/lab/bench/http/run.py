"""Measures the server on a copy of a home, and the servers it is compared with."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from pipelines.lab.bench.http import clients
from pipelines.lab.bench.http.contestants import save_for_mlflow
from pipelines.lab.bench.http.load import Client, Rate, children_of, load, resident_mib
from pipelines.stdout import stdout
from serving.registry.artefacts import ArtefactStore
from serving.registry.ledger import Ledger
from serving.settings import Settings
from srghn.errors import ServiceError

CONNECTIONS = (1, 16)
BARE, CONSTANT, MLFLOW = "bare ASGI, JSON and MLP", "FastAPI constant", "MLflow scoring server"


@dataclass(frozen=True)
class Server:
    """A running server: its URL, its processes, and when it was ready."""

    url: str
    pids: list[int]
    ready_seconds: float

    def workers(self) -> list[int]:
        """The processes that answer."""
        return [pid for parent in self.pids for pid in (children_of(parent) or [parent])]

    def stay_on(self, core: int) -> None:
        """Keep all threads that answer on one core."""
        for pid in self.workers():
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), [core])


@dataclass(frozen=True)
class Work:
    """A name, the requests of each connection, and the target share of the bare function."""

    name: str
    client: Callable[[], Client]
    aim: float | None = None


def works(size: int) -> list[Work]:
    """The requests to measure; an observation has `size` numbers."""
    return [
        Work("/v1/act", lambda: clients.act(size), 0.75),
        Work("episodes of 200 steps", lambda: clients.Episodes(size, 200), 0.60),
        Work("episodes of 10 steps", lambda: clients.Episodes(size, 10), 0.35),
        Work("/v2 infer, JSON", lambda: clients.infer(size, 1, False), 0.60),
        Work("/v2 infer, binary", lambda: clients.infer(size, 1, True), 0.65),
        Work("batch of 256, JSON", lambda: clients.batch(size), 0.30),
        Work("batch of 256, /v2 binary", lambda: clients.infer(size, 256, True), 0.55),
    ]


def bench_http(
    settings: Settings, *, rounds: int = 3, seconds: float = 2.0, apart: bool = False
) -> dict[str, Any]:
    """Requests per CPU-second of each work, as shares of the bare function just before it.

    `apart`: servers and load generator get a core each, as if the clients were elsewhere. Raises
    `ServiceError` if the home has no champion, or if there is no second core. Nothing is written
    into the home; its champion is served from a copy.
    """
    cores = sorted(os.sched_getaffinity(0))
    if apart and len(cores) < 2:
        raise ServiceError("--apart needs two cores, got one; leave it out")
    with tempfile.TemporaryDirectory(prefix="srghn-bench-") as folder:
        home = Path(folder) / "home"
        model, size = copy_home(settings, home)
        saved = Path(folder) / "mlflow"
        save_for_mlflow(model, saved)
        with contextlib.ExitStack() as stack:

            def start(*command: str) -> Server:
                return stack.enter_context(run([sys.executable, "-m", *command]))

            module = "pipelines.lab.bench.http.contestants"
            ours = stack.enter_context(serving(home))
            servers = {
                BARE: start(module, "bare", str(model)),
                CONSTANT: start(module, "constant"),
                MLFLOW: start(module, "mlflow", str(saved)),
            }
            if apart:
                for server in (ours, *servers.values()):
                    server.stay_on(cores[0])
                os.sched_setaffinity(0, cores[-1:])
            try:
                rows = list(_rows(ours, servers, size, rounds, seconds))
            finally:
                os.sched_setaffinity(0, cores)
            memory = resident_mib(ours.workers()[0])
        two = _two_workers(home, size, seconds)
    return {
        "rows": rows,
        "ready_seconds": round(ours.ready_seconds, 2),
        "resident_mib": round(memory, 1),
        "two_workers": two,
    }


def _rows(
    ours: Server, servers: dict[str, Server], size: int, rounds: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """A row for each work and number of connections.

    The bare function is measured anew just before each of them, because the speed of a machine
    changes within seconds.
    """
    ask, scoring = clients.act(size), clients.scoring(size)
    chosen: dict[str, tuple[Server, Callable[[], Client], float | None]] = {
        BARE: (servers[BARE], lambda: ask, None),
        CONSTANT: (servers[CONSTANT], lambda: ask, None),
        MLFLOW: (servers[MLFLOW], lambda: scoring, None),
        **{work.name: (ours, work.client, work.aim) for work in works(size)},
    }
    for connections in CONNECTIONS:
        found: dict[str, list[tuple[Rate, Rate]]] = {}
        for _ in range(rounds):
            for name, (server, client, _) in chosen.items():
                bare = _measure(servers[BARE], [ask] * connections, seconds)
                asking = [client() for _ in range(connections)]
                pair = bare, _measure(server, asking, seconds)
                found.setdefault(name, []).append(pair)
        constant = _share(found[CONSTANT])
        for name, pairs in found.items():
            yield _row(name, connections, pairs, constant, chosen[name][2])


def _measure(server: Server, asking: list[Client], seconds: float) -> Rate:
    return load(server.url, server.workers(), asking, seconds)


def _share(pairs: list[tuple[Rate, Rate]]) -> float:
    """The median share of the bare function's requests per CPU-second."""
    return statistics.median(rate.per_cpu_second / bare.per_cpu_second for bare, rate in pairs)


def _row(
    name: str,
    connections: int,
    pairs: list[tuple[Rate, Rate]],
    constant: float,
    aim: float | None,
) -> dict[str, Any]:
    """The median over rounds of each figure; `pairs` are the bare function's rate and this one."""
    rates, share = [rate for _, rate in pairs], _share(pairs)
    return {
        "work": name,
        "connections": connections,
        "per_cpu_second": round(statistics.median(rate.per_cpu_second for rate in rates)),
        "of_bare": round(share, 3),
        "of_constant": round(share / constant, 3),
        "aim_of_bare": aim,
        "p50_ms": round(statistics.median(rate.p50_ms for rate in rates), 3),
        "p99_ms": round(statistics.median(rate.p99_ms for rate in rates), 3),
    }


def _two_workers(home: Path, size: int, seconds: float) -> float:
    """Requests per CPU-second with two workers, as a share of those with one."""
    rates = []
    for workers in ("1", "2", "1"):
        with serving(home, "--workers", workers) as server:
            rates.append(_measure(server, [clients.act(size)] * 16, seconds).per_cpu_second)
    return round(rates[1] / statistics.mean((rates[0], rates[2])), 3)


def copy_home(settings: Settings, home: Path) -> tuple[Path, int]:
    """Copy the champion's files; returns its policy file and the size of its observations."""
    if not settings.database_url.startswith("sqlite:///"):
        raise ServiceError("srghn bench serve copies a SQLite ledger; unset SRGHN_DATABASE_URL")
    source = Path(settings.database_url.removeprefix("sqlite:///"))
    ledger = Ledger(settings.database_url)
    champion = ledger.champion()
    ledger.close()
    if champion is None:
        raise ServiceError("there is no champion to measure; make one with: srghn demo")
    home.mkdir(parents=True)
    with sqlite3.connect(source) as old, sqlite3.connect(home / "ledger.db") as new:
        old.backup(new)
    new.close()
    old.close()
    store = ArtefactStore(home / "artefacts")
    folder = ArtefactStore(settings.home / "artefacts").load(champion.digest).path
    shutil.copytree(folder, store.folder / champion.digest)
    candidate = store.load(champion.digest)
    return candidate.path / "policy.onnx", candidate.policy().observation_size


@contextlib.contextmanager
def serving(home: Path, *options: str) -> Iterator[Server]:
    """Run `srghn serve` for a home on a free port, until the block ends."""
    command = [sys.executable, "-m", "srghn.start", "serve", "--port", "0", *options]
    with run(command, {"SRGHN_HOME": str(home)}) as server:
        yield server


@contextlib.contextmanager
def run(command: list[str], variables: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a server by its command until the block ends; it is ready when it answers."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SRGHN_")}
    environment |= variables or {}
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        _await(url, process)
        yield Server(url, [process.pid], time.monotonic() - begun)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _await(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    with httpx.Client() as client:  # one: each reads all certificates anew
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get(f"{url}/health/ready").status_code != 503:
                    return
            time.sleep(0.01)
    raise ServiceError(f"{' '.join(process.args)} was not ready in a minute")  # type: ignore[arg-type]


def show(found: dict[str, Any], as_json: bool) -> None:
    """Print the table, or all figures as JSON."""
    console = Console(file=stdout(), highlight=False, width=100)
    if as_json:
        console.print_json(json.dumps(found))
        return
    table = Table(title="requests per CPU-second of the server, one worker")
    for heading in ("connections", "work", "per CPU-second", "of bare", "aim", "of constant"):
        table.add_column(heading, justify="left" if heading == "work" else "right")
    table.add_column("p99 ms", justify="right")
    for row in found["rows"]:
        aim = "" if row["aim_of_bare"] is None else f"{row['aim_of_bare']:.2f}"
        table.add_row(
            str(row["connections"]),
            row["work"],
            f"{row['per_cpu_second']:,}",
            f"{row['of_bare']:.2f}",
            aim,
            f"{row['of_constant']:.2f}",
            f"{row['p99_ms']:.2f}",
        )
    console.print(table)
    console.print(
        f"ready after {found['ready_seconds']} s; {found['resident_mib']} MiB resident; two "
        f"workers answer {found['two_workers']} of one's requests per CPU-second"
    )
