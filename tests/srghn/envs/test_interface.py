"""The rule that turns outputs into actions, and the flat form of spaces."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from srghn.envs.interface import Interface
from srghn.envs.spaces import FlatWorld, read_interface
from srghn.errors import EnvVersionError


class World(gym.Env):  # type: ignore[type-arg]
    """Any pair of spaces; observes samples, ends after a step, remembers the action."""

    def __init__(self, observation: gym.Space, action: gym.Space) -> None:  # type: ignore[type-arg]
        self.observation_space, self.action_space = observation, action
        self.observation_space.seed(0)

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        self.action = action
        return self.observation_space.sample(), 0.0, True, False, {}


BOX = spaces.Box(-1, 1, (3,), np.float32)


def face(action: gym.Space, observation: gym.Space = BOX) -> Interface:  # type: ignore[type-arg]
    return read_interface(World(observation, action), "World-v0")


def test_discrete_takes_the_first_of_the_largest() -> None:
    found = face(spaces.Discrete(3, start=5))
    outputs = np.array([[0, 2, 2], [1, 1, 1], [-1, -2, 0]], dtype=np.float32)
    actions = found.decode(outputs)
    np.testing.assert_array_equal(actions, [6, 5, 7])
    assert actions.dtype == np.int64
    assert found.action_size == 3


def test_multidiscrete_takes_one_of_each_block() -> None:
    found = face(spaces.MultiDiscrete([3, 2], start=[1, 0]))
    outputs = np.array([[0, 9, 1, 5, 4], [3, 2, 1, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(found.decode(outputs), [[2, 0], [1, 0]])
    assert found.action_size == 5


def test_multibinary_is_two_outputs_a_bit() -> None:
    found = face(spaces.MultiBinary(2))
    np.testing.assert_array_equal(
        found.decode(np.array([[0, 1, 1, 0]], dtype=np.float32)), [[1, 0]]
    )


def test_box_is_clipped_and_scaled_where_it_has_two_bounds() -> None:
    low = np.array([0, -np.inf, 2, -np.inf], dtype=np.float32)
    high = np.array([10, np.inf, np.inf, 3], dtype=np.float32)
    found = face(spaces.Box(low, high))
    outputs = np.array([[0, 50, 0, 50], [-9, -50, 9, -9], [1, 0, 3, 3]], dtype=np.float32)
    np.testing.assert_array_equal(
        found.decode(outputs), [[5, 50, 2, 3], [0, -50, 9, -9], [10, 0, 3, 3]]
    )
    assert found.decode(outputs).dtype == np.float32


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0.125, 1e3)), min_size=1),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 2**32 - 1),
)
def test_every_decoded_box_action_is_in_its_space(
    bounds: list[tuple[float, float]], dtype: Any, s: int
) -> None:
    low = np.array([a for a, _ in bounds], dtype=dtype)
    space = spaces.Box(low, low + np.array([b for _, b in bounds], dtype=dtype), dtype=dtype)
    outputs = np.random.default_rng(s).standard_normal((5, len(bounds))).astype(np.float32) * 3
    for action in face(space).decode(outputs):
        assert space.contains(action), (action, space)


def test_actions_are_alike_but_for_rounding_in_the_unit_of_their_range() -> None:
    low = np.array([-1, -1000, -np.inf], dtype=np.float32)
    found = face(spaces.Box(low, np.array([1, 1000, np.inf], dtype=np.float32)))
    asked = np.array([[0.5, 500, 500]], dtype=np.float32)
    near, far = asked + np.float32([9e-6, 9e-3, 4e-3]), asked + np.float32([2e-5, 2e-2, 2e-2])
    np.testing.assert_array_equal(found.alike(near, asked), [[True, True, True]])
    np.testing.assert_array_equal(found.alike(far, asked), [[False, False, False]])
    assert not found.alike(asked * np.float32(np.nan), asked).any()
    away = face(spaces.Box(1000.0, 1002.0, (1,)))
    action = np.array([[1000.5]], dtype=np.float32)
    assert away.alike(np.nextafter(action, np.float32(2000)), action).all()
    assert not away.alike(action + np.float32(1e-3), action).any()
    largest = float(np.finfo(np.float32).max)
    vast = face(spaces.Box(-largest, largest, (1,)))
    assert not vast.alike(action, action + np.float32(1)).any()
    choices = face(spaces.Discrete(4))
    np.testing.assert_array_equal(choices.alike(np.array([1, 2]), np.array([1, 3])), [True, False])


def test_bounds_beyond_float32_are_none() -> None:
    largest = np.finfo(np.float64).max
    found = face(spaces.Box(-largest, largest, (1,), np.float64))
    np.testing.assert_array_equal(found.decode(np.float32([[7]])), [[7]])


def test_outputs_of_another_width_are_refused() -> None:
    with pytest.raises(EnvVersionError, match=r"\(n, 2\), got \(4, 3\)"):
        face(spaces.Discrete(2)).decode(np.zeros((4, 3), dtype=np.float32))
    with pytest.raises(EnvVersionError, match="discrete"):
        _ = face(spaces.Discrete(2)).box_rule


@pytest.mark.parametrize(
    "action",
    [spaces.Discrete(4), spaces.MultiDiscrete([2, 3]), spaces.Box(-1, np.inf, (2, 2), np.float32)],
)
def test_json_both_ways(action: gym.Space) -> None:  # type: ignore[type-arg]
    found = face(action)
    assert Interface.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_unknown_key_is_refused() -> None:
    data = {**face(spaces.Discrete(2)).to_dict(), "colour": "red"}
    with pytest.raises(EnvVersionError, match="colour"):
        Interface.from_dict(data)


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (spaces.Box(0, 255, (4, 3, 2), np.uint8), 24),
        (spaces.Discrete(5), 5),
        (spaces.MultiBinary(3), 3),
        (spaces.Dict({"b": spaces.Discrete(2), "a": BOX}), 5),
        (spaces.Tuple((BOX, spaces.Tuple((spaces.Discrete(3), BOX)))), 9),
    ],
)
def test_observations_are_flat_float32(space: gym.Space, size: int) -> None:  # type: ignore[type-arg]
    env = World(space, spaces.Discrete(2))
    found = read_interface(env, "World-v0")
    assert found.observation_size == size
    flat = FlatWorld(env, found)
    observation, _ = flat.reset(seed=1)
    assert observation.dtype == np.float32
    assert flat.observation_space.contains(observation)
    assert flat.observation_space.shape == (size,)


@pytest.mark.parametrize(
    "space", [spaces.Sequence(BOX), spaces.Graph(BOX, None), spaces.Box(0, 1, (0,))]
)
def test_observations_without_a_fixed_size_are_refused(space: gym.Space) -> None:  # type: ignore[type-arg]
    with pytest.raises(EnvVersionError, match=r"World-v0.*wrapper"):
        read_interface(World(space, spaces.Discrete(2)), "World-v0")


@pytest.mark.parametrize("space", [spaces.Dict({"a": BOX}), spaces.Box(0, 9, (2,), np.int32)])
def test_actions_of_another_kind_are_refused(space: gym.Space) -> None:  # type: ignore[type-arg]
    with pytest.raises(EnvVersionError, match=r"World-v0.*Discrete"):
        face(space)


def test_matrix_actions_arrive_in_their_shape() -> None:
    env = World(BOX, spaces.Box(-1, 1, (2, 2), np.float32))
    found = read_interface(env, "World-v0")
    flat = FlatWorld(env, found)
    flat.reset()
    flat.step(found.decode(np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32))[0])
    np.testing.assert_allclose(env.action, [[0.1, 0.2], [0.3, 0.4]])
