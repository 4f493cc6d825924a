"""Wrappers for environments that nearly fit, for `env.wrappers: [{path: ..., kwargs: {...}}]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from srghn.errors import EnvVersionError


class WeightedReward(gym.RewardWrapper[Any, Any]):
    """A vector of rewards as one number: their sum by `weights`, one a component."""

    def __init__(self, env: gym.Env[Any, Any], weights: Sequence[float]) -> None:
        super().__init__(env)
        self.weights = np.array(weights, dtype=np.float64)

    def reward(self, reward: Any) -> float:
        components = np.asarray(reward, dtype=np.float64)
        if components.shape != self.weights.shape:
            raise EnvVersionError(
                f"WeightedReward has {len(self.weights)} weights, the reward has shape "
                f"{components.shape}; give one weight a component"
            )
        return float(components @ self.weights)


class Elements(gym.ObservationWrapper[Any, Any, Any]):
    """Some elements of a flat observation, by index: positions without velocities, say."""

    def __init__(self, env: gym.Env[Any, Any], keep: Sequence[int]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise EnvVersionError(f"Elements takes a flat Box of observations, got {space}")
        self.keep = [int(k) for k in keep]
        if not self.keep or not set(self.keep) <= set(range(space.shape[0])):
            raise EnvVersionError(
                f"Elements keeps indices of 0 to {space.shape[0] - 1}, got {list(keep)}"
            )
        self.observation_space = gym.spaces.Box(
            space.low[self.keep], space.high[self.keep], dtype=space.dtype.type
        )

    def observation(self, observation: Any) -> Any:
        return np.asarray(observation)[self.keep]
