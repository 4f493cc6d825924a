"""How a run's stages end that do not end well: what is said, where, and with which exit code."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from dvc.output import OutputDoesNotExistError
from dvc.stage.exceptions import StageCmdFailedError
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.runs import workspaces
from pipelines.runs.elsewhere import explained
from pipelines.runs.repro import FULL, killed_by, main
from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import StageFailed, Workspace, create_workspace
from pipelines.services.processes import IGNORES_STOP, IMPORTS, child_environment
from pipelines.tracking import delivery
from serving.settings import Settings
from srghn.config import RunParams, with_overrides
from tests.pipelines.conftest import Tiny, home_at

DEADLINE_SECONDS = 180.0
WORLDS = '''
import os

import gymnasium as gym
import numpy as np


class Late(gym.Env):
    """Nobody comes past step 300."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def step(self, action):
        self.steps += 1
        if self.steps == 300:
            raise ValueError("motor\\nstalled")
        return self.observe(), 1.0, False, False, {}


class Ends(Late):
    """Native code ends its process, once it is told to."""

    def step(self, action):
        if "WORLD_ENDS" in os.environ:
            os.abort()
        self.steps = min(self.steps, 100)
        return super().step(action)


class Reads(Late):
    """Reads a file of the folder that a command was given in."""

    def reset(self, *, seed=None, options=None):
        open("table.txt").close()
        return super().reset(seed=seed)
