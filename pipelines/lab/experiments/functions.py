"""Two-dimensional functions whose optimum moves, so that the right step size is unknown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]


def sphere(x: Point) -> float:
    return float((x**2).sum())


def rosenbrock(x: Point) -> float:
    """A function with a curved valley, shifted so that the optimum is at the origin."""
    first, second = x + 1
    return float(100 * (second - first**2) ** 2 + (1 - first) ** 2)


def rastrigin(x: Point) -> float:
    """A function with many local optima around the one at the origin."""
    return float(20 + (x**2 - 10 * np.cos(2 * math.pi * x)).sum())


FUNCTIONS: Mapping[str, Callable[[Point], float]] = {
    "sphere": sphere,
    "rosenbrock": rosenbrock,
    "rastrigin": rastrigin,
}


class MovingFunction(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One step: the action is a point in the plane, the reward minus the function's value there.

    Observes the constant 1. Modes: home (optimum at (10, -10)), away (at (-10, 10), 28.3 from it).
    After Pedersen et al. 2025, arXiv:2512.16406, section on 2-D functions.

    ## Version history
    * v1: sphere, rosenbrock and rastrigin.
    """

    modes = ("home", "away")

    def __init__(self, function: str, mode: str) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.value = FUNCTIONS[function]
        self.optimum = np.array([10.0, -10.0]) * (1 if mode == "home" else -1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        return np.ones(1, dtype=np.float32), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], SupportsFloat, bool, bool, dict[str, Any]]:
        error = self.value(np.asarray(action, dtype=np.float64) - self.optimum)
        return np.ones(1, dtype=np.float32), -error, True, False, {}
