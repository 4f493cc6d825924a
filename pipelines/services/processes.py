"""Child processes that never outlive the command that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srghn.errors import ServiceError
from srghn.parents import PARENT, mark

if TYPE_CHECKING:
    from serving.settings import Settings

#: Where users' own worlds and networks are imported from; the folder a command was given in.
IMPORTS = "SRGHN_IMPORT_PATH"
#: Tells a stage that its command ignores Ctrl-C. No setting, so it does not begin like one.
IGNORES_STOP = "_SRGHN_IGNORES_SIGINT"
#: Tells a flow run the address of the HTTP server that stands beside its worker.
PAGES = "SRGHN_PAGES_URL"
_PR_SET_PDEATHSIG = 1
#: How long a server that is started here, and one that a setting names, may take to answer, and
#: one that is asked to end.
START_SECONDS, ANSWER_SECONDS, STOP_SECONDS = 120.0, 5.0, 15.0


def child_environment(settings: Settings, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, all settings said outright, wherever the child will run.

    Its Python is first on PATH, for DVC's `python -m ...`. PYTHONPATH names the same folders from
    whatever folder the child works in.
    """
    environment = dict(os.environ)
    folder = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([folder, environment.get("PATH", "")])
    if paths := environment.get("PYTHONPATH"):
        found = map(os.path.abspath, paths.split(os.pathsep))  # an empty one is this folder, too
        environment["PYTHONPATH"] = os.pathsep.join(found)
    environment[PARENT] = mark()
    return {**environment, **settings.environment(), **(extra or {})}


def extend_import_path() -> None:
    """Let import paths such as `my_world:World` name modules of the folder a command was given in.

    Appended, so that nothing there takes the place of an installed package; children inherit it.
    """
    folder = os.environ.setdefault(IMPORTS, os.getcwd())
    if folder not in sys.path:
        sys.path.append(folder)


def start_service(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a server, its output to `log`. Call from the main thread.

    On Linux the kernel ends it when this thread dies, even of SIGKILL; elsewhere `stop_service`
    must be reached.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            preexec_fn=partial(_end_with_parent, os.getpid()) if sys.platform == "linux" else None,
        )


def _end_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before it was asked for
        os._exit(3)


def stop_service(process: subprocess.Popen[Any]) -> None:
    """Ask a server to end, and end it if it does not within `STOP_SECONDS`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def wait_until_up(
    name: str, url: str, process: subprocess.Popen[Any], log: Path, deadline: float = START_SECONDS
) -> None:
    """Wait until `url` answers 200; raises `ServiceError` with the log's last line otherwise."""
    import httpx

    end = time.monotonic() + deadline
    # One client: each reads all certificates anew, on the core that the server needs to start.
    with httpx.Client(timeout=2.0, trust_env=False) as client:
        while time.monotonic() < end:
            if process.poll() is not None:
                raise ServiceError(f"{name} ended at once: {_last_line(log)} (whole log: {log})")
            try:
                if client.get(url).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
    raise ServiceError(f"{name} did not answer at {url} in {deadline:.0f} s; its log is {log}")


def require_answer(name: str, url: str, setting: str, patience: float | None = None) -> None:
    """Raise `ServiceError` in one line unless the server that a setting names answers by HTTP.

    With `patience` it is asked again for so many seconds; without, once.
    """
    end = time.monotonic() + (patience or 0.0)
    while found := _silence(url.rstrip("/") + "/health", patience or ANSWER_SECONDS):
        if time.monotonic() + 0.5 > end:
            waited = f" (waited {patience:g} s)" if patience else ""
            raise ServiceError(
                f"no {name} answers at {url}: {found}{waited}; start it, or unset {setting} to use "
                "an embedded one"
            )
        time.sleep(0.5)


def _silence(url: str, timeout: float) -> str:
    """Why a server does not answer; empty if it does."""
    import httpx

    try:
        status = httpx.get(url, timeout=timeout).status_code
    except httpx.InvalidURL as error:
        raise ServiceError(f"{url} is no address: {error}") from error
    except httpx.HTTPError as error:
        return str(error) or type(error).__name__
    return f"it answered {status}" if status >= 500 else ""


def _last_line(log: Path) -> str:
    lines = [
        line
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    return lines[-1].strip() if lines else "it printed nothing"
