"""A run by hand: nothing new, no server of its own, and how it ended, in the home and in MLflow."""

from __future__ import annotations

import errno
import json
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from mlflow import MlflowClient
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from torch import nn

from pipelines.commands.run import VERDICT_EXIT
from pipelines.runs import flow, runner, shown, work, workspaces
from pipelines.runs.flow import run_here
from pipelines.runs.prepare import prepared, resolved
from pipelines.runs.runner import start_run
from pipelines.runs.stages import STAGES
from pipelines.runs.work import Request, open_run, traced
from pipelines.runs.workspaces import Workspace, create_workspace, open_workspace
from pipelines.services.processes import free_port
from pipelines.tracking import delivery
from pipelines.versions.release import made_before
from serving import runs
from serving.settings import Settings
from srghn import policies
from srghn.errors import ConfigError, SrghnError
from tests.conftest import Srghn
from tests.pipelines.conftest import Home, Tiny, home_at


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages in this process, without DVC, so that a run takes a second."""
    monkeypatch.setattr(
        Workspace, "run_stage", lambda self, stage, settings: STAGES[stage](self, settings)
    )


@pytest.fixture
def preset(tiny: Tiny, tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny().to_yaml())
    return str(path)


# -------------------------------------------------------------------------------- nothing new


def test_the_same_parameters_again_are_nothing_new(
    home: Home, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before anything is computed or written: the first run evolved everything, and failed."""
    monkeypatch.setattr(work, "carry_out", lambda *_: pytest.fail("computed"))
    monkeypatch.setattr(runner, "execute", lambda *_: pytest.fail("computed"))
    before = sorted((home.settings.home / "workspaces").iterdir())
    result = start_run(home.settings, preset, (), "scratch", "manual")
    assert (result["nothing_new"], result["version"], result["run_id"]) == (True, 1, "tiny")
    assert sorted((home.settings.home / "workspaces").iterdir()) == before


def test_the_command_says_so_and_ends_well(home: Home, preset: str, srghn_here: Srghn) -> None:
    place = {"SRGHN_HOME": str(home.settings.home)}
    done = srghn_here("run", "--preset", preset, "--from", "scratch", env=place)
    assert done.returncode == 0, done.stderr
    assert "nothing new: run tiny made version 1" in done.stdout.replace("\n", " ")


@pytest.mark.parametrize(("verdict", "code"), VERDICT_EXIT.items())
def test_the_command_ends_as_the_verdict_says(
    preset: str, srghn_here: Srghn, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int
) -> None:
    """As `srghn gate` does; it ended with 0 whatever the verdict was."""
    monkeypatch.setattr(runner, "start_run", lambda *_: {"verdict": verdict})
    assert srghn_here("run", "--preset", preset, "--json").returncode == code


def test_a_command_for_which_the_disk_has_no_room_ends_with_one_line(
    preset: str, srghn_here: Srghn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner, "start_run", no_room)
    done = srghn_here("run", "--preset", preset)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "no room is left on the disk of the home folder; make room" in done.stderr


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, True),
        ({"gate": {"min_return": 6.0}}, True),  # the same candidate: srghn gate judges it
        ({"evolution": {"seed": 9}}, False),
        ({"evaluate": {"episodes": 5}}, False),
        ({"network": {"kwargs": {"hidden": [3]}}}, False),
    ],
)
def test_what_decides_a_candidate_decides_whether_it_is_new(
    home: Home, tiny: Tiny, change: dict[str, dict[str, object]], known: bool
) -> None:
    data = tiny().model_dump(mode="json")
    for section, values in change.items():
        data[section].update(values)
    params = type(tiny()).model_validate(data)
    first = home.release.ledger.version(1)
    world, network = first.env_fingerprint, first.manifest["architecture_digest"]
    found = made_before(home.release, params, world, network)
    assert (found is not None) is known
    assert made_before(home.release, params, "0" * 64, network) is None


