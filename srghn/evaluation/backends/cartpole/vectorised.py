"""The CartPole family with any policy, its physics compiled over lanes of episodes.

Equal to Gymnasium bit for bit: the same operations in the same order, sine and cosine by the same
NumPy. Policies see the same batches as in the general backend, so both give the same bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn.compiled import compiled
from srghn.evaluation.backends.cartpole.world import CartPoleBackend, World, start_states
from srghn.evaluation.backends.gymnasium import LANES
from srghn.evaluation.base import (
    Evaluation,
    Float32,
    Float64,
    Int64,
    Policies,
    Progress,
)
from srghn.evaluation.episodes import Episodes, Mask
from srghn.evaluation.policies.forward import Forward, make_forward
from srghn.evaluation.task import Task


class VectorisedCartPole(CartPoleBackend):
    """Plays torch modules and callables; worlds perturbed by wrappers go to the general backend."""

    name = "cartpole"

    def play(
        self, policies: Policies, task: Task, world: World, progress: Progress | None
    ) -> Evaluation:
        with make_forward(policies, task.version.interface, LANES) as forward:
            return _Episodes(forward, len(policies), task.seeds, world).run(progress)


class _Episodes(Episodes):
    def __init__(self, forward: Forward, individuals: int, seeds: Int64, world: World) -> None:
        super().__init__(forward, individuals, seeds, world.limit)
        self.world, self.starts = world, start_states(world.env, seeds)
        self.state = np.zeros((4, LANES), dtype=np.float64)

    def begin(self, lane: int, seed: int) -> None:
        self.state[:, lane] = self.starts[seed]

    def observe(self) -> Float32:
        seen = self.state[self.world.source].T.astype(np.float32) * self.world.signs
        return np.ascontiguousarray(seen)

    def advance(self, actions: NDArray[Any], running: Int64) -> tuple[Float64, Mask]:
        theta, force = self.state[2, running], self.world.forces[actions[running]]
        over = step(self.state, running, force, np.sin(theta), np.cos(theta), self.world.physics)
        return np.ones(len(running)), over


@compiled
def step(
    state: Float64, running: Int64, force: Float64, sine: Float64, cosine: Float64, physics: Float64
) -> Mask:
    """`CartPoleEnv.step` (Euler) on columns `running` of `state` (4, lanes) in place; which ended.

    `force`, `sine` and `cosine` of the angle (running,), the last two by the NumPy that Gymnasium
    calls too.
    """
    gravity, masspole, total_mass, length = physics[0], physics[1], physics[2], physics[3]
    polemass_length, tau = physics[4], physics[5]
    over = np.empty(running.size, dtype=np.bool_)
    for k in range(running.size):
        lane = running[k]
        x_dot, theta_dot = state[1, lane], state[3, lane]
        temp = (force[k] + polemass_length * (theta_dot * theta_dot) * sine[k]) / total_mass
        thetaacc = (gravity * sine[k] - cosine[k] * temp) / (
            length * (4.0 / 3.0 - masspole * (cosine[k] * cosine[k]) / total_mass)
        )
        xacc = temp - polemass_length * thetaacc * cosine[k] / total_mass
        x = state[0, lane] + tau * x_dot
        theta = state[2, lane] + tau * theta_dot
        state[0, lane], state[2, lane] = x, theta
        state[1, lane] = x_dot + tau * xacc
        state[3, lane] = theta_dot + tau * thetaacc
        over[k] = x < -physics[6] or x > physics[6] or theta < -physics[7] or theta > physics[7]
    return over
