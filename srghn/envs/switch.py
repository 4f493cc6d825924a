"""What a mode does: the same world, where the numbers of the actions mean something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym


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
