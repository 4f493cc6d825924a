"""Every perturbation does what it says, reproducibly, and nothing at its neutral severity."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srghn.config import EnvParams
from srghn.envs import EnvVersion, Perturbation, default_cells, kinds, parse, pin, registered
from srghn.envs.disturb import (
    ActionDelay,
    ActionDrop,
    ActionNoise,
    ActionRepeat,
    ObservationBias,
    ObservationDelay,
    ObservationNoise,
    ObservationScaling,
    SensorDropout,
)
from srghn.envs.perturb import GENERIC
from srghn.errors import ConfigError, EnvVersionError

NEEDS = {"box2d": "Box2D", "mujoco": "mujoco"}
NEUTRAL = {name: kind.neutral for name, kind in GENERIC.items()} | {"wind": 0}
STRONG = {"action_noise": 1, "action_delay": 2, "observation_delay": 2, "action_repeat": 3}
_PINNED: dict[str, EnvVersion] = {}


def version_of(world: str) -> EnvVersion:
    spec = registered()[world]
    if spec.extra:
        pytest.importorskip(NEEDS[spec.extra], reason=f"needs srghn[{spec.extra}]")
    if world not in _PINNED:
        _PINNED[world] = pin(EnvParams(id=world))
    return _PINNED[world]


def episode(env: Any, version: EnvVersion, seed: int, steps: int = 12) -> np.ndarray:
    """Observations and rewards of fixed outputs, (steps, size + 1)."""
    rng = np.random.default_rng(seed)
    outputs = rng.standard_normal((steps, version.interface.action_size)).astype(np.float32)
    rows = [np.append(env.reset(seed=seed)[0], 0.0)]
    for action in version.interface.decode(outputs):
        observation, reward, terminated, truncated, _ = env.step(action)
        rows.append(np.append(observation, float(reward)))
        if terminated or truncated:
            break
    return np.stack(rows)


WORLDS_AND_KINDS = [(world, kind) for world, spec in registered().items() for kind in kinds(spec)]


@pytest.mark.parametrize(("world", "kind"), WORLDS_AND_KINDS)
def test_perturbation_acts_is_reproducible_and_can_be_neutral(world: str, kind: str) -> None:
    version = version_of(world)
    mode = version.modes[-1]
    plain = episode(version.make(mode), version, 3)
    strong = Perturbation(kind, STRONG.get(kind, 0.5))
    env = version.make(mode, strong)
    first = episode(env, version, 3)
    other = episode(env, version, 4)
    again = episode(env, version, 3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, episode(version.make(mode, strong), version, 3))
    assert not np.array_equal(first, plain)
    assert not np.array_equal(first, other)
    if kind != "wind":  # enabling wind draws from the world's generator, at any strength
        neutral = version.make(mode, Perturbation(kind, NEUTRAL.get(kind, 1)))
        np.testing.assert_array_equal(episode(neutral, version, 3), plain)


@given(st.from_regex(r"[a-z_]{3,20}", fullmatch=True), st.floats(0.001, 1))
def test_text_form_is_read_back(name: str, severity: float) -> None:
    if name in ("action_delay", "observation_delay", "action_repeat"):
        severity = 2.0
    perturbation = Perturbation(name, severity)
    assert parse(str(perturbation)) == perturbation


def test_text_form_is_short() -> None:
    assert str(parse("observation_noise:0.10")) == "observation_noise:0.1"
    assert str(parse(" action_delay:2 ")) == "action_delay:2"
    assert str(Perturbation("observation_noise", np.float64(0.1))) == "observation_noise:0.1"


@pytest.mark.parametrize("text", ["", "gravity", "gravity:", ":1", "gravity:heavy", "gravity:nan"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="kind:severity"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("observation_noise:-0.1", "0 or more"),
        ("action_delay:1.5", "whole number"),
        ("action_delay:1e30", "below"),
        ("action_drop:1.1", "probability"),
        ("gravity:0", "above 0"),
        ("gravity:inf", "above 0"),
    ],
)
def test_severity_out_of_range_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse(text)


@pytest.mark.parametrize("given", [(3, 0.1), ("observation_noise", "much"), ("gravity", None)])
def test_what_is_no_kind_and_severity_is_refused_in_one_line(given: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigError, match=r"such as Perturbation\('observation_noise', 0.1\), got"):
        Perturbation(*given)


def test_lunar_lander_refuses_more_gravity_than_gymnasium_does() -> None:
    with pytest.raises(EnvVersionError, match="-12"):
        version_of("LunarLander-v3").make("normal", parse("gravity:1.3"))


class Echo:
    """Records what reaches the world."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def reset(self, **kwargs: Any) -> Any:
        self.got.clear()
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.got.append(action)
        return np.zeros(2, dtype=np.float32), 0.0, False, False, {}