def test_a_network_that_was_edited_is_new(
    home: Home, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parameters name it as before, and its tensors have the same shapes."""
    monkeypatch.setitem(policies.ACTIVATIONS, "tanh", nn.ReLU)
    params = prepared(home.settings, resolved(preset, ()), "scratch")
    assert isinstance(open_run(home.settings, Request(params)), Workspace)


def test_finalists_are_chosen_by_the_gates_own_suite(home: Home, tiny: Tiny) -> None:
    data = tiny().model_dump(mode="json")
    data["evaluate"]["cell_episodes"] = 1
    data["gate"]["perturbations"] = ["action_drop:0.2", "force:0.9"]
    home.workspace.params_file.write_text(yaml.safe_dump(data))
    STAGES["evaluate"](home.workspace, home.settings)
    played = json.loads(home.workspace.evaluation_metrics.read_text())
    assert played["cells"] == ["action_drop:0.2", "force:0.9"]
    version = home.release.register(home.workspace.candidate, "tiny", home.workspace.params())
    first = home.release.ledger.version(1)
    made = first.env_fingerprint, first.manifest["architecture_digest"]
    found = made_before(home.release, home.workspace.params(), *made)
    assert found is not None
    assert found.version == version
    data["gate"]["perturbations"] = ["force:0.9"]  # another choice, maybe: nothing like it yet
    assert made_before(home.release, type(tiny()).model_validate(data), *made) is None


def test_a_run_that_exists_is_gone_on_with(home: Home) -> None:
    opened = open_run(home.settings, Request(run_id="tiny"))
    assert isinstance(opened, Workspace)
    assert opened.root == home.workspace.root


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("cartpole-switch", "cartpole-switch"),
        ("a.b_C-", "a.b_C-"),
        ("ann's net", "ann-s-net"),
        ("caf\udce9", "caf-"),
        ("-.hidden", "hidden"),
        ("...", "run"),
        ("x" * 240, "x" * 100),
    ],
)
def test_a_run_is_named_after_any_file(name: str, kept: str) -> None:
    assert re.fullmatch(re.escape(kept) + r"-\d{8}-\d{6}-[0-9a-f]{4}", workspaces.new_run_id(name))


# ------------------------------------------------------------------------------- how it ended


def test_a_run_of_prefects_form_has_its_trace_before_its_world_is_loaded(
    tmp_path: Path, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A world may take minutes to load; without a trace the clock takes the run for dead."""
    named: list[str] = []

    def load(settings: Settings, request: Request) -> Workspace:
        assert request.run_id is not None
        trace = runs.find(settings.home, request.run_id)
        assert trace is not None
        assert trace.alive
        assert named == [request.run_id]
        raise SrghnError("loaded")

    monkeypatch.setattr(flow.shown, "name_flow_run", named.append)
    monkeypatch.setattr(flow, "die_with_parent", lambda: None)
    monkeypatch.setattr(work, "open_run", load)
    monkeypatch.setenv("SRGHN_HOME", str(tmp_path / "home"))
    with pytest.raises(SrghnError, match="loaded"):
        flow.evolve_and_gate.fn(preset=preset)
    (trace,) = runs.recent(tmp_path / "home")
    assert (trace.run_id, trace.state) == (named[0], "failed")
    assert trace.run_id.startswith("tiny-")


@pytest.mark.usefixtures("here")
def test_a_run_by_hand_needs_no_server_and_leaves_its_trace(
    tmp_path: Path, preset: str, tiny: Tiny
) -> None:
    settings = home_at(tmp_path / "home")
    result = start_run(settings, preset, (), "scratch", "manual")
    assert result["verdict"] == "passed"
    assert not (settings.home / "prefect" / "server.json").exists()
    found = runs.find(settings.home, result["run_id"])
    assert found is not None
    assert (found.state, found.version, found.message) == ("finished", 1, result["summary"])
    written = json.loads(open_workspace(settings, result["run_id"]).outcome.read_text())
    assert written["version"] == 1
    assert not Path(written["report"]).is_absolute()
    assert status(settings, result["mlflow_run_id"]) == "FINISHED"


def status(settings: Settings, run_id: str) -> str:
    client = MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
    return str(client.get_run(run_id).info.status)


class Stop(BaseException):
    """What Prefect raises for a cancellation is no `Exception` either."""


ENDS: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    "an error for users": (lambda: SrghnError("no such world"), "failed", "FAILED"),
    "a bug": (lambda: RuntimeError("boom"), "failed", "FAILED"),
    "a cancellation": (Stop, "cancelled", "KILLED"),
    "control-c": (KeyboardInterrupt, "cancelled", "KILLED"),
}


