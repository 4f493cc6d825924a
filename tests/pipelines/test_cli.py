"""The command line as a person meets it."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pipelines.cli import app
from pipelines.commands import review
from pipelines.commands.output import print_json
from pipelines.lab.names import EXPERIMENTS
from pipelines.runs.presets import load_preset, presets
from srghn.config import RunParams, load_params
from tests.conftest import Srghn


def test_help_names_every_job(srghn: Srghn) -> None:
    done = srghn("--help")
    assert done.returncode == 0
    for command in ("demo", "run", "gate", "status", "report", "serve", "schedule", "doctor"):
        assert command in done.stdout


def commands(called: str, command: Any) -> Iterator[tuple[str, Any]]:
    """What is called so, or every command below it: groups only hold commands."""
    below = getattr(command, "commands", None)
    if below is None:
        yield called, command
    else:
        for name, each in below.items():
            yield from commands(f"{called} {name}", each)


def test_every_command_has_an_example_that_parses() -> None:
    without = []
    for called, command in commands("srghn", get_command(app)):
        line = rf"^(?:Example: |  )(?:\w+=\S+ )*{called}\b(.*)$"
        examples = re.findall(line, command.help or "", re.MULTILINE)
        for example in examples:
            command.make_context(called, shlex.split(example))  # raises at what is not an option
        if not examples:
            without.append(called)
    assert not without, f"no example in the help of {', '.join(without)}"


def test_the_help_of_experiment_names_them_all_and_says_how_to_see_the_arms(srghn: Srghn) -> None:
    said = " ".join(re.sub(r"[│\n]", " ", srghn("experiment", "--help").stdout).split())
    assert f"One of {', '.join(EXPERIMENTS)}." in said
    assert "'?': tell all names" in said


def test_paragraphs_of_help_are_broken_by_the_terminal_alone() -> None:
    """Broken where the source is, a line that is a little too long leaves a word to itself."""
    for called, command in commands("srghn", get_command(app)):
        assert not [part for part in command.help.split("\n\n") if "\n" in part], called
    group: Any = get_command(app)
    for called, inner in group.commands.items():
        assert not [part for part in inner.help.split("\n\n") if "\n" in part], called


@pytest.mark.parametrize(
    "command", [("status",), ("candidates",), ("history",), ("env", "list")], ids=" ".join
)
def test_json_is_one_document_even_when_there_is_nothing(
    srghn_here: Srghn, command: tuple[str, ...]
) -> None:
    done = srghn_here(*command, "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


def test_status_of_an_empty_home_says_how_to_begin(srghn_here: Srghn, tmp_path: Path) -> None:
    said = srghn_here("status").stdout
    assert f"no champion yet in {tmp_path / '.srghn'}: " in said
    assert "srghn demo" in said


@pytest.mark.parametrize(
    "command",
    [
        *(("status",), ("candidates",), ("history",), ("policies",), ("watch",), ("env", "list")),
        *(("deploy", "rules", "show"), ("report", "1"), ("lineage", "1")),
    ],
    ids=" ".join,
)
def test_what_only_reads_makes_no_home(
    srghn_here: Srghn, tmp_path: Path, command: tuple[str, ...]
) -> None:
    srghn_here(*command)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "stopped"),
        (KeyboardInterrupt("go on with: srghn status"), "stopped; go on with: srghn status"),
    ],
)
def test_control_c_is_one_line(
    srghn_here: Srghn, monkeypatch: pytest.MonkeyPatch, error: KeyboardInterrupt, said: str
) -> None:
    def stop() -> None:
        raise error

    monkeypatch.setattr(review, "reading", stop)
    done = srghn_here("status", "--json")
    assert (done.returncode, done.stderr) == (130, f"srghn: {said}\n")
    told = {"kind": "Stopped", "message": said, "exit_code": 130}
    assert json.loads(done.stdout) == {"error": told}
    done = srghn_here("status")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"srghn: {said}\n")


def test_doctor_finds_a_fresh_home_in_order(srghn_here: Srghn) -> None:
    done = srghn_here("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert findings["ledger"]["ok"]
    assert findings["champion"]["found"] == "none yet"


def test_every_preset_is_a_valid_run() -> None:
    assert "cartpole-switch" in presets()
    for name in presets():
        assert isinstance(load_preset(name), RunParams)


def test_params_yaml_is_the_default_preset_written_out(pytestconfig: pytest.Config) -> None:
    assert load_params(pytestconfig.rootpath / "params.yaml") == load_preset("cartpole-switch")


WORLD = """
import gymnasium as gym
import numpy as np


class Walk(gym.Env):
    observation_space = gym.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.at, {}

    def step(self, action):
        self.at = np.clip(self.at + (action * 2 - 1), -10, 10).astype(np.float32)
        return self.at, -float(abs(self.at[0])), False, False, {}
"""


def test_a_world_of_the_current_folder_is_found_by_import_path(
    srghn: Srghn, tmp_path: Path
) -> None:
    (tmp_path / "my_world.py").write_text(WORLD)
    (tmp_path / "mine.yaml").write_text(
        "env: {id: 'my_world:Walk', kwargs: {max_episode_steps: 9}}"
    )
    done = srghn("env", "pin", "mine.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == "my_world:Walk"


def test_help_imports_nothing_slow() -> None:
    """`srghn --help` answers at once: what takes long is imported by the command that needs it."""
    check = (
        "import sys; sys.argv = ['srghn', '--help']\n"
        "from pipelines.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "slow = {'pydantic', 'numpy', 'torch', 'sqlalchemy', 'prefect', 'mlflow', 'httpx'}\n"
        "sys.exit(' '.join(slow & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""


def test_json_has_no_number_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"best": [math.nan, (-math.inf, 1.5)], "name": Path("a"), "on": True})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "best": [None, [None, 1.5]],
        "name": "a",
        "on": True,
    }


LOUD = """
import ctypes
import os

import gymnasium as gym

print("imported")


class Loud(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        print("made")
        os.write(1, b"written\\n")
        ctypes.CDLL(None).puts(b"kept by C until the process ends")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.low, {}

    def step(self, action):
        return self.observation_space.low, 1.0, False, False, {}
"""
LOUD_PARAMS = """
env: {id: 'loud:Loud', max_episode_steps: 9, returns: {low: 0, high: 9}}
gate: {failure_return: 1.0, max_failure_rate: 0.1, min_return: 1.0, min_cell_return: 1.0}
"""


def test_an_environment_that_prints_does_not_print_into_the_result(
    srghn: Srghn, tmp_path: Path
) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "loud.yaml").write_text(LOUD_PARAMS)
    done = srghn("env", "pin", "loud.yaml", "--json")
    assert json.loads(done.stdout)["id"] == "loud:Loud"
    for said in ("imported", "made", "written", "kept by C"):
        assert said in done.stderr
    done = srghn("suite", "show", "loud.yaml")
    assert done.stdout.startswith("# digest ")
    assert "made" not in done.stdout
    when = ("--cron", "0 3 * * *", "--from", "9")
    refused = srghn("schedule", "add", "a", *when, "--preset", "loud.yaml", "--json")
    assert "no version 9" in json.loads(refused.stdout)["error"]["message"]
