"""How Prefect servers are asked: no longer than the settings say; what an embedded one keeps."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.services.prefect_server import note_server, prefect_environment, running_server
from pipelines.services.processes import free_port
from serving.settings import Settings
from srghn.errors import ServiceError


class Yes(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_prefect_server_that_comes_late_is_waited_for() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    impatient = Settings(prefect_api_url=url)
    with pytest.raises(ServiceError, match=f"no Prefect server answers at {url}"):
        running_server(impatient)
    with pytest.raises(ServiceError, match=r"\(waited 0\.2 s\); start it, or unset"):
        running_server(impatient.model_copy(update={"prefect_seconds": 0.2}))
    with coming(port):
        assert running_server(impatient.model_copy(update={"prefect_seconds": 60.0})) == url


def test_a_server_is_found_by_each_path_of_its_home_and_not_by_a_copy(tmp_path: Path) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), Yes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/api"
    for name in ("home", "copy"):
        (tmp_path / name / "prefect").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "home")
    note_server(Settings(home=tmp_path / "home"), url, os.getpid())
    note = Path("prefect", "server.json")
    (tmp_path / "copy" / note).write_bytes((tmp_path / "home" / note).read_bytes())
    found = [running_server(Settings(home=tmp_path / n)) for n in ("home", "link", "copy")]
    server.shutdown()
    server.server_close()
    assert found == [url, url, None]


@contextmanager
def coming(port: int) -> Iterator[None]:
    """A server that begins to listen half a second from now."""
    servers: list[http.server.HTTPServer] = []

    def start() -> None:
        time.sleep(0.5)
        servers.append(http.server.HTTPServer(("127.0.0.1", port), Yes))
        servers[0].serve_forever()

    thread = threading.Thread(target=start)
    thread.start()
    try:
        yield
    finally:
        while not servers:
            time.sleep(0.05)
        servers[0].shutdown()
        servers[0].server_close()
        thread.join()


def test_an_embedded_server_forgets_old_runs_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"
    monkeypatch.delenv(name, raising=False)
    assert prefect_environment(Settings(), "http://127.0.0.1:1/api")[name] == "true"
    monkeypatch.setenv(name, "events")
    assert prefect_environment(Settings(), "http://127.0.0.1:1/api")[name] == "events"
