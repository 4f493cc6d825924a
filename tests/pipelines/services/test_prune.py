"""`srghn prune` removes what nothing needs, and never what the ledger cites."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._tracking_service.client import TrackingServiceClient

from pipelines.commands import home as commands
from pipelines.runs.workspaces import Workspace
from pipelines.services import doctor
from pipelines.services import prune as pruning
from pipelines.services.doctor import Finding
from pipelines.services.prune import DAY, human, plan, prune
from pipelines.tracking.delivery import deliver
from pipelines.tracking.mlflow_run import connect
from pipelines.versions import judge
from pipelines.versions.release import Release
from serving.registry.records import Who
from serving.settings import Settings
from srghn.errors import ServiceError
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


def age(folder: Path, days: float = 40) -> Path:
    """Date a folder and all its files long ago."""
    then = time.time() - days * DAY
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))
    return folder


def uncited(home: Home, tmp_path: Path) -> tuple[Path, Path]:
    """A candidate that was stored long ago and never registered, and where it lies in the store."""
    source = Path(shutil.copytree(home.workspace.candidate, tmp_path / "candidate"))
    manifest = json.loads((source / "manifest.json").read_bytes())
    (source / "manifest.json").write_text(json.dumps({**manifest, "run_id": "cut off"}))
    return source, age(home.settings.artefacts / home.release.store.put(source))


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
    assert names(home) == {("workspace", "tiny")}  # or by one that is still at work
    for folder in stray.values():
        age(folder)
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
    age(kept)
    ledger.note("tried", {"report_digest": "a" * 64}, who=BY)
    assert names(home) == set()


@pytest.mark.parametrize("reason", ["young", "busy", "undelivered", "never delivered"])
def test_a_run_that_is_over_may_still_be_needed(home: Home, reason: str) -> None:
    rejected(home)
    assert ("workspace", "tiny") in names(home)
    if reason == "young":
        assert names(home, days=1.0) == set()
        age(home.workspace.root, days=2)
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


@pytest.mark.parametrize("how", ["at work", "written"])
def test_a_run_that_began_again_meanwhile_is_left_alone(home: Home, how: str) -> None:
    """With all that only it names: its objects in the cache, and its run in MLflow."""
    deliver(home.workspace, home.settings, finished=True)
    rejected(home)
    (home.workspace.root / "dvc.lock").write_text(lock("11" + "a" * 30))
    kept, free = cached(home, "11" + "a" * 30), cached(home, "22" + "b" * 30)
    items = plan(home.settings, 0.0)
    assert {item.kind for item in items} == {"workspace", "cache", "MLflow run"}
    if how == "at work":
        with home.workspace.held():
            gone = prune(home.settings, items)
    else:
        home.workspace.log.write_text("it goes on")
        gone = prune(home.settings, items)
    assert [item.path for item in gone] == [free]
    assert (home.workspace.params_file.exists(), kept.exists(), free.exists()) == (
        True,
        True,
        False,
    )
    (run,) = (item.name for item in items if item.kind == "MLflow run")
    assert connect(home.settings).get_run(run).info.status == "FINISHED"


def test_what_the_ledger_before_a_restore_cites_stays_while_that_is_kept(
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is kept to be put back, and without its candidates it would serve nothing."""
    _, stored = uncited(home, tmp_path)
    report = age(Path(shutil.copytree(home.workspace.report, home.settings.reports / ("a" * 64))))
    work = home.settings.workspaces / "undone"
    (work / "data").mkdir(parents=True)
    (work / "outcome.json").write_text("{}")
    age(work)
    found = {stored, report, work}
    assert {item.path for item in plan(home.settings, 30.0)} == found
    ledger = home.settings.home / "ledger.db"
    for days, left in ((35, set()), (50, found)):
        moment = datetime.now(UTC) - timedelta(days=days)
        kept = ledger.with_name(f"{ledger.name}.before-{moment:%Y%m%dT%H%M%S.%fZ}")
        kept.touch()
        assert {item.path for item in plan(home.settings, 30.0)} == left
        monkeypatch.setenv("SRGHN_HOME", str(home.settings.home))
        commands.prune()
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith(f"what was stored until {moment:%Y-%m-%d %H:%M} UTC stays while")
        assert told.endswith(f": delete {kept} if nobody will put it back")
        kept.unlink()


def test_what_is_stored_again_meanwhile_stays(home: Home, tmp_path: Path) -> None:
    """A run was killed before it registered its candidate, and goes on while a person reads."""
    source, stored = uncited(home, tmp_path)
    report = age(Path(shutil.copytree(home.workspace.report, home.settings.reports / ("a" * 64))))
    items = plan(home.settings, 30.0)
    assert {item.path for item in items} == {stored, report}
    home.release.store.put(source)
    home.release.ledger.note("judged", {"report_digest": "a" * 64}, who=BY)
    assert prune(home.settings, items) == []
    assert stored.is_dir()
    assert report.is_dir()


