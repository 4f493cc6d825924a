"""A home may be moved or copied: it keeps its reports, and a copy leaves the original alone."""

from __future__ import annotations

import gc
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs.workspaces import Workspace, create_workspace
from pipelines.services.doctor import examine
from pipelines.services.prefect_server import running_server
from pipelines.services.up import _start_worker
from pipelines.tracking.delivery import deliver
from pipelines.versions.release import Release
from serving.settings import Settings
from srghn.parents import PARENT, mark
from tests import old_homes
from tests.conftest import Srghn
from tests.pipelines.conftest import Home, home_at

STRANGE = "a home, moved to Zürich"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def locations(settings: Settings) -> set[str]:
    """Every artifact location in the embedded MLflow."""
    with closing(sqlite3.connect(settings.mlflow / "mlflow.db")) as database:
        rows = database.execute(
            "SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs"
        )
        return {str(row[0]) for row in rows}


def test_a_copy_shows_and_changes_only_itself(home: Home, tmp_path: Path, srghn: Srghn) -> None:
    first = home.settings
    assert deliver(home.workspace, first).failure is None
    gc.collect()  # a ledger that closes takes its side files with it
    shutil.copytree(first.home, tmp_path / STRANGE)
    second = home_at(tmp_path / STRANGE)
    before = contents(first.home)

    done = srghn("sync", "--json", env={"SRGHN_HOME": str(second.home)})
    assert json.loads(done.stdout)["runs"] == 1, done.stdout
    noted = json.loads((second.workspaces / "tiny" / "tracking.json").read_text())
    assert noted["finished"]
    root = (second.home / "mlflow" / "artifacts").as_uri()
    assert all(each.startswith(root) for each in locations(second))
    kept = second.mlflow / "artifacts" / noted["mlflow_run_id"] / "artifacts"
    assert {"candidate", "report", "generations.csv"} <= {p.name for p in kept.iterdir()}

    page = Release(second).report_page(home.version)
    assert page is not None
    assert page.is_relative_to(second.home)
    assert "reports" in {f.what for f in examine(second) if f.ok}
    assert contents(first.home) == before


def test_a_stage_of_a_moved_home_uses_its_own_cache(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    old = create_workspace(home_at(tmp_path / "old"), "one", tiny())
    written = old.dvc_config.read_text().replace("../../../", f"{tmp_path}/old/")
    old.dvc_config.write_text(written)  # as 0.2 wrote it
    shutil.copytree(tmp_path / "old", tmp_path / STRANGE)
    settings = home_at(tmp_path / STRANGE)
    Workspace(settings.workspaces / "one").run_stage("pin", settings)
    assert list((settings.home / "dvc-cache" / "files").rglob("*"))
    assert not (tmp_path / "old" / "dvc-cache").exists()
    assert str(tmp_path) not in Workspace(settings.workspaces / "one").dvc_config.read_text()


def test_reports_of_an_old_home_are_found_where_it_is_now(srghn_here: Any, tmp_path: Path) -> None:
    home = old_homes.unpack("home-ledger", tmp_path)
    environment = {"SRGHN_HOME": str(home)}
    assert srghn_here("ledger", "upgrade", env=environment).returncode == 0
    shown = srghn_here("report", "3", env=environment)
    assert shown.returncode == 0, shown.stderr
    page = Path(shown.stdout.strip())
    assert page.is_file()
    assert page.is_relative_to(home)

    page.write_text("<p>changed</p>")
    findings = json.loads(srghn_here("doctor", "--json", env=environment).stdout)
    (reports,) = (f for f in findings if f["what"] == "reports")
    assert not reports["ok"]
    assert "the report of version 3" in reports["found"]
    assert "version 2" not in reports["found"]


def test_a_ledger_keeps_no_path_of_a_home(home: Home) -> None:
    with closing(sqlite3.connect(home.settings.home / "ledger.db")) as database:
        dump = "\n".join(database.iterdump())
    assert str(home.settings.home.parent) not in dump
    assert "reports/" in dump


@pytest.fixture
def answering() -> Iterator[str]:
    """Some server that answers 200 to everything, as another home's Prefect server would."""

    class Yes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Yes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def test_a_copy_does_not_talk_to_the_originals_prefect_server(
    answering: str, tmp_path: Path
) -> None:
    first, second = home_at(tmp_path / "first"), home_at(tmp_path / "second")
    note = first.home / "prefect" / "server.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"api_url": answering, "process": mark(), "home": str(first.home)}))
    shutil.copytree(first.home, second.home)
    assert running_server(first) == answering
    assert running_server(second) is None

    note.write_text(note.read_text().replace(mark(), "999999999:1"))
    assert running_server(first) is None  # its server is gone, whoever answers there now


def test_a_worker_is_told_where_the_home_is(
    answering: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Prefect's worker runs each flow in a temporary folder of its own."""
    seen: dict[str, str] = {}
    monkeypatch.chdir(tmp_path)
    started = lambda command, log, environment: seen.update(environment)  # noqa: E731
    monkeypatch.setattr("pipelines.services.up.start_service", started)
    monkeypatch.setenv("SRGHN_HOME", "here")
    settings = Settings(database_url="sqlite:///ledger.db", prefect_api_url=answering).resolved()
    _start_worker(settings, answering, None)
    assert seen["SRGHN_HOME"] == str(tmp_path / "here")
    assert seen[PARENT] == mark()  # the runs it starts end with it
    assert seen["SRGHN_DATABASE_URL"] == f"sqlite:///{tmp_path}/ledger.db"
    assert seen["SRGHN_MLFLOW_URI"] == f"sqlite:///{tmp_path}/here/mlflow/mlflow.db"
