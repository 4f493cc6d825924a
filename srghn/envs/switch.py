"""What a mode does: the same environment with another meaning of the action numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from srghn.seeding import stream


class ActionOrder(gym.ActionWrapper[Any, Any, Any]):
    """Action `a` of the policy is action `order[a]` of the world inside.

    Observations, rewards and ends are untouched, so nothing tells a policy of the switch but its
    fitness. `order` must be a permutation of 0..n-1 of a `Discrete(n)` space.
    """

    def __init__(self, env: gym.Env[Any, Any], order: Sequence[int]) -> None:
        super().__init__(env)
        space = env.action_space
        assert isinstance(space, gym.spaces.Discrete)
        assert space.start == 0
        assert sorted(order) == list(range(int(space.n)))
        self.order = tuple(order)

    def action(self, action: Any) -> int:
        return self.order[int(action)]


class ObservationOrder(gym.ObservationWrapper[Any, Any, Any]):
    """Element `i` of what the policy observes is `signs[i]` times element `order[i]` of the inside.

    `order` must be a permutation of 0..n-1 of a flat Box of n elements, `signs` are 1 or -1. The
    space has no bounds, so that it is the same in whatever order.
    """

    def __init__(self, env: gym.Env[Any, Any], order: Sequence[int], signs: Sequence[int]) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, gym.spaces.Box)
        assert sorted(order) == list(range(space.shape[0]))
        assert len(signs) == len(order)
        assert set(signs) <= {1, -1}
        self.order, self.signs = tuple(order), tuple(signs)
        self._order, self._signs = list(order), np.array(signs, dtype=space.dtype)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, space.shape, np.float32)

    def observation(self, observation: Any) -> Any:
        return observation[self._order] * self._signs


def rewired(env: gym.Env[Any, Any], series: int, number: int) -> gym.Env[Any, Any]:
    """Environment `number` of a series without repeats: observations and actions are reordered.

    World 0 is as `env`. Any other has the observations in another order and with other signs,
    and the actions in another order, drawn by (series, number); no two of a series have the same
    observations.
    """
    order, signs, actions = _wiring(env, series, number)
    return ActionOrder(ObservationOrder(env, order, signs), actions)


def _wiring(
    env: gym.Env[Any, Any], series: int, number: int
) -> tuple[list[int], list[int], list[int]]:
    """Drawn one after another, so that a wiring that was there before is drawn again."""
    assert isinstance(env.observation_space, gym.spaces.Box)
    assert isinstance(env.action_space, gym.spaces.Discrete)
    size, actions = env.observation_space.shape[0], int(env.action_space.n)
    draws = stream(series, "rewired")
    found = list(range(size)), [1] * size, list(range(actions))
    seen = [found[:2]]
    while len(seen) <= number:
        found = (
            draws.permutation(size).tolist(),
            (1 - 2 * draws.integers(0, 2, size)).tolist(),
            draws.permutation(actions).tolist(),
        )
        if found[:2] not in seen:
            seen.append(found[:2])
    return found
