"""Gymnasium's CartPole taken apart: what the fast backends need to step it themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv
from numpy.typing import NDArray

from srghn.evaluation.backends.special import Bare, Env, SpecialBackend
from srghn.evaluation.base import Int64

#: Order of `World.physics`: attributes of Gymnasium's `CartPoleEnv`.
PHYSICS = (
    "gravity", "masspole", "total_mass", "length", "polemass_length", "tau", "x_threshold",
    "theta_threshold_radians",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """One mode: `physics` by `PHYSICS`, the force of actions 0 and 1, the time limit in steps.

    `env` is the real environment, which knows where an episode starts. Element `i` of what the
    policy sees is `signs[i]` times element `source[i]` of the state.
    """

    env: CartPoleEnv
    physics: NDArray[np.float64]
    forces: NDArray[np.float64]
    limit: int
    source: Int64
    signs: NDArray[np.float32]

    @classmethod
    def of(cls, env: Env) -> World | None:
        """Read from a real environment; None if anything in it is not plain CartPole."""
        bare = Bare.of(env, CartPoleEnv)
        if bare is None or bare.env._sutton_barto_reward:
            return None
        cartpole: CartPoleEnv = bare.env
        physics = np.array([getattr(cartpole, name) for name in PHYSICS], dtype=np.float64)
        forces = np.array([-cartpole.force_mag, cartpole.force_mag])[list(bare.order or (0, 1))]
        source, signs = bare.view or (range(4), [1] * 4)
        return cls(
            cartpole,
            physics,
            forces,
            bare.limit,
            np.array(source, dtype=np.int64),
            np.array(signs, dtype=np.float32),
        )


class CartPoleBackend(SpecialBackend[World]):
    """What both fast backends share: which environments they support."""

    ids = ("CartPole-v1", "CartPoleSwitch-v1", "CartPoleRewired-v1")

    @classmethod
    def read(cls, env: Env) -> World | None:
        return World.of(env)


def start_states(env: Env, seeds: Int64) -> NDArray[np.float64]:
    """States (e, 4) that `reset(seed=...)` gives, before they are rounded for the policy."""
    cartpole = env.unwrapped
    assert isinstance(cartpole, CartPoleEnv)
    states = np.empty((len(seeds), 4), dtype=np.float64)
    for row, seed in zip(states, seeds.tolist(), strict=True):
        cartpole.reset(seed=seed)
        row[:] = cartpole.state
    return states
