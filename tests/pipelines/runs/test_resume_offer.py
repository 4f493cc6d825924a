"""`srghn run` offers to go on with an unfinished run of the same parameters."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.runs import runner
from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import Workspace, create_workspace, open_workspace, unfinished
from serving.settings import Settings
from srghn.config import RunParams
from srghn.errors import ConfigError
from tests.pipelines.conftest import Tiny, home_at


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SRGHN_HOME", str(tmp_path / "home"))
    return home_at(tmp_path / "home")


@pytest.fixture
def preset(tiny: Tiny, tmp_path: Path) -> str:
    """The tiny run as a parameter file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny().to_yaml())
    return str(path)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run ids that would have been executed; the flow itself is not what is asked here."""
    ids: list[str] = []
    monkeypatch.setattr(
        runner, "execute", lambda settings, run_id, approve: ids.append(run_id) or {}
    )
    return ids


def start(settings: Settings, preset: str, answer: bool) -> list[Workspace]:
    """Start a run; gives the workspaces that were offered."""
    offered: list[Workspace] = []

    def offer(workspace: Workspace, params: RunParams) -> bool:
        offered.append(workspace)
        return answer

    runner.start_run(settings, preset, (), "scratch", "manual", offer=offer)
    return offered


def test_the_same_parameters_are_offered(
    settings: Settings, preset: str, executed: list[str]
) -> None:
    assert start(settings, preset, True) == []
    first = open_workspace(settings, executed[0])
    assert start(settings, preset, True) == [first]
    assert start(settings, preset, False) == [first]
    assert executed[1] == executed[0]
    assert executed[2] not in executed[:2]


def test_who_an_old_run_was_judged_against_makes_no_other_run(
    settings: Settings, tiny: Tiny
) -> None:
    """Until 0.2 the incumbent stood among the parameters of a run."""
    begun = create_workspace(settings, "begun", tiny())
    written = yaml.safe_load(begun.params_file.read_text())
    written["gate"]["incumbent"] = "d" * 64
    begun.params_file.write_text(yaml.safe_dump(written))
    assert unfinished(settings, tiny()) == [begun]


@pytest.mark.parametrize("why", ["finished", "at work", "other parameters", "unreadable"])
def test_other_runs_are_not_offered(
    why: str, settings: Settings, preset: str, executed: list[str], tiny: Tiny
) -> None:
    params = tiny(seed=9) if why == "other parameters" else tiny()
    workspace = create_workspace(settings, "begun", params)
    if why == "finished":
        workspace.outcome.write_text("{}")
    if why == "unreadable":
        workspace.params_file.write_text("evolution: [1")
    if why == "at work":
        with workspace.held():
            assert start(settings, preset, True) == []
        assert start(settings, preset, True)
    else:
        assert start(settings, preset, True) == []


def test_two_processes_never_work_on_one_run(settings: Settings, tiny: Tiny) -> None:
    workspace = create_workspace(settings, "one", tiny())
    with workspace.held(), pytest.raises(ConfigError, match="working on run one"), workspace.held():
        pass
    with workspace.held():
        assert workspace.busy
    assert not workspace.busy


def test_who_only_looks_whether_a_run_is_at_work_stands_in_nobodys_way(
    settings: Settings, tiny: Tiny
) -> None:
    workspace = create_workspace(settings, "one", tiny())
    with (workspace.root / ".lock").open() as looks:
        fcntl.flock(looks, fcntl.LOCK_SH)
        assert not workspace.busy
        ends = threading.Timer(0.2, fcntl.flock, (looks, fcntl.LOCK_UN))
        ends.start()
        with workspace.held():
            assert workspace.busy
        ends.join()


@pytest.mark.parametrize("anew", [False, True])
def test_nobody_works_in_a_workspace_that_was_removed_while_they_waited(
    settings: Settings, tiny: Tiny, anew: bool
) -> None:
    workspace = create_workspace(settings, "one", tiny())
    with (workspace.root / ".lock").open() as prunes:
        fcntl.flock(prunes, fcntl.LOCK_EX)

        def removed() -> None:
            shutil.rmtree(workspace.root)
            if anew:
                workspace.root.mkdir()
                (workspace.root / ".lock").touch()
            fcntl.flock(prunes, fcntl.LOCK_UN)

        ends = threading.Timer(0.2, removed)
        ends.start()
        with pytest.raises(ConfigError, match="run one was removed meanwhile"), workspace.held():
            pass
        ends.join()


def test_the_command_names_the_command_that_goes_on(
    settings: Settings, preset: str, executed: list[str], tiny: Tiny
) -> None:
    workspace = create_workspace(settings, "begun", tiny(generations=7))
    for stage in ("pin", "evolve"):
        STAGES[stage](workspace, settings)
    done = CliRunner().invoke(app, ["run", "--preset", preset, "--from", "scratch", "--json"])
    assert done.exit_code == 0, done.output
    assert "7 of 7 generations done: srghn run --resume begun" in done.stderr
    assert "a new run begins" in done.stderr
    assert executed != ["begun"]
    CliRunner().invoke(app, ["run", "--resume", "begun", "--json"])
    assert executed[-1] == "begun"


def test_the_latest_runs_are_named_by_time(settings: Settings, tiny: Tiny) -> None:
    """Names say nothing of it: they begin with the preset's."""
    for age, name in enumerate(("a", "z", "m", "b")):
        begun = create_workspace(settings, name, tiny()).params_file.stat().st_mtime
        os.utime(settings.workspaces / name / "params.yaml", (begun, begun - 100 * age))
    (settings.workspaces / "zz-never-begun").mkdir()
    with pytest.raises(ConfigError, match=r"no run 'nope' under .*; latest: m, z, a$"):
        open_workspace(settings, "nope")