def sent(wrapper: Any, echo: Echo, actions: list[int], seed: int = 1) -> list[int]:
    wrapper.reset(seed=seed)
    for action in actions:
        wrapper.step(action)
    return list(echo.got)


def wrap(kind: type, severity: Any) -> tuple[Any, Echo]:
    echo = Echo()
    wrapper = kind.__new__(kind)

    class World(gym.Env):  # type: ignore[type-arg]
        reset = staticmethod(echo.reset)  # type: ignore[assignment]
        step = staticmethod(echo.step)  # type: ignore[assignment]

    wrapper.__init__(World(), severity)
    return wrapper, echo


def test_delay_executes_what_was_chosen_before() -> None:
    wrapper, echo = wrap(ActionDelay, 2)
    assert sent(wrapper, echo, [7, 1, 2, 3, 4]) == [7, 7, 7, 1, 2]
    assert sent(wrapper, echo, [5, 6]) == [5, 5]


def test_drop_repeats_the_last_executed_action_at_its_rate() -> None:
    wrapper, echo = wrap(ActionDrop, 0.25)
    chosen = list(range(4000))
    got = sent(wrapper, echo, chosen)
    lost = sum(a != b for a, b in zip(chosen, got, strict=True))
    assert 0.22 < lost / len(chosen) < 0.28
    assert got[0] == 0
    assert all(b in (a, got[i - 1]) for i, (a, b) in enumerate(zip(chosen, got, strict=True)) if i)


def test_noise_has_the_standard_deviation_it_says() -> None:
    wrapper, _ = wrap(ObservationNoise, np.array([0.5, 0.0], dtype=np.float32))
    wrapper.reset(seed=3)
    seen = np.stack([wrapper.step(0)[0] for _ in range(4000)])
    assert abs(seen[:, 0].std() - 0.5) < 0.03
    assert abs(seen[:, 0].mean()) < 0.03
    assert (seen[:, 1] == 0).all()
    assert seen.dtype == np.float32


def test_flags_keep_still_under_noise() -> None:
    version = version_of("LunarLander-v3")
    assert version.observation_scale[6:] == (0.0, 0.0)
    assert min(version.observation_scale[:6]) > 0
    env = version.make("normal", parse("observation_noise:1"))
    rows = episode(env, version, 3)
    assert np.isin(rows[:, 6:8], (0, 1)).all()


@pytest.mark.parametrize("world", registered())
def test_default_cells_are_known_to_the_world_and_go_by_twos(world: str) -> None:
    version = version_of(world)
    cells = default_cells(version)
    assert 6 <= len(cells) <= 10
    assert len(set(cells)) == len(cells)
    names = [cell.name for cell in cells]
    assert set(names) <= set(kinds(registered()[world]))
    assert all(names.count(name) == 2 for name in names)
    for cell in cells:
        version.make(version.modes[0], cell).close()


def test_unknown_kind_guesses() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pole_length'"):
        version_of("CartPole-v1").make("normal", parse("pole_lenght:2"))


