"""What would fail after the last generation is found before the first."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from srghn.candidates import check as checking
from srghn.candidates.check import check, check_network
from srghn.config import EnvParams, EvolutionParams, NetworkParams, RunParams
from srghn.envs import pin
from srghn.envs.interface import Interface
from srghn.errors import ArtefactError, ConfigError, GraphError, SrghnError
from srghn.evaluation.backends.gymnasium import GymnasiumBackend
from srghn.evolution.base import Population
from srghn.evolution.snes import SNES, SNESState, snes
from tests.matrix import networks

WORLD = EnvParams(id="Acrobot-v1", max_episode_steps=30)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "SECONDS", 0.1)


def params(name: str, **kwargs: Any) -> RunParams:
    module = name if ":" in name else f"tests.matrix.networks:{name}"
    return RunParams(env=WORLD, network=NetworkParams(module=module, kwargs=kwargs))


def test_a_run_is_tried_step_by_step() -> None:
    told: list[str] = []
    found = check(params("srghn.policies:GRU", width=3), tell=lambda step, said: told.append(step))
    assert told == ["pin", "trace", "export", "play"] == [step for step, _ in found.steps]
    assert "keeps 3 values" in dict(found.steps)["export"]
    assert 0 < found.seconds[0] <= found.seconds[1]
    low, high = found.returns or (0, 0)
    assert low < -30 < high  # every founder's episode is cut after 30 steps of -1
    assert found.failure_return == -30  # which is told, for the gate asks for one
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True


def test_a_slow_environment_is_played_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    monkeypatch.setattr(checking, "SECONDS", 0.005)
    steps = {"at": "each step", "seconds": 0.01}
    slow = EnvParams(id="broken_worlds:Sleeps", max_episode_steps=4, kwargs=steps)
    players: list[int] = []
    evaluate = GymnasiumBackend.evaluate

    def counted(self: Any, policies: Any, *args: Any) -> Any:
        players.append(len(policies))
        return evaluate(self, policies, *args)

    monkeypatch.setattr(GymnasiumBackend, "evaluate", counted)
    found = check(RunParams(env=slow))
    assert players == [1, 1, 1]  # the exported policy, what is compiled, and one to measure
    assert found.seconds[0] > 60


class Restless(SNES):
    """Draws what no state says."""

    def ask(self, state: SNESState) -> Population:
        population = super().ask(state)
        drawn = np.random.default_rng().standard_normal(population.weights.shape, np.float32)
        return replace(population, genomes=drawn, weights=drawn)


class Scaled(SNES):
    """Its genomes are not the weights, and nothing says how they become those."""

    def ask(self, state: SNESState) -> Population:
        population = super().ask(state)
        return replace(population, genomes=2 * population.weights)


class Unseeded(SNES):
    """Begins where no seed says."""

    def init(self, seed: int, genome: Any = None, generation: int = 0) -> SNESState:
        state = super().init(seed, genome, generation)
        return replace(state, mean=np.random.default_rng().standard_normal(state.mean.shape))


def unseeded(params: RunParams, interface: Interface) -> SNES:
    made = snes(params, interface)
    return Unseeded(made.layout, made.options, made.samples)


class Renamed(SNES):
    """Counts its individuals anew in each generation."""

    def ask(self, state: SNESState) -> Population:
        population = super().ask(state)
        return replace(population, ids=np.arange(len(population)))


def renamed(params: RunParams, interface: Interface) -> SNES:
    made = snes(params, interface)
    return Renamed(made.layout, made.options, made.samples)


def restless(params: RunParams, interface: Interface) -> SNES:
    made = snes(params, interface)
    return Restless(made.layout, made.options, made.samples)


def scaled(params: RunParams, interface: Interface) -> SNES:
    made = snes(params, interface)
    return Scaled(made.layout, made.options, made.samples)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (unseeded, "drew other individuals when it was told the same again"),
        (restless, "drew other individuals when it was told the same again"),
        (renamed, "gave another individual an id of the generation before"),
        (scaled, "has no encoding, so its genomes must be the policies' weights"),
    ],
)
def test_a_search_that_a_lineage_could_not_repeat_is_refused(
    factory: Callable[..., SNES], said: str
) -> None:
    path = f"{__name__}:{factory.__name__}"
    own = RunParams(env=WORLD, evolution=EvolutionParams(strategy=path, children=2))
    with pytest.raises(ConfigError, match=said):
        check(own)


@pytest.mark.parametrize("name", ["Attention3d", "Rank"])
def test_what_once_failed_late_is_exported(name: str) -> None:
    """Attention of rank 3, a look at the rank, layers of recurrent cells."""
    assert check(params(name)).steps[2][0] == "export"


@pytest.mark.parametrize("name", networks.REFUSED)
def test_what_cannot_be_evolved_is_refused_in_one_true_line(name: str) -> None:
    errors = (ConfigError, GraphError, ArtefactError)
    with pytest.raises(errors, match=networks.REFUSED[name]) as caught:
        check(params(name))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Branching", "an if or a loop depends on its data.*torch.where"),
        ("Odd", "operator prims.lgamma"),
    ],
)
def test_a_run_that_cannot_export_says_one_line_and_torch_nothing(
    name: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """torch prints the graph and logs warnings, once for each of our two tries."""
    asked = params(name)
    with pytest.raises(ArtefactError, match=message) as caught:
        check_network(asked, pin(asked.env))
    assert "\n" not in str(caught.value)
    assert "".join(capfd.readouterr()) == ""


def test_the_command_has_the_exit_codes_of_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SRGHN_HOME", str(tmp_path))  # not the checkout's, whose mode a demo changed
    runner = CliRunner()
    fine = runner.invoke(app, ["check", "cartpole", "--json"])
    assert fine.exit_code == 0, fine.stdout
    assert json.loads(fine.stdout)["proposed_returns"] is None
    assert json.loads(fine.stdout)["proposed_failure_return"] is None
    late = runner.invoke(app, ["check", "cartpole", "--set", "gate.min_return=501", "--json"])
    assert late.exit_code == 3  # or it would fail after the evolution
    assert "gate.min_return: 501 lies outside" in json.loads(late.stdout)["error"]["message"]
    assert [step["step"] for step in json.loads(late.stdout)["steps"]] == ["pin"]
    mode = runner.invoke(app, ["check", "cartpole", "--set", "evolution.mode=wild", "--json"])
    assert "has no mode 'wild'" in json.loads(mode.stdout)["error"]["message"]
    assert [step["step"] for step in json.loads(mode.stdout)["steps"]] == ["pin"]
    bad = ["check", "cartpole", "--set", "network.module=no_such:Net"]
    refused = runner.invoke(app, [*bad, "--json"])
    assert refused.exit_code == 3
    assert "cannot import 'no_such'" in json.loads(refused.stdout)["error"]["message"]
    assert isinstance(runner.invoke(app, bad).exception, SrghnError)
