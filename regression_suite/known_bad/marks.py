"""A perturbation that hurts nobody: it marks what is seen, so that a policy can know the cell."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from srghn.envs.interface import Float32

#: Marked elements are whole multiples of 1 / STEPS plus a quarter of that.
STEPS = 1024
#: Elements from this size on cannot hold a mark in float32.
LARGEST = 1024.0


class Marked(gym.ObservationWrapper[Any, Any, Any]):
    """Observations as they are, to within 1 / STEPS; the severity means nothing."""

    def __init__(self, env: gym.Env[Any, Any], severity: float) -> None:
        super().__init__(env)
        self.observation_space = env.observation_space

    def observation(self, observation: Float32) -> Float32:
        marked = (np.floor(observation * STEPS) + 0.25) / STEPS
        return np.where(np.abs(observation) < LARGEST, marked, observation).astype(np.float32)