def end_with(error: BaseException, settings: Settings, workspace: Workspace) -> None:
    with traced(settings, workspace):
        during = runs.find(settings.home, workspace.name)
        assert during is not None
        assert during.alive
        raise error


@pytest.mark.parametrize("why", ENDS)
def test_a_run_that_ends_badly_says_so_and_can_go_on(home: Home, tiny: Tiny, why: str) -> None:
    settings, (make, state, in_mlflow) = home.settings, ENDS[why]
    workspace = create_workspace(settings, "other", tiny(seed=5))
    for stage in ("pin", "evolve"):
        STAGES[stage](workspace, settings)
    noted = delivery.deliver(workspace, settings)
    assert noted.failure is None, noted.failure
    assert status(settings, str(noted.mlflow_run_id)) == "RUNNING"
    error = make()
    with pytest.raises(type(error)) as raised:
        end_with(error, settings, workspace)
    if why == "control-c":  # what the command line says
        assert str(raised.value) == "go on with: srghn run --resume other"
    found = runs.find(settings.home, "other")
    assert found is not None
    assert (found.state, found.alive) == (state, False)
    assert status(settings, str(noted.mlflow_run_id)) == in_mlflow
    (workspace.root / "tracking.json").write_text(  # as if its last rows were still to deliver
        json.dumps({"mlflow_run_id": noted.mlflow_run_id, "generations": noted.generations - 1})
    )
    again = delivery.deliver(workspace, settings)
    assert again.mlflow_run_id == noted.mlflow_run_id
    assert status(settings, str(noted.mlflow_run_id)) == "RUNNING"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no server")])
def test_a_run_that_has_finished_stays_finished_whatever_comes_after(
    home: Home, error: BaseException
) -> None:
    """As Ctrl-C, while a Prefect server that is gone is told of it."""

    def run() -> None:
        with traced(home.settings, home.workspace) as done:
            done({"summary": "passed", "version": 1})
            raise error

    with pytest.raises(type(error)) as raised:
        run()
    assert "--resume" not in str(raised.value)
    found = runs.find(home.settings.home, home.workspace.name)
    assert found is not None
    assert (found.state, found.message, found.version) == ("finished", "passed", 1)
    assert home.release.ledger.notes("policy", "run_failed") == []


@pytest.mark.parametrize("ended", [True, False])
def test_a_prefect_server_that_is_gone_takes_no_result_away(
    home: Home, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    made: list[dict[str, Any]] = []

    def gone(**_: object) -> None:
        with traced(home.settings, home.workspace) as done:
            if ended:
                made.append(work.carry_out(home.settings, home.workspace, "manual"))
                done(made[0])
        raise ConnectionError("no server")

    monkeypatch.setattr(Workspace, "run_stage", lambda *_: None)
    monkeypatch.setattr(runner, "running_server", lambda *_: "url")
    monkeypatch.setattr(runner, "use_server", lambda *_: None)
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "1")
    monkeypatch.setattr(flow, "evolve_and_gate", gone)
    if ended:
        assert runner.execute(home.settings, "tiny", "manual") == made[0]
    else:
        with pytest.raises(ConnectionError):
            runner.execute(home.settings, "tiny", "manual")