'''


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "ending_worlds.py").write_text(WORLDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(IMPORTS, str(tmp_path))
    return home_at(tmp_path / "home")


def params_of(tiny: Tiny, world: str) -> RunParams:
    made = tiny(generations=1, episodes=1)
    env = {"id": f"ending_worlds:{world}", "max_episode_steps": 400}
    known = {"returns": {"low": 0, "high": 400}, "failure_return": 5}
    return RunParams.model_validate({**made.model_dump(mode="json"), "env": {**env, **known}})


def pinned(settings: Settings, params: RunParams) -> Workspace:
    workspace = create_workspace(settings, "one", params)
    STAGES["pin"](workspace, settings)
    return workspace


@pytest.mark.slow
def test_a_stage_whose_process_is_killed_names_the_signal_and_its_place(
    settings: Settings, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = pinned(settings, params_of(tiny, "Ends"))
    monkeypatch.setenv("WORLD_ENDS", "yes")
    with pytest.raises(StageFailed) as raised:
        workspace.run_stage("evolve", settings)
    assert str(raised.value) == (
        "stage evolve was killed (SIGABRT), probably by native code of the environment; "
        f"SRGHN_ENGINE=processes isolates that; its log is {workspace.log}"
    )
    log = workspace.log.read_text()
    assert log.count("Fatal Python error: Aborted") == 1
    assert "ending_worlds.py" in log


@pytest.mark.slow
def test_what_dvc_fails_of_is_told(settings: Settings, tiny: Tiny) -> None:
    workspace = create_workspace(settings, "one", tiny())
    with pytest.raises(StageFailed, match=r"^DVC: .*env_version\.json"):
        workspace.run_stage("evolve", settings)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["another process has the pid", "torn"])
def test_what_a_killed_process_left_of_dvcs_lock_blocks_nothing(
    settings: Settings, tiny: Tiny, left: str
) -> None:
    workspace = create_workspace(settings, "one", tiny())
    killed = {"pid": os.getppid(), "cmd": "python -m pipelines.runs.repro pin"}
    noted = json.dumps({"write": {str(workspace.env_version): killed}, "read": {}})
    (workspace.root / ".dvc" / "tmp" / "rwlock").write_text("" if left == "torn" else noted)
    workspace.run_stage("pin", settings)
    assert workspace.env_version.is_file()


def test_what_dvc_fails_of_is_told_where_its_folder_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[damaged")
    monkeypatch.chdir(tmp_path)
    said = tmp_path / ".dvc" / "gone" / "stage-error.txt"
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main("pin", said, run_cache=True) == 255
        assert said.read_text().startswith("DVC: ")
        (tmp_path / "file").touch()
        assert main("pin", tmp_path / "file" / "error.txt", run_cache=True) == 255
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_child_imports_from_the_same_folders(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "src:/opt/worlds:")
    found = child_environment(settings)["PYTHONPATH"]
    assert found == f"{tmp_path}/src:/opt/worlds:{tmp_path}"
    monkeypatch.delenv("PYTHONPATH")
    assert "PYTHONPATH" not in child_environment(settings)


@pytest.mark.parametrize(
    ("code", "sign"),
    [(-6, "SIGABRT"), (134, "SIGABRT"), (139, "SIGSEGV"), (137, "SIGKILL")]
    + [(code, None) for code in (1, 3, 128, 251, 255)],
)
def test_which_signal_an_exit_code_tells_of(code: int, sign: str | None) -> None:
    assert killed_by(code) == (sign and signal.Signals[sign])


def stage_that(does: str, workspace: Workspace) -> subprocess.CompletedProcess[str]:
    """The process of a stage that does something else, its stdout to the log as in a run."""
    source = (
        "import os, signal, sys\n"
        "from pipelines.runs import stages\n"
        f"stages.STAGES['pin'] = lambda *_: {does}\n"
        "stages.HEAVY['pin'] = ()\n"
        "sys.exit(stages.main('pin'))\n"
    )
    with workspace.log.open("w") as log:
        return subprocess.run(
            [sys.executable, "-c", source],
            cwd=workspace.root,
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )


def test_a_bug_is_one_line_and_its_traceback_is_in_the_log_once(
    settings: Settings, tiny: Tiny
) -> None:
    workspace = create_workspace(settings, "one", tiny())
    done = stage_that("(_ for _ in ()).throw(ValueError('two\\nlines'))", workspace)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = f"ValueError: two lines; its traceback is in {workspace.log}"
    assert workspace.error.read_text() == said
    log = workspace.log.read_text()
    assert log.count("Traceback (most recent call last)") == 1
    assert said in log


def test_a_disk_without_room_is_told_by_the_exit_code(
    settings: Settings, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be no room for the traceback that this once was, nor for a word in a file."""
    workspace = create_workspace(settings, "one", tiny())
    full = OSError(errno.ENOSPC, "No space left on device")
    done = stage_that("(_ for _ in ()).throw(OSError(28, 'No space left'))", workspace)
    assert (done.returncode, "Traceback" in done.stderr) == (FULL, False)
    assert "Traceback" not in workspace.log.read_text()

    def reproduce(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("could not write dvc.lock") from full

    monkeypatch.setattr("dvc.repo.Repo.reproduce", reproduce)
    monkeypatch.chdir(workspace.root)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main("pin", workspace.error, run_cache=True) == FULL
    finally:
        signal.signal(signal.SIGINT, before)
    begin = SimpleNamespace(Popen=lambda *_, **__: None, DEVNULL=None)
    monkeypatch.setattr(workspaces, "subprocess", begin)
    monkeypatch.setattr(workspaces, "_ended", lambda _: FULL)
    with pytest.raises(StageFailed, match=r"no room is left on .* srghn run --resume one"):
        workspace.run_stage("pin", settings)


@pytest.mark.parametrize("code", [0, 7])
def test_a_stage_that_its_environment_ends_without_a_word_says_so(
    settings: Settings, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """DVC tells of one that ended with 0 as of an output that it misses."""
    workspace = create_workspace(settings, "one", tiny())

    def reproduce(*_: object, **__: object) -> NoReturn:
        if code == 0:
            raise RuntimeError("failed to reproduce") from OutputDoesNotExistError("data/run")
        raise StageCmdFailedError("python -m pipelines.runs.stages evolve", code)

    def run(*_: object, **__: object) -> int:
        before = signal.getsignal(signal.SIGINT)
        monkeypatch.chdir(workspace.root)
        try:
            return main("evolve", workspace.error, run_cache=True)
        finally:
            signal.signal(signal.SIGINT, before)

    monkeypatch.setattr("dvc.repo.Repo.reproduce", reproduce)
    monkeypatch.setattr(workspaces, "subprocess", SimpleNamespace(Popen=run, DEVNULL=None))
    monkeypatch.setattr(workspaces, "_ended", lambda ended: ended)
    with pytest.raises(StageFailed, match=r"os\._exit in the environment or the network makes it"):
        workspace.run_stage("evolve", settings)


def test_a_stage_that_is_stopped_says_nothing(settings: Settings, tiny: Tiny) -> None:
    workspace = create_workspace(settings, "one", tiny())
    done = stage_that("os.kill(os.getpid(), signal.SIGINT)", workspace)
    assert (done.returncode, workspace.log.read_text()) == (130, "")
    assert "Traceback" not in done.stderr
    assert not workspace.error.exists()


@pytest.mark.parametrize("ignored", [True, False])
def test_a_stage_ignores_control_c_where_its_command_does(
    settings: Settings, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, *, ignored: bool
) -> None:
    """As a run in the background of a script does, `sh -c 'srghn run ... & wait'`."""
    workspace = create_workspace(settings, "one", tiny())
    seen: dict[str, str] = {}

    def started(*_: object, env: dict[str, str], **__: object) -> NoReturn:
        seen.update(env)
        raise StageFailed

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setenv(IGNORES_STOP, "from another command")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        with pytest.raises(StageFailed):
            workspace.run_stage("pin", settings)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (IGNORES_STOP in seen) == ignored


def test_a_stage_that_is_to_ignore_control_c_goes_on(
    settings: Settings, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = create_workspace(settings, "one", tiny())
    monkeypatch.setenv(IGNORES_STOP, "1")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited, as from `repro`
    try:
        done = stage_that("os.kill(os.getpid(), signal.SIGINT)", workspace)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, workspace.log.read_text()) == (0, "")


@pytest.mark.slow
def test_control_c_ends_a_run_with_the_command_that_goes_on(
    settings: Settings, tiny: Tiny, tmp_path: Path
) -> None:
    """In a terminal it goes to every process of the group."""
    preset = tmp_path / "endless.yaml"
    preset.write_text(tiny(generations=10_000_000).to_yaml())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "run", "--preset", str(preset), "--json"],
        cwd=tmp_path,
        # a new store of MLflow takes longer than all the rest
        env=child_environment(settings, {"SRGHN_MLFLOW_URI": "http://127.0.0.1:9"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    end = time.monotonic() + DEADLINE_SECONDS
    try:
        while not list(settings.workspaces.glob("*/data/run/run.json")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        out, said = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
    (folder,) = settings.workspaces.iterdir()
    message = f"stopped; go on with: srghn run --resume {folder.name}"
    assert process.returncode == 130
    assert json.loads(out) == {"error": {"kind": "Stopped", "message": message, "exit_code": 130}}
    assert said.splitlines()[-1] == f"srghn: {message}"
    assert "Traceback" not in said
    assert Workspace(folder).log.read_text() == ""


def test_a_generation_that_crashed_as_a_whole_is_told_once(
    settings: Settings, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    params = with_overrides(params_of(tiny, "Late"), ("evolution.generations=3",))
    STAGES["evolve"](pinned(settings, params), settings)
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert warned[0].startswith("warning: all of generation 0 crashed; the first: individual 0,")
    assert warned[0].endswith("step 300: ValueError: motor stalled")


def test_a_file_that_is_not_found_from_the_workspace_is_explained(
    settings: Settings, tiny: Tiny
) -> None:
    workspace = create_workspace(settings, "one", params_of(tiny, "Reads"))
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.runs.stages", "pin"],
        cwd=workspace.root,
        env=child_environment(settings),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3
    said = workspace.error.read_text()
    assert "No such file or directory: 'table.txt'" in said
    assert said.endswith(f"; runs work in {workspace.root}: open files relative to __file__")


def test_check_works_in_another_folder_as_a_run_does(
    settings: Settings, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preset and a home are still those of the folder that the command was given in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRGHN_HOME", ".srghn")
    Path("table.txt").touch()
    Path("reads.yaml").write_text(params_of(tiny, "Reads").to_yaml())
    refused = CliRunner().invoke(app, ["check", "reads.yaml", "--json"])
    assert refused.exit_code == 3
    said = json.loads(refused.stdout)["error"]["message"]
    assert "No such file or directory: 'table.txt'" in said
    assert said.endswith("; runs work in a folder of their own: open files relative to __file__")
    fine = CliRunner().invoke(
        app, ["check", "reads.yaml", "--set", "env.id=ending_worlds:Ends", "--json"]
    )
    assert fine.exit_code == 0, fine.output
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(
    ("said", "more"),
    [
        ("[Errno 2] No such file or directory: 'a/b.txt'", True),
        ("[Errno 2] No such file or directory: '/a/b.txt'", False),
        ("x is no file", False),
    ],
)
def test_only_a_relative_path_is_explained(said: str, more: bool) -> None:
    assert (explained(said) != said) == more


def test_a_delivery_that_is_waited_for_is_told(
    settings: Settings, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, told = threading.Event(), threading.Event()
    spinner = delivery.spinner

    def deliver(*_: object) -> delivery.Delivery:
        begun.set()
        told.wait(DEADLINE_SECONDS)
        return delivery.Delivery()

    def spin(title: str) -> AbstractContextManager[None]:
        assert title == "recording the run in MLflow"
        told.set()
        return spinner(title)

    monkeypatch.setattr(delivery, "deliver", deliver)
    monkeypatch.setattr(delivery, "spinner", spin)
    monkeypatch.setattr(delivery, "SYNC_SECONDS", 0.01)
    monkeypatch.setattr(delivery, "TOLD_SECONDS", 0.01)
    with delivery.delivering(create_workspace(settings, "one", tiny()), settings):
        assert begun.wait(DEADLINE_SECONDS)
    assert told.is_set()
