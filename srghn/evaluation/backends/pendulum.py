"""Pendulum-v1 without its environment: the same step for all lanes at once.

The same returns as Gymnasium's `PendulumEnv`, bit for bit, on the same seeds and actions: its
expressions, in its order and its widths, on arrays where it has scalars. NumPy rounds both alike,
but for squares: of a scalar it takes the C library's `pow`, whose last bit can differ from `x * x`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.envs.classic_control import pendulum as its
from numpy.typing import NDArray

from srghn.compiled import compiled
from srghn.evaluation.backends.gymnasium import LANES
from srghn.evaluation.backends.special import Bare, Env, SpecialBackend
from srghn.evaluation.base import Evaluation, Float32, Float64, Int64, Policies, Progress
from srghn.evaluation.episodes import Episodes, Mask
from srghn.evaluation.policies.forward import Forward, make_forward
from srghn.evaluation.task import Task


class _World(NamedTuple):
    """A real environment, for its constants and its resets, and the steps of an episode."""

    env: PendulumEnv
    limit: int


class PendulumBackend(SpecialBackend[_World]):
    """Plays Pendulum-v1; where a wrapper perturbs it, the general backend does."""

    name = "pendulum"
    ids = ("Pendulum-v1",)

    @classmethod
    def read(cls, env: Env) -> _World | None:
        bare = Bare.of(env, PendulumEnv)
        if bare is None or bare.view is not None or bare.env.render_mode is not None:
            return None
        return _World(bare.env, bare.limit) if squares_as_numpy() else None

    def play(
        self, policies: Policies, task: Task, world: _World, progress: Progress | None
    ) -> Evaluation:
        with make_forward(policies, task.version.interface, LANES) as forward:
            return _Episodes(forward, len(policies), task.seeds, world).run(progress)


class _Episodes(Episodes):
    def __init__(self, forward: Forward, individuals: int, seeds: Int64, world: _World) -> None:
        super().__init__(forward, individuals, seeds, world.limit)
        self.env, self.state = world.env, np.zeros((2, LANES))

    def begin(self, lane: int, seed: int) -> None:
        self.env.reset(seed=int(self.seeds[seed]))
        self.state[:, lane] = self.env.state

    def observe(self) -> Float32:
        angle, speed = self.state
        return np.stack([np.cos(angle), np.sin(angle), speed], axis=1).astype(np.float32)

    def advance(self, actions: NDArray[Any], running: Int64) -> tuple[Float64, Mask]:
        env, (angle, speed) = self.env, self.state[:, running]
        torque = np.clip(actions[running, 0], -env.max_torque, env.max_torque)
        normalize: Any = its.angle_normalize
        costs = power(normalize(angle), 2.0) + 0.1 * power(speed, 2.0) + 0.001 * power(torque, 2.0)
        gravity, push = 3 * env.g / (2 * env.l), 3.0 / (env.m * env.l**2)
        speed = speed + (gravity * np.sin(angle) + push * torque) * env.dt
        speed = np.clip(speed, -env.max_speed, env.max_speed)
        self.state[:, running] = angle + speed * env.dt, speed
        return -costs, np.zeros(running.size, dtype=np.bool_)


@compiled
def power(values: NDArray[Any], exponent: float) -> Any:
    """`values ** exponent` by the C library. A constant exponent of 2 would become a product."""
    result = np.empty_like(values)
    for k in range(values.size):
        result[k] = values[k] ** values.dtype.type(exponent)
    return result


@lru_cache(maxsize=1)
def squares_as_numpy() -> bool:
    """Whether `power` squares as NumPy squares scalars, in both widths."""
    wide = np.linspace(-8.0, 8.0, 4001)
    return all(
        np.array_equal(power(values, 2.0), np.array([value**2 for value in values]))
        for values in (wide, wide.astype(np.float32))
    )
