"""A world that ends or hangs the worker that plays it, where an action is above 0.9."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np


class Perilous(gym.Env[Any, Any]):
    """Rewards are the action and a number drawn from the seed.

    `peril` is die, hang, raise or none; it spares the process `spared`. With a path as `flag` it
    strikes once and leaves the file; `sleep` seconds pass in each step.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, peril: str, spared: int, flag: str, sleep: float) -> None:
        self.peril, self.spared, self.flag, self.sleep = peril, spared, flag, sleep

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        if action[0] > 0.9 and os.getpid() != self.spared and not self._spent():
            self._strike()
        time.sleep(self.sleep)
        observation = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return observation, float(action[0] + self.np_random.uniform()), False, False, {}

    def _spent(self) -> bool:
        if not self.flag:
            return False
        if Path(self.flag).exists():
            return True
        Path(self.flag).touch()
        return False

    def _strike(self) -> None:
        if self.peril == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.peril == "hang":
            time.sleep(3600)


def world(
    peril: str = "none", spared: int = 0, flag: str = "", sleep: float = 0.0
) -> gym.Env[Any, Any]:
    """Ten steps an episode."""
    return gym.wrappers.TimeLimit(Perilous(peril, spared, flag, sleep), 10)
