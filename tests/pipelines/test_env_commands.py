"""`srghn env`: pin, verify, list, show and diff, over every world."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.runs.presets import load_preset, presets
from regression_suite.suite import trial_of
from srghn.config import Returns
from srghn.envs import default_cells, pin, registered
from srghn.errors import EnvVersionError, SrghnError

NEEDS = {"box2d": "Box2D", "mujoco": "mujoco"}
Env = Callable[..., Result]


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Env:
    """Run `srghn env ARGS...` in this process; errors are raised."""
    monkeypatch.setenv("SRGHN_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*arguments: str) -> Result:
        done = CliRunner().invoke(app, ["env", *arguments])
        if isinstance(done.exception, SrghnError):
            raise done.exception
        return done

    return run


def pinned(env: Env, *arguments: str) -> str:
    return str(json.loads(env("pin", *arguments, "--json").stdout)["fingerprint"])


@pytest.mark.parametrize("name", presets())
def test_a_presets_world_is_pinned_shown_and_verified(name: str, env: Env) -> None:
    world = load_preset(name).env.id
    if extra := registered()[world].extra:
        pytest.importorskip(NEEDS[extra], reason=f"needs srghn[{extra}]")
    fingerprint = pinned(env, name)
    assert "unchanged, step for step" in env("verify", fingerprint[:8]).stdout
    shown = env("show", fingerprint[:8]).stdout
    assert world in shown
    assert "* v" in shown
    assert json.loads(env("show", fingerprint, "--json").stdout)["fingerprint"] == fingerprint
    listed = json.loads(env("list", "--json").stdout)
    assert listed["pinned"] == [{"id": world, "fingerprint": fingerprint}]
    assert world in listed["registered"]


@pytest.mark.parametrize("name", presets())
def test_a_presets_gate_fits_its_world(name: str) -> None:
    """Its thresholds lie within the range that gate, trial and watch scale by."""
    params = load_preset(name)
    world = registered()[params.env.id]
    if world.extra:
        pytest.importorskip(NEEDS[world.extra], reason=f"needs srghn[{world.extra}]")
    version = pin(params.env)
    canary, gate = trial_of(params, version), params.gate
    low, high = canary.return_low, canary.return_high
    assert low is not None
    assert high is not None
    assert Returns(low=low, high=high) == version.returns
    assert low < gate.min_cell_return <= gate.min_return < high
    assert gate.ceiling is None or gate.min_return <= gate.ceiling <= high
    assert world.cells


def test_pinning_twice_keeps_one(env: Env) -> None:
    assert pinned(env, "cartpole") == pinned(env, "cartpole")
    assert len(json.loads(env("list", "--json").stdout)["pinned"]) == 1


def test_two_versions_of_a_name_differ_by_field(env: Env) -> None:
    first = pinned(env, "cartpole")
    second = pinned(env, "cartpole", "--set", "env.kwargs.max_episode_steps=100")
    done = env("diff", first, second)
    assert done.exit_code == 1
    assert "max_episode_steps: 500 became 100" in done.stdout
    same = env("diff", first, first)
    assert (same.exit_code, same.stdout.strip()) == (0, "the same version")


def test_a_world_by_import_path_that_moved_is_refused(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anyone's module, one of whose constants is changed without a new id."""
    module = tmp_path / "falling.py"
    module.write_text(
        "import gymnasium as gym\n"
        "import numpy as np\n"
        "GRAVITY = 9.8\n"
        "class Stone(gym.Env):\n"
        "    observation_space = gym.spaces.Box(-1e6, 1e6, (2,), np.float32)\n"
        "    action_space = gym.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        self.at = np.array([self.np_random.uniform(5, 9), 0.0])\n"
        "        return self.at.astype(np.float32), {}\n"
        "    def step(self, action):\n"
        "        self.at[1] -= GRAVITY * 0.01 - (0.05 if action else 0.0)\n"
        "        self.at[0] += self.at[1] * 0.1\n"
        "        return self.at.astype(np.float32), 1.0, bool(self.at[0] < 0), False, {}\n"
    )
    world = ["--set", "env.id=falling:Stone", "--set", "env.kwargs.max_episode_steps=50"]
    fingerprint = pinned(env, "cartpole", *world)
    env("verify", fingerprint)
    import falling  # type: ignore[import-not-found]

    monkeypatch.setattr(falling, "GRAVITY", 9.81)
    with pytest.raises(EnvVersionError, match=rf"{fingerprint}.*first differing step: seed 0"):
        env("verify", fingerprint)
    moved = pinned(env, "cartpole", *world)
    assert "behaviour.normal" in env("diff", fingerprint, moved).stdout


def test_a_bit_flipped_in_a_pinned_file_is_named(env: Env, tmp_path: Path) -> None:
    fingerprint = pinned(env, "cartpole")
    path = tmp_path / "home" / "envs" / f"{fingerprint}.json"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for command in (("verify", fingerprint), ("show", fingerprint), ("list",)):
        with pytest.raises(EnvVersionError, match=path.name):
            env(*command)


def test_an_unknown_start_of_a_fingerprint_is_refused(env: Env) -> None:
    with pytest.raises(EnvVersionError, match="none is pinned"):
        env("show", "abc")


def test_cells_of_a_preset_are_the_worlds_own() -> None:
    params = load_preset("cartpole")
    assert params.gate.perturbations is None
    assert len(default_cells(pin(params.env))) >= 4


def test_a_name_that_no_fingerprint_begins_with_lists_those_there_are(env: Env) -> None:
    with pytest.raises(EnvVersionError, match="none is pinned: srghn env pin PRESET"):
        env("show", "cartpole")
    fingerprint = pinned(env, "cartpole")
    with pytest.raises(EnvVersionError) as refused:
        env("show", "cartpole")
    assert str(refused.value).endswith(f"none begins so; pinned: {fingerprint[:12]} (CartPole-v1)")