def test_what_is_stored_at_the_moment_of_removal_is_there_afterwards(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, stored = uncited(home, tmp_path)
    items, changed, looks = plan(home.settings, 30.0), pruning._changed, 0
    storing = threading.Thread(target=home.release.store.put, args=(source,))

    def looked(path: Path) -> float:
        nonlocal looks
        found, looks = changed(path), looks + (path == stored)
        if path == stored and looks == 2:  # the last look before the removal
            storing.start()
            storing.join(0.5)  # it waits for the removal
        return found

    monkeypatch.setattr(pruning, "_changed", looked)
    prune(home.settings, items)
    storing.join()
    assert home.release.store.load(stored.name).digest == stored.name


def test_a_report_is_young_when_it_is_kept_however_old_the_files_are(home: Home) -> None:
    """A run that was cut off before it kept its report goes on after a month."""
    age(home.workspace.report)
    kept = home.settings.reports / ("b" * 64)
    judge._copy_whole(home.workspace.report, kept)
    assert names(home, 30.0) == set()


def test_many_at_once_do_not_meet_the_limit_of_open_files(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "HELD_AT_ONCE", 10)
    for number in range(150):
        workspace = Workspace(home.settings.workspaces / f"failed-{number}")
        workspace.outcome.parent.mkdir(parents=True)
        workspace.outcome.write_text("{}")
        age(workspace.root)
    items, limits = plan(home.settings, 30), resource.getrlimit(resource.RLIMIT_NOFILE)
    room = len(os.listdir("/dev/fd")) + 75
    resource.setrlimit(resource.RLIMIT_NOFILE, (room, limits[1]))
    try:
        assert len(prune(home.settings, items)) == 150
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_removal_that_was_killed_is_finished_by_the_next_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a workspace stayed for ever, and each sync took it for a run to be delivered."""
    rejected(home)

    def killed(path: Path, *_: object, **__: object) -> None:
        next(Path(path).rglob("tracking.json")).unlink()
        raise KeyboardInterrupt

    items = plan(home.settings, 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(home.settings, items)
    (left,) = home.settings.workspaces.iterdir()
    assert not Workspace(left).run.exists()
    assert names(home) == set()  # the process may be at it still
    age(left)
    (item,) = plan(home.settings, 0.0)
    assert item.why == "its removal was cut off"
    assert prune(home.settings, [item]) == [item]
    assert list(home.settings.workspaces.iterdir()) == []


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


def test_on_a_full_disk_what_needs_no_room_goes_first(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite deletes no row there, and ext4 makes no folder; the advice was still: srghn prune."""
    run = str(deliver(home.workspace, home.settings, finished=True).mlflow_run_id)
    kept, forget, mkdtemp = (
        home.settings.mlflow / "artifacts" / run,
        pruning._forget,
        tempfile.mkdtemp,
    )
    rejected(home)
    items = plan(home.settings, 0.0)
    assert kept.exists()

    def forgets(*given: Any) -> None:
        if kept.exists():
            raise ServiceError("database or disk is full")
        forget(*given)

    def makes(suffix: str = "", *given: Any, **more: Any) -> str:
        if suffix == ".tmp":
            raise OSError(errno.ENOSPC, "No space left on device")
        return mkdtemp(suffix, *given, **more)

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    monkeypatch.setattr(pruning, "_forget", forgets)
    monkeypatch.setattr(tempfile, "mkdtemp", makes)
    assert len(prune(home.settings, items)) == len(items) > 1
    assert list(home.settings.workspaces.iterdir()) == []


def test_mlflow_has_the_private_names_by_which_a_run_is_deleted_for_good() -> None:
    """Nothing public deletes one run alone: `mlflow gc` empties the trash of experiments, too.

    Where a newer MLflow lacks one of these, `srghn prune` refuses each workspace that has a run
    there, and removes nothing of it: find the new name, or narrow the range in pyproject.toml.
    """
    assert isinstance(TrackingServiceClient.store, property)
    assert list(signature(SqlAlchemyStore._hard_delete_run).parameters) == ["self", "run_id"]
    assert "_tracking_client" in MlflowClient.__init__.__code__.co_names


def test_what_a_user_put_into_the_trash_of_mlflow_stays(home: Home) -> None:
    delivery = deliver(home.workspace, home.settings, finished=True)
    client = connect(home.settings)
    theirs = client.create_experiment("theirs", artifact_location=str(home.settings.home / "own"))
    deleted = client.create_run(theirs).info.run_id
    client.delete_run(deleted)
    client.delete_experiment(theirs)
    rejected(home)
    items = plan(home.settings, 0.0)
    connect(home.settings).delete_run(str(delivery.mlflow_run_id))  # by hand, meanwhile
    prune(home.settings, items)
    assert client.get_experiment(theirs).lifecycle_stage == "deleted"
    assert client.get_run(deleted).info.lifecycle_stage == "deleted"
    with pytest.raises(MlflowException, match="not found"):
        client.get_run(str(delivery.mlflow_run_id))


def test_the_command_says_what_stays_after_all(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rejected(home)
    monkeypatch.setenv("SRGHN_HOME", str(home.settings.home))

    def agree(*_: object, **__: object) -> bool:
        home.workspace.log.write_text("it goes on")
        return True

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", agree)
    commands.prune(days=0.0)
    said = capsys.readouterr().err
    assert said == "1 of them changed or are in use again and stay\n0 B removed\n"
    assert home.workspace.params_file.exists()


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
