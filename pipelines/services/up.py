"""`srghn up`: Prefect server, worker and HTTP server together; `srghn worker`: the worker alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from pipelines.progress import console, spinner
from pipelines.runs.workspaces import require_writable
from pipelines.services.prefect_server import prefect_environment, prefect_server
from pipelines.services.processes import (
    child_environment,
    free_port,
    start_service,
    stop_service,
    wait_until_up,
)
from pipelines.versions.release import Release
from serving.settings import Settings, url_of
from srghn.errors import ConfigError, ServiceError

POOL = "srghn"
#: How often what the ledger decided is shown in MLflow's registry.
MIRROR_SECONDS = 5.0


@contextmanager
def http_server(settings: Settings, port: int) -> Iterator[str]:
    """The HTTP server as a child process; yields its URL once it answers, and stops it after."""
    log = settings.home / "serve.log"
    command = [sys.executable, "-m", "serving", "--host", settings.host, "--port", str(port)]
    process = start_service(command, log, child_environment(settings))
    url = url_of(settings.host, port)
    try:
        wait_until_up("the HTTP server", f"{url}/health/live", process, log)
        yield url
    finally:
        stop_service(process)


def run_all(settings: Settings) -> None:
    """Everything on this machine until Ctrl-C or SIGTERM, or until one part ends: all end then."""
    require_writable(settings.home)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how systemd and scripts stop it
    with (
        prefect_server(settings, spinner("starting the Prefect server")) as api_url,
        _worker(settings, api_url) as worker,
        http_server(settings, settings.port or free_port(settings.host)) as url,
    ):
        console.print(f"policies   {url}")
        console.print(f"schedules  {api_url.removesuffix('/api')}")
        console.print("Ctrl-C stops everything.")
        release = Release(settings)
        while worker.poll() is None:
            if release.ledger.pending():  # the server moves champions and has no MLflow
                release.mirror().deliver()
            time.sleep(MIRROR_SECONDS)
        log = settings.home / "worker.log"
        raise ServiceError(f"the worker ended with {worker.returncode}; see {log}")


def run_worker(settings: Settings) -> NoReturn:
    """The worker alone, until it is stopped."""
    from pipelines.services.prefect_server import running_server

    url = running_server(settings)
    if url is None:
        raise ConfigError(
            "no Prefect server is up: start everything with srghn up, or set "
            "SRGHN_PREFECT_API_URL to the server's address, such as http://127.0.0.1:4200/api"
        )
    command = _worker_command()  # takes this process's place, so signals reach it
    environment = {**child_environment(settings), **prefect_environment(settings, url)}
    os.execve(command[0], command, environment)


@contextmanager
def _worker(settings: Settings, api_url: str) -> Iterator[subprocess.Popen[Any]]:
    environment = child_environment(
        settings, {**prefect_environment(settings, api_url), "PREFECT_LOGGING_LEVEL": "INFO"}
    )
    process = start_service(_worker_command(), settings.home / "worker.log", environment)
    try:
        yield process
    finally:
        stop_service(process)


def _worker_command() -> list[str]:
    return [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
