"""The bench of the gate: whole judgements, with every cell decided or every episode played."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.lab.bench import gates
from pipelines.runs.presets import load_preset
from regression_suite import again
from srghn.config import RunParams
from srghn.errors import ConfigError
from srghn.inference.verdict import Check


def small(name: str) -> RunParams:
    preset = load_preset(name)
    few = {"episodes": 60, "cell_episodes": 20, "perturbations": ("force:1.2",)}
    return preset.model_copy(update={"gate": preset.gate.model_copy(update=few)})


def test_a_gate_is_measured_as_it_is_and_with_every_planned_episode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gates, "load_preset", small)
    monkeypatch.setattr(gates, "EPISODES", 4)
    monkeypatch.setattr(gates, "EPOCHS", 20)
    passed = Check("same twice", "passed", "not played again here")
    monkeypatch.setattr(again, "judge_again", lambda *_: passed)
    done = CliRunner().invoke(app, ["bench", "gate", "--preset", "cartpole", "--json"])
    assert done.exit_code == 0, done.output
    quick, whole = json.loads(done.stdout)
    assert (quick["whole"], whole["whole"]) == (False, True)
    assert whole["episodes"] == 80
    assert whole["verdict"] == "inconclusive"
    assert 0 < whole["playing"] < 1
    assert whole["cpu"] > 0


def test_another_preset_is_refused() -> None:
    done = CliRunner().invoke(app, ["bench", "gate", "--preset", "ant"])
    assert isinstance(done.exception, ConfigError)
    assert "cartpole, lunarlander" in str(done.exception)
