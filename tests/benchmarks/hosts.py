"""Two hosts with real servers: one schedules a run; the other takes it, dies, and goes on.

`make hosts`. PostgreSQL, an S3-compatible server (moto), a Prefect server and `srghn worker`, all
on loopback; the hosts are two homes with no file in common. Shown: the run is carried out in the
second home alone; its worker is killed before the run's end, and though the first host's worker is
up meanwhile, the run goes on in the second home under its own id; the first host reads the report
and the candidate from the store.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipelines.runs import schedules
from pipelines.runs.prepare import resolved
from pipelines.runs.schedules import Schedule
from pipelines.services.prefect_server import server_command, use_server
from pipelines.services.processes import (
    child_environment,
    free_port,
    start_service,
    stop_service,
    wait_until_up,
)
from pipelines.versions.release import Release
from serving import runs
from serving.settings import Settings
from tests import s3
from tests.serving.registry import postgres

SMALL = (
    "evolution.episodes=1", "evaluate.cell_episodes=0", "gate.perturbations=[]",
    "gate.episodes=20", "gate.cell_episodes=20",
)  # fmt: skip
#: Its worker dies after a quarter of them or later.
GENERATIONS = 60
PATIENCE = 300.0


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="hosts-") as folder, ExitStack() as stack:
        first, second = _hosts(Path(folder), stack)
        run = _launch(first)
        say(f"the first host schedules run {run}")
        with _worker(second) as worker:
            _until("the run is half done", lambda: _generations(second, run) >= GENERATIONS // 4)
            assert not (first.workspaces / run).exists()
            say(f"the second host's worker takes it; killed after {_generations(second, run)}")
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        with _worker(first) as own:
            _until("the first worker is up", lambda: _started(first))
            with _worker(second):
                _until("the run ends", lambda: _over(second, run))
            assert own.poll() is None
        trace = runs.find(second.home, run)
        assert trace is not None
        assert (trace.state, trace.resumed) == ("finished", 1), trace
        assert not (first.workspaces / run).exists()
        say(f"it went on there from its checkpoint: {trace.message}")
        _read(first, trace.version or 0)
    say("hosts: all as it should be")
    return 0


def _hosts(folder: Path, stack: ExitStack) -> tuple[Settings, Settings]:
    """Both homes, and what they share, up until the stack is closed."""
    stack.enter_context(s3.server())
    url = postgres.new_database(stack.enter_context(postgres.cluster()))
    api = stack.enter_context(_prefect(folder))
    first, second = (
        Settings(
            home=folder / name,
            database_url=url,
            store_url=f"s3://{s3.BUCKET}/hosts",
            prefect_api_url=api,
            prefect_seconds=60,
            work_pool="fleet",
        ).resolved()
        for name in ("first", "second")
    )
    return first, second


@contextmanager
def _prefect(folder: Path) -> Iterator[str]:
    settings, port = Settings(home=folder / "server").resolved(), free_port()
    url, log = f"http://127.0.0.1:{port}/api", settings.home / "prefect" / "server.log"
    use_server(settings, url)
    process = start_service(server_command(port), log, child_environment(settings))
    try:
        wait_until_up("the Prefect server", f"{url}/health", process, log)
        yield url
    finally:
        stop_service(process)


def _launch(host: Settings) -> str:
    """What the clock of a host does when a schedule is due; returns the run's id."""
    from pipelines.runs.deployments import Prefect

    params = resolved("cartpole-switch", (*SMALL, f"evolution.generations={GENERATIONS}"))
    schedule = Schedule("nightly", "0 3 * * *", "UTC", params.model_dump(mode="json"), "small")
    added = schedules.add(host, replace(schedule, approve="manual"))
    firing = datetime.now(UTC).replace(microsecond=0)
    with Prefect(host) as prefect:
        prefect.sync()
        prefect.launch(added, firing)
    return added.run_id(firing)


@contextmanager
def _worker(host: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """`srghn worker` of a host, in a process group of its own."""
    log = host.home / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = child_environment(host)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "srghn.start", "worker"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def _started(host: Settings) -> bool:
    log = host.home / "worker.log"
    return log.exists() and "started" in log.read_text(encoding="utf-8")


def _generations(host: Settings, run: str) -> int:
    names = [path.name for path in (host.workspaces / run / "data/run/checkpoints").glob("[0-9]*")]
    return int(max(names, default="0"))


def _over(host: Settings, run: str) -> bool:
    trace = runs.find(host.home, run)
    return trace is not None and trace.over


def _read(host: Settings, version: int) -> None:
    """What another host judged: its verdict, its report and its candidate, as they are here."""
    release = Release(host)
    found = release.ledger.version(version)
    say(f"version {version} is {found.state}; the first host has {release.report_page(version)}")
    release.store.load(found.digest).check_golden()
    release.ledger.close()


def _until(what: str, come: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not come():
        assert time.monotonic() < end, f"{what}: not in {PATIENCE:g} s"
        time.sleep(0.2)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
