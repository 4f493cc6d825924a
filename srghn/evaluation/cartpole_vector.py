"""The CartPole family with any policy, its physics in NumPy over lanes of episodes.

Equal to Gymnasium bit for bit: the same NumPy functions in the same order, on arrays instead of
numbers. Policies see the same batches as in the general backend, so both give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srghn.evaluation.base import (
    Evaluation,
    Float32,
    Float64,
    Int64,
    Policies,
    Progress,
)
from srghn.evaluation.cartpole_world import CartPoleBackend, World
from srghn.evaluation.episodes import Episodes, Mask
from srghn.evaluation.forward import Forward, make_forward
from srghn.evaluation.gymnasium_backend import LANES

if TYPE_CHECKING:
    from srghn.envs.version import EnvVersion


class VectorisedCartPole(CartPoleBackend):
    """Plays torch modules and callables; worlds perturbed by wrappers go to the general backend."""

    name = "vectorised"

    def play(
        self,
        policies: Policies,
        version: EnvVersion,
        world: World,
        seeds: Int64,
        starts: Float64,
        progress: Progress | None,
    ) -> Evaluation:
        forward = make_forward(policies, version.interface, LANES)
        return _Episodes(forward, len(policies), seeds, world, starts).run(progress)


class _Episodes(Episodes):
    def __init__(
        self, forward: Forward, individuals: int, seeds: Int64, world: World, starts: Float64
    ) -> None:
        super().__init__(forward, individuals, seeds, world.limit, LANES)
        self.world, self.starts = world, starts
        self.state = np.zeros((4, LANES), dtype=np.float64)

    def begin(self, lane: int, seed: int) -> None:
        self.state[:, lane] = self.starts[seed]

    def observe(self) -> Float32:
        return np.ascontiguousarray(self.state.T, dtype=np.float32)

    def advance(self, actions: NDArray[Any], running: Int64) -> tuple[Float64, Mask]:
        state = self.state[:, running]
        step(state, self.world.forces[actions[running]], self.world.physics)
        self.state[:, running] = state
        x, _, theta, _ = state
        x_limit, theta_limit = self.world.physics[6], self.world.physics[7]
        over = (x < -x_limit) | (x > x_limit) | (theta < -theta_limit) | (theta > theta_limit)
        return np.ones(len(running)), over


def step(state: Float64, force: Float64, physics: Float64) -> None:
    """`CartPoleEnv.step` (Euler) on `state` (4, n), in place; `force` (n,)."""
    gravity, masspole, total_mass, length, polemass_length, tau = physics[:6]
    x, x_dot, theta, theta_dot = state
    costheta, sintheta = np.cos(theta), np.sin(theta)
    temp = (force + polemass_length * np.square(theta_dot) * sintheta) / total_mass
    thetaacc = (gravity * sintheta - costheta * temp) / (
        length * (4.0 / 3.0 - masspole * np.square(costheta) / total_mass)
    )
    xacc = temp - polemass_length * thetaacc * costheta / total_mass
    x += tau * x_dot
    x_dot += tau * xacc
    theta += tau * theta_dot
    theta_dot += tau * thetaacc
