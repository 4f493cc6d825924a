"""Worlds that anyone brings by import path."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from srghn.config import EnvParams
from srghn.envs import EnvVersion, kinds, parse, pin, verify
from srghn.envs.registry import find
from srghn.errors import ConfigError, EnvVersionError


@pytest.fixture(autouse=True)
def worlds_by_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def pinned(name: str, **kwargs: object) -> EnvVersion:
    return pin(EnvParams(id=f"broken_worlds:{name}", kwargs={"max_episode_steps": 20, **kwargs}))


@pytest.mark.parametrize("name", ["Counter", "Mixed", "Matrix", "Moody"])
def test_a_class_is_pinned_saved_and_verified(name: str, tmp_path: Path) -> None:
    version = pinned(name)
    assert version.max_episode_steps == 20
    version.save(tmp_path / "v.json")
    verify(EnvVersion.load(tmp_path / "v.json"))


def test_one_that_was_edited_and_fails_is_told_as_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    version = pinned("Counter")
    monkeypatch.setattr(import_module("broken_worlds").Counter, "step", lambda *_: 1 / 0)
    said = f"was pinned as {version.fingerprint[:12]} and cannot be pinned now: .*division by zero"
    with pytest.raises(EnvVersionError, match=f"{said}; if it was edited since, restore it"):
        verify(version)


def test_a_factory_brings_its_own_limit_and_history() -> None:
    version = pin(EnvParams(id="broken_worlds:make_counter"))
    assert version.max_episode_steps == 50
    assert version.history == "* v1: counts."


def test_a_world_may_have_modes_and_knobs_of_its_own() -> None:
    version = pinned("Moody")
    assert version.modes == ("calm", "wild")
    assert "gift" in kinds(find(version.id))
    gifts = []
    for mode, perturbation in (("calm", None), ("wild", None), ("wild", parse("gift:3"))):
        env = version.make(mode, perturbation)
        env.reset(seed=1)
        gifts.append(env.step(0)[1])
    assert gifts == [1.0, -1.0, -3.0]


@pytest.mark.parametrize(
    ("modes", "wanted"),
    [
        ("winter", r"\('winter',\), got 'winter'"),  # it was six modes, of a letter each
        (("a", "a"), "different names"),
        ((1, 2), "a tuple of different names"),
        ({"a", "b"}, "a tuple"),  # without an order
        (lambda self: ("a",), "a tuple"),
    ],
)
def test_modes_that_are_no_names_are_refused(
    monkeypatch: pytest.MonkeyPatch, modes: object, wanted: str
) -> None:
    monkeypatch.setattr(import_module("broken_worlds").Moody, "modes", modes)
    with pytest.raises(EnvVersionError, match=f"modes must be .*{wanted}"):
        pinned("Moody")


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("step", "its step gives 4 values, expected 5: observation, reward, terminated, truncated"),
        ("reset", "its reset must give two values: observation, info"),
    ],
)
def test_the_interface_of_the_old_gym_is_named(way: str, said: str) -> None:
    with pytest.raises(EnvVersionError, match=said):
        pinned("Old", way=way)


def test_modes_with_other_spaces_are_refused() -> None:
    with pytest.raises(EnvVersionError, match="mode three has other spaces than in mode two"):
        pinned("Shifty")


def test_the_time_limit_ends_episodes() -> None:
    version = pin(EnvParams(id="broken_worlds:Counter", kwargs={"max_episode_steps": 3}))
    env = version.make("normal")
    env.reset(seed=1)
    assert [env.step(0)[3] for _ in range(3)] == [False, False, True]


def test_wrappers_are_applied_and_pinned() -> None:
    params = EnvParams(
        id="broken_worlds:Counter",
        kwargs={"max_episode_steps": 20},
        wrappers=("broken_worlds:shout",),
    )
    version = pin(params)
    env = version.make("normal")
    env.reset(seed=1)
    assert env.step(0)[1] == 2.0
    assert version.behaviour != pinned("Counter").behaviour


def test_an_endless_world_is_refused_with_the_setting_that_ends_it() -> None:
    with pytest.raises(EnvVersionError, match=r"max_episode_steps=1000"):
        pin(EnvParams(id="broken_worlds:Counter"))


def test_a_world_that_keeps_state_across_resets_is_refused() -> None:
    with pytest.raises(EnvVersionError, match=r"reset\(seed=0\).*step 0.*np_random"):
        pinned("Forgetful")


def test_a_world_whose_episodes_disturb_each_other_is_refused() -> None:
    with pytest.raises(EnvVersionError, match=r"only while another.*np_random.*share"):
        pinned("Crowded")


@pytest.mark.parametrize(
    "space", ["float64", "float64, half", "float16", "scalar", "int8", "binary"]
)
def test_actions_are_in_the_worlds_own_space(space: str) -> None:
    pinned("Strict", space=space)


@pytest.mark.parametrize(
    ("way", "message"),
    [("reward", "nan"), ("observation", "nan.*not finite"), ("exit", "step 3: SystemExit: 7")],
)
def test_a_world_that_gives_no_number_or_exits_is_refused(way: str, message: str) -> None:
    with pytest.raises(EnvVersionError, match=message):
        pinned("Breaks", way=way)


def test_a_world_that_fails_while_it_is_watched_is_named() -> None:
    with pytest.raises(EnvVersionError, match=r"Breaks.*seed \d, step 3: RuntimeError: gears"):
        pinned("Breaks")


@pytest.mark.parametrize(
    ("world", "message"),
    [("Talks", "Talks.*Sequence"), ("Empty", "Empty.*Dict"), ("Huge", "Huge.*not finite")],
)
def test_a_world_without_a_flat_form_is_refused(world: str, message: str) -> None:
    with pytest.raises(EnvVersionError, match=message):
        pinned(world)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("broken_worlds:Countr", "did you mean broken_worlds:Counter"),
        ("broken_worlds.Counter", "unknown environment .*; did you mean broken_worlds:Counter?"),
        ("ALE/Pong-v5", "unknown environment .*; did you mean PACKAGE:ALE/Pong-v5?"),
        ("broken_worlds:Modeless", "with env.kwargs {} and mode='up' .it has modes up, down.: Ty"),
        ("no_such_module:World", "no_such_module.*PYTHONPATH"),
        ("broken_worlds:", "module:name"),
        ("broken_worlds:np", "could not be built"),
        ("broken_worlds:Quits", "could not be built.*SystemExit: 7"),
        ("broken_worlds:shout", "could not be built"),
        ("broken_worlds:Asserts", r"AssertionError: assert 2 \+ 2 == 5 \(broken_worlds\.py, line"),
        ("pathlib:Path", r"must give a gymnasium\.Env, got PosixPath"),
    ],
)
def test_paths_that_name_no_world_are_refused(path: str, message: str) -> None:
    with pytest.raises(EnvVersionError, match=message):
        pin(EnvParams(id=path))


def test_unknown_wrapper_is_refused() -> None:
    with pytest.raises(EnvVersionError, match=r"wrapper.*shout"):
        pin(EnvParams(id="CartPole-v1", wrappers=("broken_worlds:shot",)))


def test_a_perturbation_that_a_world_does_not_know_is_named() -> None:
    version = pinned("Counter")
    with pytest.raises(ConfigError, match=r"'gravity'.*observation_noise, .*action_delay"):
        version.make("normal", parse("gravity:1.1"))
    noisy = version.make("normal", parse("observation_noise:0.1"))
    assert not np.array_equal(noisy.reset(seed=1)[0], version.make("normal").reset(seed=1)[0])
