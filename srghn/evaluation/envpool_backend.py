"""Worlds on EnvPool, many at once: one environment of a pool for each episode.

EnvPool seeds an environment when it is made and never again, so a call makes a pool with every
episode's seed in it, resets all of them once, and steps those that run.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from srghn.config import PolicyParams
from srghn.envs.pooled import PooledWorld
from srghn.envs.spaces import FlatWorld
from srghn.envs.switch import ActionOrder
from srghn.evaluation.base import (
    Backend,
    Evaluation,
    Float32,
    Float64,
    Int64,
    Policies,
    Progress,
)
from srghn.evaluation.episodes import Episodes, Mask
from srghn.evaluation.forward import Forward, make_forward
from srghn.evaluation.gymnasium_backend import LANES, GymnasiumBackend, check_call

if TYPE_CHECKING:
    from srghn.envs.perturb import Perturbation
    from srghn.envs.version import EnvVersion

    Env = gym.Env[Any, Any]


class EnvPoolBackend(Backend):
    """Plays worlds whose version says `backend: envpool`; those with other wrappers one by one."""

    name = "envpool"

    @classmethod
    def supports(cls, version: EnvVersion, policy: PolicyParams) -> bool:
        return version.backend == "envpool" and _Pool.of(version.make(version.modes[0])) is not None

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
        pool = _Pool.of(version.make(mode, perturbation))
        if pool is None:
            return self.general.evaluate(
                policies, version, mode, seeds, perturbation=perturbation, progress=progress
            )
        check_call(policies, version, seeds)
        with make_forward(policies, version.interface, LANES) as forward:
            return _Episodes(forward, len(policies), seeds, pool).run(progress)

    @cached_property
    def general(self) -> Backend:
        """Plays what this backend does not: one environment a lane."""
        return GymnasiumBackend(self.version, self.policy)

    def close(self) -> None:
        if "general" in self.__dict__:
            self.general.close()


class _Pool:
    """What a single pooled world is made of, so that many can be made like it."""

    def __init__(self, world: PooledWorld, limit: int, order: NDArray[np.int64] | None) -> None:
        self.world, self.limit, self.order = world, limit, order

    @classmethod
    def of(cls, env: Env) -> _Pool | None:
        """Read from a real environment; None if anything is wrapped around it that we skip."""
        limits: list[int] = []
        order: NDArray[np.int64] | None = None
        while isinstance(env, gym.Wrapper):
            if type(env) is ActionOrder and order is None:
                order = np.array(env.order, dtype=np.int64)
            elif type(env) is gym.wrappers.TimeLimit:
                limits.append(env._max_episode_steps)
            elif type(env) is not FlatWorld:
                return None
            env = env.env
        return cls(env, min(limits), order) if type(env) is PooledWorld and limits else None

    def open(self, seeds: Int64) -> Any:
        """Environments (k,) with those seeds."""
        pools, name, kwargs = self.world._pools, self.world._world, self.world._kwargs
        options = {"num_envs": len(seeds), "num_threads": 1, "env_seed": seeds.tolist()}
        return pools.make_gymnasium(name, **options, **kwargs)


class _Episodes(Episodes):
    def __init__(self, forward: Forward, individuals: int, seeds: Int64, pool: _Pool) -> None:
        super().__init__(forward, individuals, seeds, pool.limit, LANES)
        self.order = pool.order
        self.envs = pool.open(np.tile(seeds, individuals))
        self.first = self._flat(self.envs.reset()[0])
        self.kind = self.envs.action_space.dtype
        self.rows = np.zeros((LANES, forward.interface.observation_size), dtype=np.float32)

    @staticmethod
    def _flat(observations: NDArray[Any]) -> Float32:
        return observations.reshape(len(observations), -1).astype(np.float32)

    def begin(self, lane: int, seed: int) -> None:
        self.rows[lane] = self.first[self.episode[lane]]

    def observe(self) -> Float32:
        return self.rows.copy()

    def advance(self, actions: NDArray[Any], running: Int64) -> tuple[Float64, Mask]:
        chosen = actions[running] if self.order is None else self.order[actions[running]]
        playing = self.episode[running].astype(np.int32)
        seen, rewards, terminated, truncated, info = self.envs.step(
            chosen.astype(self.kind), playing
        )
        assert np.array_equal(info["env_id"], playing)
        self.rows[running] = self._flat(seen)
        return rewards.astype(np.float64), terminated | truncated