class Counting(gym.Env[Any, Any]):
    """Shows the number of the step, twice, and keeps what reaches it."""

    def __init__(self, action_space: gym.Space[Any]) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = action_space
        self.got: list[Any] = []

    def reset(self, **options: Any) -> Any:
        self.got.clear()
        return np.ones(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.got.append(action)
        return np.full(2, 1 + len(self.got), np.float32), 0.0, False, False, {}


def seen(env: Any, steps: int, action: Any = 0) -> np.ndarray:
    rows = [env.reset(seed=5)[0]]
    return np.stack(rows + [env.step(action)[0] for _ in range(steps)])


def test_bias_is_one_constant_an_episode_up_or_down() -> None:
    env = ObservationBias(Counting(gym.spaces.Discrete(2)), np.array([0.5, 0.0], np.float32))
    rows = seen(env, 4) - np.arange(1, 6)[:, None]
    assert set(np.abs(rows[:, 0])) == {0.5}
    assert len(set(rows[:, 0])) == 1
    assert (rows[:, 1] == 0).all()
    signs = {float(env.reset(seed=seed)[0][0]) for seed in range(20)}
    assert signs == {0.5, 1.5}


def test_scaling_leaves_elements_that_never_change() -> None:
    env = ObservationScaling(Counting(gym.spaces.Discrete(2)), np.array([2.0, 1.0], np.float32))
    np.testing.assert_array_equal(seen(env, 2), [[2, 1], [4, 2], [6, 3]])


def test_dropout_reads_zero_at_its_rate() -> None:
    rows = seen(SensorDropout(Counting(gym.spaces.Discrete(2)), 0.25), 3000)
    assert 0.22 < (rows == 0).mean() < 0.28
    assert ((rows == 0) | (rows == np.arange(1, 3002)[:, None])).all()


def test_delayed_observations_are_those_of_before() -> None:
    rows = seen(ObservationDelay(Counting(gym.spaces.Discrete(2)), 2), 4)
    np.testing.assert_array_equal(rows[:, 0], [1, 1, 1, 2, 3])


def test_repeat_executes_every_nth_choice() -> None:
    world = Counting(gym.spaces.Discrete(9))
    env = ActionRepeat(world, 3)
    env.reset(seed=1)
    for action in range(7):
        env.step(action)
    assert world.got == [0, 0, 0, 3, 3, 3, 6]


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (gym.spaces.Discrete(4, start=-1), 2),
        (gym.spaces.MultiDiscrete([3, 5]), np.array([1, 4])),
        (gym.spaces.MultiBinary((2, 2)), np.ones((2, 2), np.int8)),
    ],
)
def test_action_noise_draws_another_choice_at_its_rate(space: Any, action: Any) -> None:
    world = Counting(space)
    seen(ActionNoise(world, 0.5), 2000, action)
    assert all(space.contains(np.asarray(got).astype(space.dtype)) for got in world.got)
    same = np.mean([np.equal(got, action).mean() for got in world.got])
    counts = getattr(space, "nvec", np.array([getattr(space, "n", 2)])).astype(float)
    least = np.array([2.0]) if isinstance(space, gym.spaces.MultiBinary) else counts
    assert abs(same - (0.5 + 0.5 * (1 / least).mean())) < 0.05


def test_action_noise_of_a_box_is_a_share_of_half_its_range_and_stays_inside() -> None:
    low, high = np.array([-4, -np.inf], np.float32), np.array([4, np.inf], np.float32)
    world = Counting(gym.spaces.Box(low, high))
    seen(ActionNoise(world, 0.25), 4000, np.zeros(2, np.float32))
    got = np.stack(world.got)
    assert got.dtype == np.float32
    assert np.allclose(got.std(axis=0), [1.0, 0.25], rtol=0.1)
    seen(ActionNoise(world, 1.0), 500, np.zeros(2, np.float32))
    assert np.abs(np.stack(world.got)[:, 0]).max() == 4
    fine = Counting(gym.spaces.Box(-0.1, 0.1, (1,), np.float64))  # .1 is more in float32
    seen(ActionNoise(fine, 1.0), 50, np.zeros(1, np.float32))
    assert all(fine.action_space.contains(got.astype(np.float64)) for got in fine.got)