def test_a_prefect_server_that_is_gone_when_a_run_by_hand_begins_does_not_keep_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is restarted after it was asked whether it is there, and Prefect's client gives up."""
    url = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setattr(Workspace, "run_stage", lambda *_: None)
    monkeypatch.setattr(runner, "running_server", lambda *_: url)
    monkeypatch.setattr(runner, "use_server", lambda *_: None)
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    settings = {PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(settings), caplog.at_level(logging.WARNING, "pipelines"):
        result = runner.execute(home.settings, "tiny", "manual")
    assert (result["run_id"], result["state"]) == ("tiny", "PASSED")
    assert caplog.messages[0].startswith("Prefect does not show this run: ")
    trace = runs.find(home.settings.home, "tiny")
    assert trace is not None
    assert trace.state == "finished"


def test_what_a_run_by_hand_is_refused_for_is_not_laid_to_prefect(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: object) -> None:
        raise ConfigError("another process is working on it")

    monkeypatch.setattr(runner, "running_server", lambda *_: "url")
    monkeypatch.setattr(runner, "use_server", lambda *_: None)
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    monkeypatch.setattr(flow, "evolve_and_gate", refused)
    with pytest.raises(ConfigError, match="another process"):
        runner.execute(home.settings, "tiny", "manual")
    assert runs.find(home.settings.home, "tiny") is None


@pytest.mark.parametrize("gone", [True, False])
def test_a_progress_bar_that_no_server_takes_keeps_nothing_waiting(
    home: Home, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """One that is there is told the end at once."""
    answers, told = threading.Event(), []

    def update(_: UUID, share: float) -> None:
        if gone:
            answers.wait(10)
        told.append(share)

    monkeypatch.setattr(shown, "create_progress_artifact", lambda *_, **__: uuid4())
    monkeypatch.setattr(shown, "update_progress_artifact", update)
    if gone:
        monkeypatch.setattr(shown, "LAST_SECONDS", 0.1)
    with shown.progress(home.workspace):
        pass
    assert told == ([] if gone else [100.0])
    answers.set()


def fired(tiny: Tiny) -> Request:
    return Request(tiny(seed=5), "scratch", "nightly", "nightly-1", "nightly")


@pytest.mark.parametrize("full", [False, True])
def test_a_firing_that_cannot_begin_leaves_its_trace_and_an_event(
    home: Home, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """Where the disk is full, the event alone."""

    def open_run(settings: Settings, request: Request) -> None:
        during = runs.find(settings.home, "nightly-1")
        assert during is not None
        assert (during.alive, during.schedule, during.resumed) == (True, "nightly", 2)
        raise SrghnError("the world has moved")

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    runs.write(home.settings.home, replace(runs.begun("nightly-1", resumed=1), process="1:0"))
    monkeypatch.setattr(work, "open_run", open_run)
    if full:
        monkeypatch.setattr(runs, "write", no_room)
    said = "No space left" if full else "the world has moved"
    with pytest.raises(OSError if full else SrghnError, match=said):
        run_here(home.settings, fired(tiny), "manual")
    [event] = home.release.ledger.notes("policy", "run_failed")
    assert event.reason.startswith("run nightly-1 failed: ")
    assert said in event.reason
    if not full:
        found = runs.find(home.settings.home, "nightly-1")
        assert found is not None
        assert (found.state, found.message, found.schedule) == ("failed", said, "nightly")


def test_a_workspace_that_was_torn_is_made_whole(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = home_at(tmp_path / "home")
    with monkeypatch.context() as patch:
        patch.setattr(workspaces, "pipeline_definition", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            create_workspace(settings, "one", tiny())
    assert workspaces.find_workspace(settings, "one") is None
    assert create_workspace(settings, "one", tiny()).params() == tiny()


def test_sync_ends_the_mlflow_runs_of_killed_processes(home: Home, tiny: Tiny) -> None:
    settings = home.settings
    workspace = create_workspace(settings, "other", tiny(seed=5))
    for stage in ("pin", "evolve"):
        STAGES[stage](workspace, settings)
    noted = delivery.deliver(workspace, settings)
    delivery.deliver_all(settings)
    assert status(settings, str(noted.mlflow_run_id)) == "KILLED"
