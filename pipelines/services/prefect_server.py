"""The Prefect server a command talks to: the one in settings, one already up, or one of its own.

A standing server, not Prefect's ephemeral one, which loses task runs when a process ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from pipelines.services.processes import (
    START_SECONDS,
    child_environment,
    free_port,
    require_answer,
    start_service,
    stop_service,
    wait_until_up,
)
from serving.settings import Settings
from srghn.files import atomic_write
from srghn.parents import alive, mark

_VACUUM = "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"


def prefect_environment(settings: Settings, api_url: str) -> dict[str, str]:
    """What Prefect reads: its home inside ours, which server, and quiet logs."""
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_API_URL": api_url,
        # A failure is reported once, by the command: Prefect would print its traceback too.
        "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "CRITICAL"),
        "PREFECT_CLI_PROMPT": "false",
        # An embedded server forgets runs that ended 90 days ago; else its database only grows.
        _VACUUM: os.environ.get(_VACUUM, "true"),
    }


def running_server(settings: Settings) -> str | None:
    """API URL of the configured server, or of the embedded one if it answers now.

    Raises `ServiceError` where one is configured and does not answer.
    """
    import httpx

    if settings.prefect_api_url:
        name, setting = "Prefect server", "SRGHN_PREFECT_API_URL"
        patience = settings.prefect_seconds
        require_answer(name, settings.prefect_api_url, setting, patience)
        return settings.prefect_api_url
    note = _note(settings)
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        here = os.path.samefile(noted["home"], settings.home)  # by whatever path or link
        if not here or not alive(str(noted["process"])):
            return None  # of the home that this one is a copy of, or of a server that is gone
        url = str(noted["api_url"])
        if httpx.get(f"{url}/health", timeout=2.0, trust_env=False).status_code == 200:
            return url
    except (OSError, ValueError, KeyError, httpx.HTTPError):
        return None
    return None


@contextmanager
def prefect_server(
    settings: Settings, waiting: AbstractContextManager[None] | None = None
) -> Iterator[str]:
    """A server's API URL, with this process's environment set to use it.

    Starts an embedded one on a free loopback port unless one is up, and stops what it started.
    `waiting` (a spinner) is entered while it starts. Raises `ServiceError` if it does not come up.
    """
    url = running_server(settings)
    if url is not None:
        use_server(settings, url)
        yield url
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    use_server(settings, url)
    log = settings.home / "prefect" / "server.log"
    process = start_service(server_command(port), log, child_environment(settings))
    try:
        with waiting or nullcontext():
            deadline = settings.prefect_seconds or START_SECONDS
            wait_until_up("the Prefect server", f"{url}/health", process, log, deadline)
        note_server(settings, url, process.pid)
        yield url
    finally:
        if _noted(settings).get("api_url") == url:  # or srghn up took its place meanwhile
            _note(settings).unlink(missing_ok=True)
        stop_service(process)


def use_server(settings: Settings, url: str) -> None:
    """Make this process, and what it starts, use a Prefect server."""
    os.environ.update(prefect_environment(settings, url))


def server_command(port: int) -> list[str]:
    command = [sys.executable, "-m", "prefect", "server", "start"]
    return [*command, "--host", "127.0.0.1", "--port", str(port)]


def note_server(settings: Settings, url: str, pid: int) -> None:
    """Let other commands of this home find the server."""
    noted = {"api_url": url, "process": mark(pid), "home": str(settings.home)}
    atomic_write(_note(settings), json.dumps(noted))


def _noted(settings: Settings) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(_note(settings).read_text(encoding="utf-8"))
        return found
    return {}


def _note(settings: Settings) -> Path:
    return settings.home / "prefect" / "server.json"
