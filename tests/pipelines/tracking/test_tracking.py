"""MLflow gets everything, late if need be; without it nothing stops and nothing is lost."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import Workspace, create_workspace
from pipelines.services.processes import free_port
from pipelines.tracking import delivery as tracking
from pipelines.tracking import mlflow_run, store
from pipelines.tracking.delivery import deliver, deliver_all, delivering
from serving.registry import published
from serving.registry.records import Who
from serving.settings import Settings
from srghn.config import load_params
from srghn.envs import pin
from srghn.errors import ServiceError
from srghn.evaluation.base import make_evaluator
from srghn.evolution import loop
from srghn.evolution.metrics import SCHEMA
from srghn.files import sha256_file
from tests.pipelines.conftest import Home, Tiny
from tests.pipelines.killing import outcome


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database whose migrations, which take seconds, are done."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def alive(home: Home, migrated: Path) -> Home:
    """The finished home with an embedded MLflow."""
    (home.settings.home / "mlflow").mkdir()
    shutil.copyfile(migrated, home.settings.home / "mlflow" / "mlflow.db")
    return home


@pytest.fixture
def dead() -> str:
    """The address of a tracking server that is down."""
    return f"http://127.0.0.1:{free_port()}"


def client(settings: Settings) -> MlflowClient:
    return MlflowClient(settings.mlflow_uri)


def runs(settings: Settings) -> list[Run]:
    experiment = client(settings).get_experiment_by_name(mlflow_run.EXPERIMENT)
    return list(client(settings).search_runs([experiment.experiment_id]))


def history(settings: Settings, metric: str) -> list[int]:
    (run,) = runs(settings)
    found = client(settings).get_metric_history(run.info.run_id, metric)
    return sorted(metric.step for metric in found)


def test_a_run_is_delivered_whole(alive: Home) -> None:
    settings, workspace = alive.settings, alive.workspace
    (workspace.root / "dvc.lock").write_text("stages: {}\n")
    delivery = deliver(workspace, settings, finished=True)
    assert delivery.failure is None
    assert (delivery.generations, delivery.finished) == (7, True)
    (run,) = runs(settings)
    assert run.info.run_id == delivery.mlflow_run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["evolution.generations"] == "7"
    assert run.data.params["env.id"] == "CartPoleSwitch-v1"
    columns = {f"evolution/{name}" for name in SCHEMA.names}
    words = {"evolution/generation", "evolution/mode", "evolution/first_crash"}
    assert columns - set(run.data.metrics) == words
    assert {"validation/mean", "gate/passed"} <= set(run.data.metrics)
    assert history(settings, "evolution/median") == list(range(7))
    version = alive.release.ledger.version(1)
    assert run.data.tags["srghn.candidate"] == version.digest
    assert run.data.tags["srghn.env_fingerprint"] == version.env_fingerprint
    assert run.data.tags["dvc.lock.sha256"] == sha256_file(workspace.root / "dvc.lock")
    assert run.data.tags["mlflow.source.git.commit"]
    kept = {found.path for found in client(settings).list_artifacts(run.info.run_id)}
    assert {"params.yaml", "dvc.lock", "generations.csv", "report", "candidate"} <= kept


def test_a_run_with_an_apostrophe_in_its_id_is_found_again(alive: Home) -> None:
    """Earlier versions named runs so after a parameter file; each is told from the other."""
    settings, made = alive.settings, []
    for name in ("ann's-1", "bob's-1", "both'\"-1"):
        workspace = Workspace(settings.workspaces / name)
        shutil.copytree(alive.workspace.root, workspace.root)
        first = deliver(workspace, settings)
        (workspace.root / "tracking.json").unlink()
        again = deliver(workspace, settings)
        assert first.failure is again.failure is None
        assert first.mlflow_run_id == again.mlflow_run_id
        made.append(published._run(client(settings), name, None).info.run_id)
        assert made[-1] == first.mlflow_run_id
    assert len(set(made)) == len(runs(settings)) == 3


def test_delivering_again_changes_nothing(alive: Home) -> None:
    for _ in range(2):
        deliver(alive.workspace, alive.settings)
    deliver(alive.workspace, alive.settings, finished=True)
    deliver(alive.workspace, alive.settings, finished=True)
    assert history(alive.settings, "evolution/best") == list(range(7))


def test_no_generation_is_delivered_in_part(alive: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two calls, delivery goes on with the next whole generation."""
    monkeypatch.setattr(mlflow_run, "METRICS_PER_CALL", 45)
    log, calls = mlflow_run.MlflowRun.log_generations, 0

    def breaking(self: mlflow_run.MlflowRun, rows: list[dict[str, object]]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ConnectionError("gone")
        log(self, rows)

    monkeypatch.setattr(mlflow_run.MlflowRun, "log_generations", breaking)
    broken = deliver(alive.workspace, alive.settings)
    assert (broken.generations, broken.failure) == (4, "ConnectionError: gone")
    assert deliver(alive.workspace, alive.settings).generations == 7
    assert history(alive.settings, "evolution/best") == list(range(7))


def test_of_a_long_fast_run_as_many_are_delivered_as_its_time_affords(
    alive: Home, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two in any case, then every fifth and the last; all are in the artefact."""
    workspace = create_workspace(alive.settings, "fast", tiny(generations=23))
    for stage in ("pin", "evolve"):
        STAGES[stage](workspace, alive.settings)
    last = (workspace.run / "checkpoints").stat().st_mtime
    each = (last - (workspace.run / "run.json").stat().st_mtime) / 23
    monkeypatch.setattr(tracking, "ALWAYS", 2)
    monkeypatch.setattr(tracking, "ROW_SECONDS", 4.5 * tracking.SHARE * each)
    for _ in range(2):
        assert deliver(workspace, alive.settings).generations == 21
        assert history(alive.settings, "evolution/best") == [0, 1, 5, 10, 15, 20]
    assert deliver(workspace, alive.settings, finished=True).finished
    assert history(alive.settings, "evolution/best") == [0, 1, 5, 10, 15, 20, 22]
    run_id = str(tracking._noted(workspace).mlflow_run_id)
    kept = {found.path for found in client(alive.settings).list_artifacts(run_id)}
    assert "generations.csv" in kept


def test_a_run_made_before_its_note_is_found_again(alive: Home) -> None:
    first = deliver(alive.workspace, alive.settings).mlflow_run_id
    (alive.workspace.root / "tracking.json").unlink()
    assert deliver(alive.workspace, alive.settings).mlflow_run_id == first
    assert len(runs(alive.settings)) == 1


def test_a_run_that_mlflow_lost_is_delivered_anew(alive: Home, migrated: Path) -> None:
    """Each delivery failed for ever; and one that had been finished was in no database again."""
    settings, workspace = alive.settings, alive.workspace
    database = settings.home / "mlflow" / "mlflow.db"

    def lose() -> None:
        shutil.copyfile(migrated, database)
        client(settings).create_experiment(mlflow_run.EXPERIMENT, store.artifacts(settings))

    first = deliver(workspace, settings).mlflow_run_id
    lose()
    second = deliver(workspace, settings, finished=True)
    assert (second.failure, second.generations, second.finished) == (None, 7, True)
    assert history(settings, "evolution/best") == list(range(7))
    lose()
    deliver(workspace, settings, finished=True)
    assert runs(settings) == []  # whoever deletes a run in MLflow does not get it again unasked
    assert deliver_all(settings, again=Who("ann", "it was lost"))["runs"] == 1
    (run,) = runs(settings)
    assert run.data.params["evolution.generations"] == "7"
    assert run.info.run_id not in (first, second.mlflow_run_id)


def test_a_first_delivery_that_was_interrupted_is_completed(
    alive: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once begun in MLflow, a run was found again and never got its parameters."""

    def killed(self: mlflow_run.MlflowRun, workspace: object) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(mlflow_run.MlflowRun, "describe", killed)
        assert deliver(alive.workspace, alive.settings).failure == "ConnectionError: gone"
    (run,) = runs(alive.settings)
    assert run.data.params == {}
    client(alive.settings).log_param(run.info.run_id, "evolution.generations", "cut")
    assert deliver(alive.workspace, alive.settings).failure is None
    (run,) = runs(alive.settings)
    assert run.data.params["env.id"] == "CartPoleSwitch-v1"
    assert run.data.params["evolution.generations"] == "cut"  # what MLflow has, it keeps
    kept = {found.path for found in client(alive.settings).list_artifacts(run.info.run_id)}
    assert "params.yaml" in kept


def test_names_and_values_that_mlflow_refuses_are_delivered_all_the_same(alive: Home) -> None:
    long, strange = "x" * 7000, "a(b)=c\nd"
    params = alive.workspace.params()
    kwargs = {strange: 1, "a[b]=c d": 2, "../up": 3, "text": long, "n" * 300: 4, "Zürich": 5}
    env = params.env.model_copy(update={"kwargs": kwargs})
    alive.workspace.params_file.write_text(params.model_copy(update={"env": env}).to_yaml())
    assert deliver(alive.workspace, alive.settings).failure is None
    (run,) = runs(alive.settings)
    found = {k: v for k, v in run.data.params.items() if k.startswith("env.kwargs.")}
    assert len(found) == len(kwargs)
    assert found["env.kwargs.Zürich"] == "5"
    assert sorted(v for v in found.values() if len(v) == 1) == ["1", "2", "3", "4", "5"]
    assert found["env.kwargs.text"].endswith("in full in params.yaml")
    place = client(alive.settings).download_artifacts(run.info.run_id, "params.yaml")
    assert load_params(Path(place)).env.kwargs == kwargs


@pytest.mark.parametrize(
    "name", ["/a", "a//b", "a/", "..", "..a", ".", "a/../b", "a/./b", "a{b}", "x" * 251, "", "a\tb"]
)
def test_every_name_becomes_one_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_param_name

    pairs = [("same", "1"), (name, "2"), ("same", "3")]
    found = [plain for plain, _ in mlflow_run.acceptable(pairs)]
    assert len(set(found)) == 3
    for plain in found:
        _validate_param_name(plain)


def test_a_dead_server_costs_seconds_and_loses_nothing(alive: Home, dead: str) -> None:
    down = alive.settings.model_copy(update={"mlflow_uri": dead})
    started = time.monotonic()
    failed = deliver(alive.workspace, down, finished=True)
    assert time.monotonic() - started < 30
    assert failed.failure is not None
    assert (failed.generations, failed.finished) == (0, False)
    assert deliver_all(alive.settings)["runs"] == 1
    assert history(alive.settings, "evolution/best") == list(range(7))
    assert deliver_all(alive.settings)["runs"] == 0


def test_a_dead_server_never_stops_evolution(
    home: Home, dead: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SYNC_SECONDS", 0.05)
    tried: list[str | None] = []

    def counted(workspace: object, settings: Settings) -> tracking.Delivery:
        tried.append(deliver(workspace, settings).failure)  # type: ignore[arg-type]
        return tracking.Delivery(failure=tried[-1])

    monkeypatch.setattr(tracking, "deliver", counted)
    down = home.settings.model_copy(update={"mlflow_uri": dead})
    workspace = create_workspace(down, "undelivered", tiny())
    with delivering(workspace, down):
        for stage in ("pin", "evolve", "evaluate"):
            STAGES[stage](workspace, down)
    assert tried
    assert None not in tried
    assert outcome(workspace) == outcome(home.workspace)


def test_rows_are_delivered_while_a_run_goes_on(
    alive: Home, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SYNC_SECONDS", 0.05)
    workspace = create_workspace(alive.settings, "live", tiny(generations=20))
    with delivering(workspace, alive.settings):
        for stage in ("pin", "evolve"):
            STAGES[stage](workspace, alive.settings)
        end = time.monotonic() + 30
        while tracking._noted(workspace).generations < 20 and time.monotonic() < end:
            time.sleep(0.05)
    assert tracking._noted(workspace).generations == 20
    assert history(alive.settings, "evolution/diversity") == list(range(20))


def test_rows_that_are_in_no_part_of_the_tables_yet_are_delivered(
    alive: Home, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A world whose generations take longer than the clock waits is watched one by one."""
    monkeypatch.setattr(loop, "SECONDS", 0.0)
    workspace = create_workspace(alive.settings, "slow", tiny(checkpoint_every=4))
    params, version = workspace.params(), pin(workspace.params().env)
    had: list[int] = []

    def listen(_: object) -> None:
        had.append(deliver(workspace, alive.settings).generations)

    with make_evaluator(alive.settings, version, params.network) as evaluator:
        loop.evolve(params, version, evaluator, workspace.run, on_generation=listen)
    assert had == list(range(7))


def test_a_run_at_work_delivers_for_itself(alive: Home) -> None:
    with alive.workspace.held():
        assert deliver_all(alive.settings)["runs"] == 0


def test_sync_says_what_it_delivered_or_why_not(
    alive: Home, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is silent is asked once for all runs, not for each."""
    shutil.copytree(alive.workspace.root, alive.workspace.root.with_name("other"))
    asked: list[str] = []

    def connect(settings: Settings) -> MlflowClient:
        asked.append(settings.mlflow_uri)
        return mlflow_run.connect(settings)

    monkeypatch.setattr(tracking, "connect", connect)
    monkeypatch.setenv("SRGHN_HOME", str(alive.settings.home))
    monkeypatch.setenv("SRGHN_MLFLOW_URI", dead)
    down = CliRunner().invoke(app, ["sync"])
    assert asked == [dead]
    assert isinstance(down.exception, ServiceError)
    assert down.exception.exit_code == 3
    assert "not everything was delivered" in str(down.exception)
    monkeypatch.delenv("SRGHN_MLFLOW_URI")
    up = CliRunner().invoke(app, ["sync"])
    assert up.exit_code == 0, up.output
    assert up.stdout.startswith("2 runs and ")


def test_the_commit_says_when_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert mlflow_run._commit() == "none"


@pytest.mark.parametrize(
    ("full", "said"),
    [
        (sqlite3.OperationalError("database or disk is full"), "full"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
    ],
)
def test_a_full_disk_is_no_damage_of_mlflows_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: Exception, said: str
) -> None:
    if isinstance(full, sqlite3.Error):
        full.sqlite_errorname = "SQLITE_FULL"

    def fail(*_: object) -> None:
        raise full

    settings = Settings(home=tmp_path).resolved()
    settings.mlflow.mkdir()
    (settings.mlflow / "mlflow.db").touch()
    monkeypatch.setattr(store, "_make", lambda *_: None)
    monkeypatch.setattr(store, "_mend", fail)
    with pytest.raises(ServiceError, match=f"{said}; it is not damaged: make room on its disk"):
        store.prepare_store(settings)


@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("SQLITE_BUSY", "it is not damaged: wait for the process that holds it, or end that"),
        ("SQLITE_READONLY_DIRECTORY", "it is not damaged: let this user write it and its folder"),
        ("SQLITE_CORRUPT", "mend it, or move it away"),
    ],
)
def test_only_a_damaged_database_of_mlflow_is_to_be_moved_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, then: str
) -> None:
    """A locked one was, too, and with it all that it had."""
    fault = sqlite3.OperationalError("as SQLite says it")
    fault.sqlite_errorname = name

    def fail(*_: object) -> None:
        raise fault

    settings = Settings(home=tmp_path).resolved()
    monkeypatch.setattr(store, "_is_whole", fail)
    with pytest.raises(ServiceError, match=f"as SQLite says it; {then}"):
        store.prepare_store(settings)


class FakeStore:
    """MLflow's store, whose migrations are those of a database that is there, or fail at it."""

    migrated: Path
    fault: Exception | None = None
    engine = SimpleNamespace(dispose=lambda: None)

    def __init__(self, uri: str, root: str) -> None:
        path = Path(uri.removeprefix("sqlite:///"))
        assert path.name != "mlflow.db"  # which is there once it is whole, and not before
        shutil.copyfile(self.migrated, path)
        if self.fault is not None:
            raise self.fault


def test_a_database_that_mlflow_did_not_finish_is_made_anew(
    tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its migrations cannot go on after a kill or a full disk: every later run was not recorded."""
    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", FakeStore)
    monkeypatch.setattr(FakeStore, "migrated", migrated, raising=False)
    settings = Settings(home=tmp_path).resolved()
    settings.mlflow.mkdir()
    with closing(sqlite3.connect(settings.mlflow / "mlflow.db")) as half, half:
        half.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        half.execute("CREATE TABLE _alembic_tmp_experiments (experiment_id INTEGER)")
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorname = "SQLITE_FULL"
    monkeypatch.setattr(FakeStore, "fault", OperationalError("DROP TABLE", None, full))
    with pytest.raises(ServiceError, match="disk is full; it is not damaged: make room on its"):
        store.prepare_store(settings)
    monkeypatch.setattr(FakeStore, "fault", None)
    store.prepare_store(settings)
    assert {path.name for path in settings.mlflow.iterdir()} == {".making", "mlflow.db"}
    with closing(sqlite3.connect(settings.mlflow / "mlflow.db")) as whole:
        assert whole.execute("SELECT name FROM experiments").fetchall() == [("Default",)]
