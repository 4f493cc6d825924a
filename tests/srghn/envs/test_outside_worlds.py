"""What worlds that nobody here wrote bring with them, and what is said of it at the pin."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from srghn.config import EnvParams, Wrapper
from srghn.envs import EnvVersion, Perturbation, default_cells, overdue, pin, verify
from srghn.envs.perturb import parse
from srghn.envs.registry import find
from srghn.envs.spaces import read_interface
from srghn.errors import EnvVersionError


@pytest.fixture(autouse=True)
def worlds_by_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def world(name: str, **fields: Any) -> EnvParams:
    return EnvParams.model_validate({"id": f"broken_worlds:{name}", **fields})


def test_gymnasiums_own_form_imports_the_package_and_pins_it() -> None:
    version = pin(EnvParams(id="broken_worlds:Packed-v0"))
    assert version.max_episode_steps == 25
    verify(version)
    found = find("numba:CartPole-v1")  # any package that imports; numba has one of its name
    assert "numba" in found.packages
    assert "numba" in found.moving_packages("gymnasium")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "broken_worlds:Pakced-v0",
            r"registers no 'Pakced-v0'; did you mean broken_worlds:Packed-v0",
        ),
        ("no_such_thing:Some-v0", "cannot import 'no_such_thing'.*install it"),
    ],
)
def test_an_id_that_a_package_does_not_register_is_refused(name: str, message: str) -> None:
    with pytest.raises(EnvVersionError, match=message):
        pin(EnvParams(id=name))


def test_wrappers_take_arguments_and_are_pinned_with_them(tmp_path: Path) -> None:
    path = "srghn.envs.wrappers:Elements"
    params = EnvParams.model_validate(
        {"id": "CartPole-v1", "wrappers": [{"path": path, "kwargs": {"keep": [0, 2]}}]}
    )
    version = pin(params)
    assert version.interface.observation_size == 2
    assert version.wrappers == (Wrapper(path=path, kwargs={"keep": [0, 2]}),)
    version.save(tmp_path / "v.json")
    assert EnvVersion.load(tmp_path / "v.json") == version
    assert version.params == params
    bare = EnvParams.model_validate({"wrappers": [{"path": "a:b"}]})
    assert bare == EnvParams(wrappers=("a:b",))
    wrong = EnvParams.model_validate(
        {"id": "CartPole-v1", "wrappers": [{"path": path, "kwargs": {"kep": [0]}}]}
    )
    with pytest.raises(EnvVersionError, match=r"Elements.*kep") as caught:
        pin(wrong)
    assert "\n" not in str(caught.value)


def test_a_time_limit_comes_from_the_parameters_the_class_or_the_id() -> None:
    assert pin(world("Worn", fresh=True)).max_episode_steps == 30
    assert pin(world("Worn", fresh=True, max_episode_steps=7)).max_episode_steps == 7
    named = pin(EnvParams(id="CartPole-v1", max_episode_steps=60))
    assert named.max_episode_steps == 60
    assert named.params.max_episode_steps == 60
    with pytest.raises(ValueError, match="old place of max_episode_steps"):
        world("Counter", max_episode_steps=5, kwargs={"max_episode_steps": 5})


def test_a_task_that_never_ends_is_played_in_windows() -> None:
    with pytest.raises(
        EnvVersionError, match=r"truncates .* env\.max_episode_steps=1000, or env\.window=1000"
    ):
        pin(world("Endless"))
    version = pin(world("Endless", window=12))
    assert version.window
    assert version.max_episode_steps == 12
    assert version.params.window == 12
    assert EnvVersion.from_json(version.to_json()) == version
    env = version.make("normal")
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(12)] == [False] * 11 + [True]


def test_a_used_instance_that_differs_needs_a_fresh_one_each_episode() -> None:
    with pytest.raises(
        EnvVersionError, match=r"With a new instance .* reproducible: set env\.fresh=true"
    ):
        pin(world("Worn"))
    version = pin(world("Worn", fresh=True))
    verify(version)
    env = version.make("normal")
    assert [env.reset(seed=s)[0][2] for s in range(3)] == [1.0, 1.0, 1.0]
    with pytest.raises(EnvVersionError) as caught:
        pin(world("Crowded", max_episode_steps=20))
    assert "env.fresh" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("text", "Text at odd"), ("custom", "Strange at odd"), ("sequence", "Sequence at odd")],
)
def test_what_has_no_fixed_size_is_refused_in_one_line(kind: str, message: str) -> None:
    with pytest.raises(EnvVersionError, match=message) as caught:
        pin(world("Words", kwargs={"kind": kind}, max_episode_steps=9))
    assert "\n" not in str(caught.value)


def test_a_reward_that_is_missing_is_named() -> None:
    with pytest.raises(
        EnvVersionError, match="seed 0, step 1: ValueError: its reward is None, exp"
    ):
        pin(world("Payless", max_episode_steps=9))


def test_a_vector_of_rewards_is_refused_with_the_wrapper_that_weighs_it() -> None:
    with pytest.raises(EnvVersionError, match=r"vector of shape \(2,\).*WeightedReward"):
        pin(world("Vector", max_episode_steps=9))
    weighed: dict[str, Any] = {"path": "srghn.envs.wrappers:WeightedReward"}
    weighed["kwargs"] = {"weights": [3.0, 1.0]}
    env = pin(world("Vector", max_episode_steps=9, wrappers=[weighed])).make("normal")
    env.reset(seed=0)
    assert env.step(0)[1] == 1.0


def test_a_reward_in_an_array_is_refused_with_what_to_give() -> None:
    with pytest.raises(EnvVersionError, match=r"vector of shape \(1,\), .* give it as a float"):
        pin(world("RewardInAnArray", max_episode_steps=9))


def test_observations_of_one_name_are_refused_by_it() -> None:
    with pytest.raises(EnvVersionError, match=r"two observations named 'a\.b': .*rename a key"):
        pin(world("SameNames", max_episode_steps=9))


@pytest.mark.parametrize(
    "perturbation", ["action_repeat:2", "action_delay:2", "action_drop:0.5", None]
)
def test_a_world_that_writes_to_its_action_is_given_what_was_chosen(
    perturbation: str | None,
) -> None:
    version = pin(world("WritesToItsAction", max_episode_steps=20))
    changed = None if perturbation is None else parse(perturbation)
    env = version.make("normal", changed)
    env.reset(seed=0)
    chosen = np.array([0.25], dtype=np.float32)
    assert [env.step(chosen)[1] for _ in range(3)][1:] == [0.5, 0.5]
    assert chosen == 0.25


def test_what_a_space_or_float32_does_not_hold_is_said_with_how_many() -> None:
    notes: list[str] = []
    pin(world("Offset", max_episode_steps=20), notes.append)
    assert len(notes) == 2
    assert "observations lie outside the declared observation space" in notes[0]
    assert "element 0 is 1.7e+09, declared -1 to 1" in notes[0]
    assert "1 of 2 observation elements change by less than float32 resolves (0)" in notes[1]
    quiet: list[str] = []
    pin(EnvParams(id="CartPole-v1"), quiet.append)
    assert quiet == []


@pytest.mark.parametrize(
    ("flaw", "outside", "refused"),
    [
        ("surplus", "'wind' is not declared", "the observation has no 'wind'; it has gear, left"),
        ("array", r"gear: shape \(1,\), declared one whole number", r"0 to 2, got shape \[1\]"),
        ("truth", "", "gear: expected a whole number of 0 to 2, got true"),
    ],
)
def test_what_a_server_would_refuse_is_said_at_the_pin(
    flaw: str, outside: str, refused: str
) -> None:
    """The sandbox flattens by the space: it takes no notice of a surplus key."""
    notes: list[str] = []
    pin(world("Keyed", max_episode_steps=20, kwargs={"flaw": flaw}), notes.append)
    assert len(notes) == 1 + bool(outside)
    assert re.search(outside, notes[0])
    assert re.search(f"a server would refuse such .*{refused}", notes[-1])
    quiet: list[str] = []
    pin(world("Keyed", max_episode_steps=20), quiet.append)
    assert quiet == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Bare has no observation_space; give it one of gymnasium.spaces"),
        ({"observation_space": spaces.Discrete(2)}, "Bare has no action_space; give it one"),
        ({"observation_space": 3}, "Bare has no observation_space but a builtins.int; give it one"),
    ],
)
def test_a_world_without_spaces_is_refused_by_their_name(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(EnvVersionError, match=message) as caught:
        read_interface(type("Bare", (gym.Env,), given)(), "Bare")
    assert "\n" not in str(caught.value)
    with pytest.raises(EnvVersionError, match="broken_worlds:Bare has no observation_space"):
        pin(world("Bare", max_episode_steps=9))


@pytest.mark.parametrize(
    ("at", "call"),
    [("reset", r"reset\(seed=1\)"), ("step", r"step 3 after reset\(seed=0\)")],
)
def test_a_call_that_does_not_return_is_named_while_it_lasts(
    at: str, call: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(overdue, "SECONDS", 0.2)
    pin(world("Sleeps", max_episode_steps=20, kwargs={"at": at, "seconds": 0.5}))
    told = capsys.readouterr().err
    assert re.search(f"pin broken_worlds:Sleeps: {call} has not returned for 0 s", told)
    assert not [t for t in threading.enumerate() if t.name == "srghn-overdue"]


def test_the_pace_of_a_world_that_is_slow_at_each_step_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(overdue, "SECONDS", 0.2)
    pin(world("Sleeps", max_episode_steps=5, kwargs={"at": "each step", "seconds": 0.01}))
    told = capsys.readouterr().err
    assert re.search(r"pin broken_worlds:Sleeps: \d+ of at most 111 calls of the environment", told)


def test_no_pace_is_told_of_more_calls_than_are_expected() -> None:
    """Before anyone knows how many there are, or where an environment had to be played again."""
    said: list[str] = []
    with overdue.Overdue("pin X", 0.02, said.append) as watching:
        time.sleep(0.1)
        watching.expect(1)
        for _ in range(20):
            with watching.during("a step"):
                time.sleep(0.005)
    assert all(re.match(r"pin X: [01] of at most 1 calls", line) for line in said)


def test_perturbations_that_do_nothing_are_left_out_and_said() -> None:
    notes: list[str] = []
    version = pin(world("OneHot", max_episode_steps=20), notes.append)
    assert [str(cell) for cell in default_cells(version)] == ["action_drop:0.1", "action_drop:0.2"]
    assert len(notes) == 2
    assert "observation_noise:0.05 is left out: its observations are flags" in notes[0]


def test_a_nested_world_keeps_its_fingerprint_and_gains_a_layout() -> None:
    version = pin(world("Nested", max_episode_steps=20))
    assert version.interface.layout is not None
    older = json.loads(version.to_json())
    del older["interface"]["layout"]
    layoutless = EnvVersion._from_dict(
        {k: v for k, v in older.items() if k not in ("format", "fingerprint", "digest")}
    )
    assert layoutless.fingerprint == version.fingerprint
    assert layoutless.interface.for_clients() == version.interface.for_clients()


def test_normalising_is_measured_at_the_pin_and_part_of_the_version() -> None:
    plain, version = (pin(EnvParams(id="CartPole-v1", normalise=n)) for n in (False, True))
    assert plain.fingerprint != version.fingerprint
    assert version.params.normalise
    face = version.interface
    assert len(face.observation_mean) == len(face.observation_deviation) == 4
    assert np.allclose(face.observation_deviation, plain.observation_scale, rtol=0.01)
    assert face.for_clients() == plain.interface.to_dict()
    assert EnvVersion.from_json(version.to_json()) == version
    verify(version)
    flags = pin(world("OneHot", max_episode_steps=20, normalise=True)).interface
    assert set(flags.observation_mean) == {0.0}
    assert set(flags.observation_deviation) == {1.0}


def test_elements_far_from_0_and_small_ones_are_normalised_too() -> None:
    version = pin(world("Pressure", max_episode_steps=20, normalise=True))
    face, env = version.interface, version.make("normal")
    rows = np.float64([env.reset(seed=n)[0] for n in range(300)])
    seen = (rows - face.observation_mean) / face.observation_deviation
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=0.3)
    np.testing.assert_allclose(seen.std(axis=0), [1, 1, 0], atol=0.3)


def test_a_world_that_writes_to_its_observations_is_pinned_like_one_that_copies() -> None:
    one, copied = (
        pin(world("OneArray", kwargs={"copies": c}, normalise=True, max_episode_steps=20))
        for c in (False, True)
    )
    assert one.observation_scale == copied.observation_scale
    assert one.observation_scale[0] > 0
    assert one.interface == copied.interface
    assert default_cells(one) == default_cells(copied)
    late = one.make("normal", Perturbation("observation_delay", 3.0))
    first = late.reset(seed=0)[0]
    np.testing.assert_array_equal(late.step(np.zeros(2, np.float32))[0], first)
