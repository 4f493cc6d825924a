"""The wrappers behind the perturbations that fit every world.

Each draws from a stream named by the episode's seed, so a perturbed episode is as reproducible as
a plain one and shares its world's own randomness with it (common random numbers).
"""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np

from srghn.envs.interface import Float32
from srghn.envs.perturb import DELAY, DROP, NOISE, Perturbation
from srghn.seeding import stream

Env = gym.Env[Any, Any]


class ObservationNoise(gym.Wrapper[Any, Any, Any, Any]):
    """Adds Gaussian noise of standard deviation `scale` (observation_size,) to observations."""

    def __init__(self, env: Env, scale: Float32) -> None:
        super().__init__(env)
        self.scale = scale
        self._rng = stream(0, NOISE)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._rng = stream(seed, "perturbation", NOISE)
        return self._noisy(observation), info

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        return self._noisy(observation), *rest

    def _noisy(self, observation: Float32) -> Float32:
        noise = self._rng.standard_normal(observation.shape, dtype=np.float32)
        return observation + noise * self.scale


class ActionDelay(gym.Wrapper[Any, Any, Any, Any]):
    """Step t executes the action chosen at step max(0, t - delay)."""

    def __init__(self, env: Env, delay: int) -> None:
        super().__init__(env)
        self._waiting: deque[Any] = deque(maxlen=delay + 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._waiting.clear()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self._waiting.append(action)
        return self.env.step(self._waiting[0])


class ActionDrop(gym.Wrapper[Any, Any, Any, Any]):
    """Loses actions at random; the last executed one is repeated, the first is never lost."""

    def __init__(self, env: Env, probability: float) -> None:
        super().__init__(env)
        self.probability = probability
        self._rng = stream(0, DROP)
        self._last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None:
            self._rng = stream(seed, "perturbation", DROP)
        self._last = None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        lost = self._rng.random() < self.probability
        if self._last is None or not lost:
            self._last = action
        return self.env.step(self._last)


def disturb(env: Env, perturbation: Perturbation, scale: Float32) -> Env:
    """Wrap a flat world; `scale` (observation_size,) is the spread that noise is a share of."""
    if perturbation.name == NOISE:
        return ObservationNoise(env, np.float32(perturbation.severity) * scale)
    if perturbation.name == DELAY:
        return ActionDelay(env, int(perturbation.severity))
    assert perturbation.name == DROP
    return ActionDrop(env, perturbation.severity)
