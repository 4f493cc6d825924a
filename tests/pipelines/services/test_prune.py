"""`srghn prune` removes what nothing needs, and never what the ledger cites."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.services import doctor
from pipelines.services.doctor import Finding
from pipelines.services.prune import DAY, human, plan, prune
from pipelines.tracking.delivery import deliver
from pipelines.versions.release import Release
from serving.registry.records import Who
from serving.settings import Settings
from tests.conftest import Srghn
from tests.pipelines.conftest import Home

BY = Who("cli:operator", "enough seen")


def names(home: Home, days: float = 0.0) -> set[tuple[str, str]]:
    return {(item.kind, item.name) for item in plan(home.settings, days)}


def cached(home: Home, name: str, content: bytes = b"x") -> Path:
    path = home.settings.home / "dvc-cache" / "files" / "md5" / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def lock(*names: str) -> str:
    outs = [{"path": f"data/{n}", "hash": "md5", "md5": n} for n in names]
    return json.dumps({"schema": "2.0", "stages": {"evolve": {"cmd": "x", "outs": outs}}})


def rejected(home: Home) -> Home:
    """Its version is rejected, and MLflow has all of its run."""
    path = home.workspace.root / "tracking.json"
    if not path.exists():
        path.write_text(json.dumps({"mlflow_run_id": None, "generations": 7, "finished": True}))
    release = home.release
    release.ledger.reject(home.version, who=BY)
    release.ledger.close()
    return home


def test_a_run_whose_version_may_go_on_stays(home: Home) -> None:
    assert names(home) == set()
    home.release.approve(home.version, "cli:reviewer", "read it")
    assert names(home) == set()


def test_a_run_that_is_over_goes_and_what_the_ledger_cites_stays(home: Home) -> None:
    rejected(home)
    version = home.release.ledger.version(1)
    stray = {kind: home.settings.home / f"{kind}s" / ("0" * 64) for kind in ("report", "artefact")}
    for folder in stray.values():
        folder.mkdir(parents=True)
        (folder / "file").write_text("left by a killed process")
    items = plan(home.settings, 0.0)
    assert {(i.kind, i.name) for i in items} == {
        ("workspace", "tiny"),
        ("report", "0" * 12),
        ("artefact", "0" * 12),
    }
    assert {i.why for i in items if i.kind == "workspace"} == {"its run is over: REJECTED"}
    prune(home.settings, items)
    assert not home.workspace.root.exists()
    assert not any(folder.exists() for folder in stray.values())
    page = home.release.report_page(1)
    assert page is not None
    assert page.is_file()
    Release(home.settings).store.load(version.digest)
    assert names(home) == set()


def test_a_report_of_an_earlier_attempt_is_cited_too(home: Home) -> None:
    ledger = home.release.ledger
    kept = home.settings.reports / ("a" * 64)
    kept.mkdir()
    ledger.note("tried", {"report_digest": "a" * 64}, who=BY)
    assert names(home) == set()


@pytest.mark.parametrize("reason", ["young", "busy", "undelivered", "never delivered"])
def test_a_run_that_is_over_may_still_be_needed(home: Home, reason: str) -> None:
    rejected(home)
    assert ("workspace", "tiny") in names(home)
    if reason == "young":
        assert names(home, days=1.0) == set()
        long_ago = time.time() - 2 * DAY
        for path in (home.workspace.root, *home.workspace.root.rglob("*")):
            os.utime(path, (long_ago, long_ago))
        assert ("workspace", "tiny") in names(home, days=1.0)
    elif reason == "busy":
        with home.workspace.held():
            assert names(home) == set()
    elif reason == "never delivered":
        (home.workspace.root / "tracking.json").unlink()
        assert names(home) == set()
        home.workspace.root.rename(home.settings.workspaces / "recall-2")  # has no run of its own
        (home.settings.workspaces / "recall-2" / "outcome.json").write_text("{}")
        assert ("workspace", "recall-2") in names(home)
    else:
        note = {"mlflow_run_id": "r", "generations": 3, "finished": False, "failure": None}
        (home.workspace.root / "tracking.json").write_text(json.dumps(note))
        assert names(home) == set()


def test_a_run_that_began_again_meanwhile_is_left_alone(home: Home) -> None:
    rejected(home)
    items = plan(home.settings, 0.0)
    with home.workspace.held():
        prune(home.settings, items)
    assert home.workspace.params_file.exists()


def test_the_cache_keeps_what_a_run_that_stays_names(home: Home) -> None:
    named, inside, folder, free = "11" + "a" * 30, "22" + "b" * 30, "33" + "c" * 30, "44" + "d" * 30
    inner = json.dumps([{"md5": inside, "relpath": "run.json"}]).encode()
    for name in (named, inside, free):
        cached(home, name)
    cached(home, folder + ".dir", inner)
    (home.workspace.root / "dvc.lock").write_text(lock(named, folder + ".dir"))
    for place, about in (("aa", named), ("bb", free)):
        run = home.settings.home / "dvc-cache" / "runs" / place / ("e" * 60) / ("f" * 60)
        run.parent.mkdir(parents=True)
        run.write_text(f"cmd: x\nouts:\n- path: p\n  hash: md5\n  md5: {about}\n")
    items = plan(home.settings, 0.0)
    assert [(i.kind, i.name) for i in items] == [("cache", free), ("cache", "f" * 12)]
    assert [i.path for i in items if i.path and "runs" in i.path.parts and "bb" in i.path.parts]

    rejected(home)  # and with the run goes all that it alone named
    gone = {name for kind, name in names(home) if kind == "cache"}
    assert {named, inside, folder + ".dir", free} <= gone


def test_the_mlflow_run_of_a_run_that_goes_is_removed(home: Home, tmp_path: Path) -> None:
    delivery = deliver(home.workspace, home.settings, finished=True)
    run = str(delivery.mlflow_run_id)
    rejected(home)
    items = plan(home.settings, 0.0)
    assert ("MLflow run", run) in {(i.kind, i.name) for i in items}
    prune(home.settings, items)
    client = MlflowClient(home.settings.mlflow_uri)
    experiment = client.get_experiment_by_name("srghn")
    assert client.search_runs([experiment.experiment_id], run_view_type=3) == []
    assert not (home.settings.mlflow / "artifacts" / run).exists()


def test_the_command_shows_first_and_removes_when_told(srghn_here: Srghn, home: Home) -> None:
    rejected(home)
    environment = {"SRGHN_HOME": str(home.settings.home)}
    shown = srghn_here("prune", "--days", "0", env=environment)
    assert shown.stdout.split("\t")[:2] == ["workspace", "tiny"]
    assert "could go: srghn prune --days 0 --yes" in shown.stderr
    assert home.workspace.root.exists()
    said: dict[str, Any] = json.loads(
        srghn_here("prune", "--days", "0", "--yes", "--json", env=environment).stdout
    )
    assert said["removed"]
    assert said["bytes"] == sum(item["bytes"] for item in said["items"]) > 0
    assert not home.workspace.root.exists()
    assert shutil.disk_usage(home.settings.home)


def test_a_broken_mlflow_is_one_line_and_nothing_goes(home: Home, srghn_here: Srghn) -> None:
    note = {"mlflow_run_id": "r", "generations": 7, "finished": True, "failure": None}
    (home.workspace.root / "tracking.json").write_text(json.dumps(note))
    rejected(home)
    home.settings.mlflow.mkdir()
    (home.settings.mlflow / "mlflow.db").write_bytes(bytes(range(256)) * 20)
    place = {"SRGHN_HOME": str(home.settings.home)}
    done = srghn_here("prune", "--days", "0", "--yes", "--json", env=place)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "file is not a database" in done.stderr
    assert home.workspace.params_file.exists()


def test_it_says_that_nothing_is_old_enough(home: Home, srghn_here: Srghn) -> None:
    rejected(home)
    place = {"SRGHN_HOME": str(home.settings.home)}
    for words in ((), ("--yes",)):
        said = srghn_here("prune", *words, env=place).stderr
        assert said == "nothing that can go is older than 30 days; try --days 1\n"


def test_doctor_shows_what_a_look_failed_of(monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    def fail(settings: Settings) -> Finding:
        raise RuntimeError("of MLflow's own\nand more")

    monkeypatch.setattr(doctor, "_mlflow", fail)
    (found,) = (each for each in doctor.examine(home.settings) if each.what == "MLflow")
    assert (found.ok, found.found) == (False, "RuntimeError: of MLflow's own")


def test_doctor_shows_what_grows(srghn_here: Srghn, home: Home) -> None:
    environment = {"SRGHN_HOME": str(home.settings.home)}
    findings = json.loads(srghn_here("doctor", "--json", env=environment).stdout)
    (disk,) = (f for f in findings if f["what"] == "disk")
    assert "workspaces " in disk["found"]
    assert "srghn prune" in disk["found"]


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (1536, "2 KiB"), (5 * 2**20, "5 MiB"), (3 * 2**30, "3.0 GiB")]
)
def test_bytes_are_shown_for_people(count: int, said: str) -> None:
    assert human(count) == said
