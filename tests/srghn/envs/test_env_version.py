"""Pinning, saving, switching: what an environment version is and refuses to be."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from srghn.config import EnvParams, Returns, RunParams, with_overrides
from srghn.envs import EnvVersion, diff, pin, registered, verify
from srghn.errors import ConfigError, EnvVersionError

NEEDS = {"box2d": "Box2D", "mujoco": "mujoco"}


@pytest.fixture(scope="module")
def switch() -> EnvVersion:
    schedule = [{"generation": 600, "mode": "flipped"}, {"generation": 1000, "mode": "normal"}]
    return pin(EnvParams.model_validate({"id": "CartPoleSwitch-v1", "schedule": schedule}))


@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
@pytest.mark.parametrize("world", registered())
def test_registered_world_is_documented_checked_and_reproducible(world: str) -> None:
    spec = registered()[world]
    if spec.extra:
        pytest.importorskip(NEEDS[spec.extra], reason=f"needs srghn[{spec.extra}]")
    assert spec.history.startswith("* v")
    version = pin(EnvParams(id=world))
    assert set(version.behaviour) == set(version.modes)
    for mode in version.modes:
        env = version.make(mode)
        check_env(env, skip_render_check=True, skip_close_check=True)
        assert env.observation_space.shape == (version.interface.observation_size,)
        env.close()
    verify(version)


def test_schedule_gives_the_mode_of_a_generation(switch: EnvVersion) -> None:
    at = [switch.mode_at(g) for g in (0, 599, 600, 999, 1000, 5000)]
    assert at == ["normal", "normal", "flipped", "flipped", "normal", "normal"]


def test_unknown_mode_is_refused_with_the_known_ones(switch: EnvVersion) -> None:
    with pytest.raises(ConfigError, match=r"'reversed'.*normal, flipped"):
        pin(
            EnvParams.model_validate(
                {"id": "CartPoleSwitch-v1", "schedule": [{"generation": 1, "mode": "reversed"}]}
            )
        )
    with pytest.raises(ConfigError, match="normal, flipped"):
        switch.make("upside-down")


def test_flipped_mode_swaps_the_actions_and_nothing_else(switch: EnvVersion) -> None:
    normal, flipped = switch.make("normal"), switch.make("flipped")
    a, b = normal.reset(seed=5)[0], flipped.reset(seed=5)[0]
    np.testing.assert_array_equal(a, b)
    for action in (0, 1, 1, 0, 1):
        a, b = normal.step(action)[0], flipped.step(1 - action)[0]
        np.testing.assert_array_equal(a, b)


def test_lunar_lander_reversed_turns_the_order_round() -> None:
    pytest.importorskip("Box2D", reason="needs srghn[box2d]")
    version = pin(EnvParams(id="LunarLanderSwitch-v3"))
    normal, turned = version.make("normal"), version.make("reversed")
    normal.reset(seed=1), turned.reset(seed=1)
    for action in (0, 1, 2, 3):
        np.testing.assert_array_equal(normal.step(action)[0], turned.step(3 - action)[0])
    with pytest.raises(EnvVersionError, match="LunarLander-v3"):
        pin(EnvParams(id="LunarLanderSwitch-v3", kwargs={"continuous": True}))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("CartPoleSwitch", "CartPoleSwitch-v1"),
        ("cartpoleswitch-v1", "CartPoleSwitch-v1"),
        ("CartPoleSwitch-v2", "CartPoleSwitch-v1"),
        ("LunarLander-v2", "LunarLander-v3"),
        ("CartPole-v9", "CartPole-v1"),
        ("Antt-v5", "Ant-v5"),
    ],
)
def test_unknown_id_guesses_what_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(EnvVersionError, match=f"did you mean {meant}"):
        pin(EnvParams(id=typed))


def test_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.box2d", raising=False)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.box2d.lunar_lander", raising=False)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.box2d.bipedal_walker", raising=False)
    with pytest.raises(EnvVersionError, match=r"pip install 'srghn\[box2d\]'"):
        pin(EnvParams(id="LunarLander-v3"))


def test_saved_version_comes_back_equal(switch: EnvVersion, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "version.json"
    switch.save(path)
    loaded = EnvVersion.load(path)
    assert loaded == switch
    assert loaded.fingerprint == switch.fingerprint
    assert diff(switch, loaded) == []
    assert loaded.params.schedule == switch.schedule


def test_every_flipped_bit_of_a_saved_version_is_refused(
    switch: EnvVersion, tmp_path: Path
) -> None:
    data = switch.to_json().encode()
    path = tmp_path / "version.json"
    for at in range(0, len(data), 7):
        torn = bytearray(data)
        torn[at] ^= 1 << (at % 8)
        path.write_bytes(bytes(torn))
        with pytest.raises(EnvVersionError, match=r"version\.json"):
            EnvVersion.load(path)


def test_torn_and_missing_files_are_named(switch: EnvVersion, tmp_path: Path) -> None:
    path = tmp_path / "version.json"
    path.write_text(switch.to_json()[:200])
    with pytest.raises(EnvVersionError, match=r"version\.json"):
        EnvVersion.load(path)
    with pytest.raises(EnvVersionError, match=r"absent\.json"):
        EnvVersion.load(tmp_path / "absent.json")


def test_another_format_is_named(switch: EnvVersion) -> None:
    with pytest.raises(EnvVersionError, match="format 2, expected 1"):
        EnvVersion.from_json(switch.to_json().replace('"format": 1', '"format": 2'))


def test_fingerprint_covers_every_field_but_the_history(switch: EnvVersion) -> None:
    changes = {
        "id": "Other-v1",
        "kwargs": {"a": 1},
        "wrappers": ("a:b",),
        "modes": ("normal",),
        "schedule": switch.schedule[:1],
        "backend": "envpool",
        "packages": {**switch.packages, "numpy": "0.1"},
        "interface": dataclasses.replace(switch.interface, observation_size=5),
        "max_episode_steps": 501,
        "observation_scale": (1.0, 1.0, 1.0, 1.0),
        "behaviour": {"normal": switch.behaviour["normal"]},
    }
    late = {"window", "limited", "fresh", "named_returns", "named_failure"}
    names = {field.name for field in dataclasses.fields(switch)}
    assert names == {*changes, "history", *late}
    for name, value in changes.items():
        other = dataclasses.replace(switch, **{name: value})
        assert other.fingerprint != switch.fingerprint, name
        assert any(line.startswith(name) for line in diff(switch, other)), name
    assert dataclasses.replace(switch, history="x").fingerprint == switch.fingerprint
    for name in ("window", "limited", "fresh"):
        other = dataclasses.replace(switch, **{name: True})
        assert other.fingerprint != switch.fingerprint, name


def test_json_is_plain_and_carries_the_fingerprint(switch: EnvVersion) -> None:
    assert json.loads(switch.to_json())["fingerprint"] == switch.fingerprint


def test_kwargs_reach_the_world_and_must_be_json() -> None:
    version = pin(EnvParams(id="CartPole-v1", kwargs={"max_episode_steps": 7}))
    assert version.max_episode_steps == 7
    with pytest.raises(EnvVersionError, match="gravitas"):
        pin(EnvParams(id="CartPole-v1", kwargs={"gravitas": 1}))
    with pytest.raises(ConfigError, match="JSON"):
        pin(EnvParams(id="CartPole-v1", kwargs={"x": object()}))


def test_any_gymnasium_id_can_be_pinned() -> None:
    version = pin(EnvParams(id="Pendulum-v1"))
    assert version.interface.action_kind == "box"
    assert isinstance(version.make("normal"), gym.Env)


def test_an_id_alone_is_pinned_and_nothing_else_is() -> None:
    assert pin("CartPole-v1") == pin(EnvParams(id="CartPole-v1"))
    with pytest.raises(ConfigError, match=r"expected EnvParams, got RunParams; .* params.env"):
        pin(RunParams())  # type: ignore[arg-type]


def test_reading_a_version_needs_neither_torch_nor_gymnasium() -> None:
    code = (
        "import sys, srghn.envs.version, srghn.envs.interface, srghn.envs.perturb\n"
        "assert 'gymnasium' not in sys.modules, 'gymnasium'\n"
        "import srghn.envs.pinning\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_range_of_returns_is_kept_and_moves_no_world() -> None:
    plain = pin(EnvParams(id="CartPole-v1"))
    assert plain.returns == Returns(low=0.0, high=500.0)
    assert plain.failure_return == 100.0
    named = pin(
        EnvParams.model_validate(
            {"id": "CartPole-v1", "returns": {"low": -1, "high": 9}, "failure_return": 2}
        )
    )
    assert named.fingerprint == plain.fingerprint
    assert named.returns == Returns(low=-1.0, high=9.0)
    assert named.failure_return == 2.0
    assert EnvVersion.from_json(named.to_json()) == named
    assert named.params.returns == named.returns
    assert diff(plain, named) == [
        "returns: None became {'low': -1.0, 'high': 9.0}",
        "failure_return: None became 2.0",
    ]
    with pytest.raises(ValueError, match="low must be below high"):
        Returns(low=1.0, high=1.0)


def test_a_world_whose_range_nobody_knows_has_none() -> None:
    version = pin(EnvParams(id="MountainCarContinuous-v0"))
    assert version.returns is None
    assert version.failure_return is None


def test_the_fingerprint_of_a_shipped_world_is_what_it_was(switch: EnvVersion) -> None:
    """New fields enter a version only where they are set; a moved package moves it, of course."""
    known = {"id", "kwargs", "wrappers", "modes", "schedule", "backend", "packages", "interface"}
    known |= {"max_episode_steps", "observation_scale", "behaviour", "history"}
    assert set(switch.to_dict()) == known
    assert set(EnvParams().model_dump()) == {"id", "kwargs", "wrappers", "schedule", "backend"}
    assert with_overrides(RunParams(), ["env.returns.low=1", "env.returns.high=2"]).env.returns
