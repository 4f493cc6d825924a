"""`srghn up`: Prefect server, worker and HTTP server together; `srghn worker`: the worker alone.

Both run the clock of the schedules beside the worker. What dies is started again; nothing that dies
stops the HTTP server.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NoReturn

from pipelines.progress import console, spinner
from pipelines.runs.workspaces import require_writable
from pipelines.services.prefect_server import (
    note_server,
    prefect_environment,
    running_server,
    server_command,
    use_server,
)
from pipelines.services.processes import (
    PAGES,
    START_SECONDS,
    child_environment,
    free_port,
    start_service,
    stop_service,
    wait_until_up,
)
from pipelines.services.supervisor import LOOK_SECONDS, Part, Supervisor, is_up
from pipelines.versions.release import Release
from serving.settings import Settings, url_of
from srghn.errors import ConfigError, first_line
from srghn.files import lock

logger = logging.getLogger(__name__)
HTTP, SERVER, WORK = "HTTP server", "Prefect server", "worker"
#: How often schedules are looked at, runs whose process is gone are looked for, what the ledger
#: decided is shown in MLflow's registry, and what a watch's alarm asks for is done.
TICK_SECONDS, RECOVER_SECONDS, MIRROR_SECONDS, ADAPT_SECONDS = 2.0, 15.0, 5.0, 5.0


@contextmanager
def http_server(settings: Settings, port: int) -> Iterator[str]:
    """The HTTP server as a child process; yields its URL once it answers, and stops it after."""
    log = settings.home / "serve.log"
    process = _start_http(settings, port)
    url = url_of(settings.host, port)
    try:
        wait_until_up("the HTTP server", f"{url}/health/live", process, log)
        yield url
    finally:
        stop_service(process)


def run_all(settings: Settings) -> NoReturn:
    """Everything on this machine until Ctrl-C or SIGTERM; each part that dies is started again."""
    with _alone(settings), _supervised(settings) as parts:
        port = settings.port or free_port(settings.host)
        url, log = url_of(settings.host, port), settings.home / "serve.log"
        http = parts.add(Part(HTTP, lambda: _start_http(settings, port), log))
        with spinner("starting the Prefect server"):
            api_url = _prefect_part(settings, parts)
        wait_until_up("the HTTP server", f"{url}/health/live", http, log)
        console.print(f"policies   {url}")
        console.print(f"schedules  {api_url.removesuffix('/api')}")
        _keep_working(settings, parts, api_url, url)


def run_worker(settings: Settings) -> NoReturn:
    """The worker and the clock of the schedules, until stopped."""
    url = running_server(settings)
    if url is None:
        raise ConfigError(
            "no Prefect server is running: start everything with srghn up, or set "
            "SRGHN_PREFECT_API_URL to the server's address, such as http://127.0.0.1:4200/api"
        )
    with _alone(settings), _supervised(settings) as parts:
        use_server(settings, url)
        _keep_working(settings, parts, url, None)


def worker_is_up(settings: Settings) -> bool:
    """Whether a worker of this home is working on this machine."""
    return is_up(settings.home / "services.json", WORK)


def _keep_working(
    settings: Settings, parts: Supervisor, api_url: str, pages: str | None
) -> NoReturn:
    start = lambda: _start_worker(settings, api_url, pages)  # noqa: E731
    before = lambda: _look_after_runs(settings)  # noqa: E731
    parts.add_due(Part(WORK, start, settings.home / "worker.log", before))
    console.print("Ctrl-C stops everything.")
    for name, work, seconds in (
        ("clock", _tick, TICK_SECONDS),
        ("recovery", _recover, RECOVER_SECONDS),
        ("mirror", _mirror, MIRROR_SECONDS),
        ("adaptation", _adapt, ADAPT_SECONDS),
    ):
        beat = threading.Thread(
            target=_again, args=(name, work, settings, seconds), name=name, daemon=True
        )
        beat.start()
    while True:
        parts.watch()
        time.sleep(LOOK_SECONDS)


def _again(name: str, work: Callable[[Settings], None], settings: Settings, pause: float) -> None:
    """Do something again and again; what it fails of is reported once, until it works again."""
    told = ""
    while True:
        try:
            work(settings)
            told = ""
        except Exception as error:  # noqa: BLE001  servers go and come: it is tried again
            said = first_line(error)
            if said != told:
                _say(f"the {name} waits: {said}")
            told = said
        time.sleep(pause)


def _tick(settings: Settings) -> None:
    from pipelines.runs.clock import tick
    from pipelines.runs.deployments import Prefect

    with Prefect(settings) as prefect:
        tick(settings, prefect, _say)


def _recover(settings: Settings) -> None:
    from pipelines.runs.clock import recover
    from pipelines.runs.deployments import Prefect

    with Prefect(settings) as prefect:
        recover(settings, prefect, _say, no_worker=False)


def _mirror(settings: Settings) -> None:
    release = Release(settings)
    if release.ledger.pending():  # the HTTP server moves champions and has no MLflow
        release.deliver()


def _adapt(settings: Settings) -> None:
    from pipelines.adapt.baseline import keep
    from pipelines.adapt.beat import beat
    from pipelines.adapt.launch import to_workers
    from pipelines.runs.schedules import apart

    def tell(work: Callable[[], list[str]]) -> None:
        for line in work():
            _say(line)

    apart((partial(beat, settings, to_workers(settings)), partial(keep, settings)), tell)


def _look_after_runs(settings: Settings) -> None:
    """Bring Prefect's deployments up to date, and resume runs whose process is gone.

    No worker may be up.
    """
    from pipelines.runs.clock import recover
    from pipelines.runs.deployments import Prefect

    try:
        with Prefect(settings) as prefect:
            try:
                prefect.sync()
            except Exception as error:  # noqa: BLE001  it is no reason to resume nothing
                logger.warning("schedules could not be shown in Prefect: %s", error)
            recover(settings, prefect, _say, no_worker=True)
    except Exception as error:  # noqa: BLE001  the clock tries again; the worker starts anyway
        logger.warning("runs could not be looked after: %s", error)


def _prefect_part(settings: Settings, parts: Supervisor) -> str:
    """The API URL of the Prefect server: the one in settings, or one that is kept up here."""
    url = running_server(settings) if settings.prefect_api_url else None
    if url is None:
        port = free_port()
        url = f"http://127.0.0.1:{port}/api"
        log = settings.home / "prefect" / "server.log"

        def start() -> subprocess.Popen[bytes]:
            process = start_service(server_command(port), log, child_environment(settings))
            try:
                note_server(settings, url, process.pid)
            except OSError:  # no command would find it, and it would hold its port
                stop_service(process)
                raise
            return process

        use_server(settings, url)
        process = parts.add(Part(SERVER, start, log))
        deadline = settings.prefect_seconds or START_SECONDS
        wait_until_up("the Prefect server", f"{url}/health", process, log, deadline)
    use_server(settings, url)
    return url


def _start_http(settings: Settings, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "srghn.start", "serve", "--port", str(port)]
    return start_service(command, settings.home / "serve.log", child_environment(settings))


def _start_worker(settings: Settings, api_url: str, pages: str | None) -> subprocess.Popen[bytes]:
    shown = {PAGES: pages} if pages else {}
    environment = {**prefect_environment(settings, api_url), "PREFECT_LOGGING_LEVEL": "INFO"}
    from pipelines.runs.pools import pool_of, queues_of

    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
    queues = [word for queue in queues_of(settings) for word in ("--work-queue", queue)]
    return start_service(
        [*command, "--pool", pool_of(settings), *queues],
        settings.home / "worker.log",
        child_environment(settings, {**environment, **shown}),
    )


@contextmanager
def _supervised(settings: Settings) -> Iterator[Supervisor]:
    parts = Supervisor(settings.home / "services.json", _say)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how systemd and scripts stop it
    try:
        yield parts
    finally:
        parts.stop()


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One worker with its clock a home; raises `ConfigError` while there is another."""
    require_writable(settings.home)
    with (settings.home / "up.lock").open("w", encoding="utf-8") as file:
        if not lock(file):
            raise ConfigError(
                f"srghn up or srghn worker is running already in {settings.home}; stop it first, "
                "or set SRGHN_HOME to another folder"
            )
        yield


def _say(text: str) -> None:
    with suppress(OSError):  # the disk that it goes to may be full, which must stop nothing
        console.print(text, markup=False, soft_wrap=True)
