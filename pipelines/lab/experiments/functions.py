"""Functions to minimise: in the plane, where the optimum moves, and of many variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def sphere(x: Values) -> float:
    return float((x**2).sum())


def rosenbrock(x: Values) -> float:
    """A function with a curved valley, shifted so that the optimum is at the origin."""
    first, second = x[:-1] + 1, x[1:] + 1
    return float((100 * (second - first**2) ** 2 + (1 - first) ** 2).sum())


def rastrigin(x: Values) -> float:
    """A function with many local optima around the one at the origin."""
    return float(10 * len(x) + (x**2 - 10 * np.cos(2 * math.pi * x)).sum())


FUNCTIONS: Mapping[str, Callable[[Values], float]] = {
    "sphere": sphere,
    "rosenbrock": rosenbrock,
    "rastrigin": rastrigin,
}


class Function(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One step: the action is a point, the reward minus the function's value there.

    Observes the constant 1.
    """

    def __init__(self, function: str, optimum: Values) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Box(-np.inf, np.inf, optimum.shape, np.float32)
        self.value, self.optimum = FUNCTIONS[function], optimum

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


class MovingFunction(Function):
    """Modes: home (optimum at (10, -10)), away (at (-10, 10), 28.3 from it).

    After Pedersen et al. 2025, arXiv:2512.16406, section on 2-D functions.

    ## Version history
    * v1: sphere, rosenbrock and rastrigin.
    """

    modes = ("home", "away")

    def __init__(self, function: str, mode: str) -> None:
        super().__init__(function, np.array([10.0, -10.0]) * (1 if mode == "home" else -1))


class StillFunction(Function):
    """A function of `dimensions` variables whose optimum stays at (3, -3, 3, ...).

    ## Version history
    * v1: sphere, rosenbrock and rastrigin.
    """

    def __init__(self, function: str, dimensions: int = 10) -> None:
        super().__init__(function, still_optimum(dimensions))


def still_optimum(dimensions: int) -> Values:
    """(3, -3, 3, ...), far from where founders are: their variables' spread is 0.6."""
    return np.where(np.arange(dimensions) % 2, -3.0, 3.0)
