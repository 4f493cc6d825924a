"""Gymnasium's CartPole taken apart: what the fast backends must know to play it themselves."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv
from numpy.typing import NDArray

from srghn.config import PolicyParams
from srghn.envs.spaces import FlatWorld
from srghn.envs.switch import ActionOrder
from srghn.evaluation.base import (
    Backend,
    Evaluation,
    Int64,
    Policies,
    Progress,
    make_backend,
)
from srghn.evaluation.gymnasium_backend import check_call

if TYPE_CHECKING:
    from srghn.envs.perturb import Perturbation
    from srghn.envs.version import EnvVersion

#: Wrappers that change nothing that an episode consists of.
_NEUTRAL = (FlatWorld, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)
#: Order of `World.physics`: attributes of Gymnasium's `CartPoleEnv`.
PHYSICS = (
    "gravity", "masspole", "total_mass", "length", "polemass_length", "tau", "x_threshold",
    "theta_threshold_radians",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """One mode: `physics` by `PHYSICS`, the force of actions 0 and 1, the time limit in steps."""

    physics: NDArray[np.float64]
    forces: NDArray[np.float64]
    limit: int

    @classmethod
    def of(cls, env: gym.Env[Any, Any]) -> World | None:
        """Read from a real environment; None if anything in it is not plain CartPole."""
        actions, limits = [0, 1], []
        while isinstance(env, gym.Wrapper):
            if type(env) is ActionOrder:
                actions = [env.order[a] for a in actions]
            elif type(env) is gym.wrappers.TimeLimit:
                limits.append(env._max_episode_steps)
            elif type(env) not in _NEUTRAL:
                return None
            env = env.env
        if type(env) is not CartPoleEnv or env._sutton_barto_reward or not limits:
            return None
        physics = np.array([getattr(env, name) for name in PHYSICS], dtype=np.float64)
        forces = np.array([-env.force_mag, env.force_mag])[actions]
        return cls(physics, forces, min(limits))


class CartPoleBackend(Backend):
    """What both fast backends share: which worlds they play, and who plays the others."""

    #: Name of the backend that plays what this one does not.
    fallback = "gymnasium"

    def __init__(self, version: EnvVersion, policy: PolicyParams) -> None:
        super().__init__(version, policy)
        self._worlds: dict[tuple[str, ...], tuple[gym.Env[Any, Any], World | None]] = {}

    @classmethod
    def supports(cls, version: EnvVersion, policy: PolicyParams) -> bool:
        known = version.id in ("CartPole-v1", "CartPoleSwitch-v1")
        return known and version.backend == "gymnasium" and _plain(version)

    def plays(self, policies: Policies) -> bool:
        """Whether these policies are for this backend."""
        return True

    @abstractmethod
    def play(
        self,
        policies: Policies,
        version: EnvVersion,
        world: World,
        seeds: Int64,
        starts: NDArray[np.float64],
        progress: Progress | None,
    ) -> Evaluation:
        """Play every policy from every start (e, 4), the states that `seeds` (e,) give."""

    def evaluate(
        self,
        policies: Policies,
        version: EnvVersion,
        mode: str,
        seeds: Int64,
        *,
        perturbation: Perturbation | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        env, world = self._world(version, mode, perturbation)
        if world is None or not self.plays(policies):
            return self.general.evaluate(
                policies, version, mode, seeds, perturbation=perturbation, progress=progress
            )
        check_call(policies, version, seeds)
        return self.play(policies, version, world, seeds, start_states(env, seeds), progress)

    def _world(
        self, version: EnvVersion, mode: str, perturbation: Perturbation | None
    ) -> tuple[gym.Env[Any, Any], World | None]:
        key = (version.fingerprint, mode, str(perturbation))
        if key not in self._worlds:
            env = version.make(mode, perturbation)
            self._worlds[key] = env, World.of(env)
        return self._worlds[key]

    @cached_property
    def general(self) -> Backend:
        """Plays what this backend does not."""
        return make_backend(self.fallback, self.version, self.policy)

    def close(self) -> None:
        if "general" in self.__dict__:
            self.general.close()


def _plain(version: EnvVersion) -> bool:
    return World.of(version.make(version.modes[0])) is not None


def start_states(env: gym.Env[Any, Any], seeds: Int64) -> NDArray[np.float64]:
    """States (e, 4) that `reset(seed=...)` gives, before they are rounded for the policy."""
    cartpole = env.unwrapped
    assert isinstance(cartpole, CartPoleEnv)
    states = np.empty((len(seeds), 4), dtype=np.float64)
    for row, seed in zip(states, seeds.tolist(), strict=True):
        cartpole.reset(seed=seed)
        row[:] = cartpole.state
    return states
