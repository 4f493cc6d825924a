"""EnvPool's environments as single Gymnasium ones: for pinning, gates and single episodes.

EnvPool is another implementation with its own physics, so it makes another environment version.
It ignores `reset(seed=)`; a new pool is made for every seed, which costs some milliseconds. Its
vectorised pools are for a backend that plays populations.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from srghn.errors import EnvVersionError


class PooledWorld(gym.Env[Any, Any]):
    """One environment of an EnvPool pool of one.

    EnvPool states bounds of observations that its worlds do not keep, so none are stated here.
    """

    def __init__(self, world: str, **kwargs: Any) -> None:
        self._pools, self._world, self._kwargs = import_module("envpool"), world, kwargs
        self._pool = self._open(0)
        self.limit = int(self._pool.spec.config.max_episode_steps)
        seen = self._pool.observation_space
        self.observation_space = spaces.Box(-np.inf, np.inf, seen.shape, seen.dtype.type)
        self.action_space = self._pool.action_space

    def _open(self, seed: int) -> Any:
        return self._pools.make_gymnasium(self._world, num_envs=1, seed=seed, **self._kwargs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self._pool = self._open(seed)
        observations, _ = self._pool.reset()
        return observations[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):  # EnvPool would play it, or end the process
            raise ValueError(f"action {action!r} is not in {self.action_space}")
        batch = np.asarray(action, dtype=self.action_space.dtype)[None]
        observations, rewards, terminated, truncated, _ = self._pool.step(batch)
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}


def make(gymnasium_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """As `srghn.envs.worlds.make`, from EnvPool; raises `EnvVersionError` naming the extra."""
    try:
        env = PooledWorld(gymnasium_id, **kwargs)
    except ImportError as error:
        raise EnvVersionError(
            "backend envpool needs EnvPool, which is not installed: pip install 'srghn[envpool]'"
        ) from error
    return TimeLimit(env, env.limit)
