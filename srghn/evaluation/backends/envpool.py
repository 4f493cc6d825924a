"""Worlds on EnvPool, many at once: one environment of a pool for each episode.

EnvPool seeds an environment when it is made and never again, so a call makes a pool with every
episode's seed in it, resets all of them once, and steps those that run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srghn.config import NetworkParams
from srghn.envs.pooled import PooledWorld
from srghn.evaluation.backends.gymnasium import LANES
from srghn.evaluation.backends.special import Bare, Env, SpecialBackend
from srghn.evaluation.base import Evaluation, Float32, Float64, Int64, Policies, Progress
from srghn.evaluation.episodes import Episodes, Mask
from srghn.evaluation.policies.forward import Forward, make_forward
from srghn.evaluation.task import Task

if TYPE_CHECKING:
    from srghn.envs.version import EnvVersion


class EnvPoolBackend(SpecialBackend["_Pool"]):
    """Plays worlds whose version says `backend: envpool`; those with other wrappers one by one."""

    name = "envpool"

    @classmethod
    def supports(cls, version: EnvVersion, network: NetworkParams) -> bool:
        return version.backend == "envpool" and cls.read(version.make(version.modes[0])) is not None

    @classmethod
    def read(cls, env: Env) -> _Pool | None:
        bare = Bare.of(env, PooledWorld)
        return _Pool(bare) if bare and bare.view is None else None

    def play(
        self, policies: Policies, task: Task, world: _Pool, progress: Progress | None
    ) -> Evaluation:
        with make_forward(policies, task.version.interface, LANES) as forward:
            return _Episodes(forward, len(policies), task.seeds, world).run(progress)


class _Pool:
    """What a single pooled world is made of, so that many can be made like it."""

    def __init__(self, bare: Bare) -> None:
        self.world, self.limit = bare.env, bare.limit
        self.order = None if bare.order is None else np.array(bare.order, dtype=np.int64)

    def open(self, seeds: Int64) -> Any:
        """Environments (k,) with those seeds."""
        pools, name, kwargs = self.world._pools, self.world._world, self.world._kwargs
        options = {"num_envs": len(seeds), "num_threads": 1, "env_seed": seeds.tolist()}
        return pools.make_gymnasium(name, **options, **kwargs)


class _Episodes(Episodes):
    def __init__(self, forward: Forward, individuals: int, seeds: Int64, pool: _Pool) -> None:
        super().__init__(forward, individuals, seeds, pool.limit)
        self.order = pool.order
        self.envs = pool.open(np.tile(seeds, individuals))
        self.first = self.envs.reset()[0].reshape(len(self.returns), -1)
        self.kind = self.envs.action_space.dtype
        self.rows = np.zeros((LANES, forward.interface.observation_size), dtype=np.float32)

    def begin(self, lane: int, seed: int) -> None:
        self.rows[lane] = self.first[self.episode[lane]]

    def observe(self) -> Float32:
        return self.rows

    def advance(self, actions: NDArray[Any], running: Int64) -> tuple[Float64, Mask]:
        chosen = actions[running] if self.order is None else self.order[actions[running]]
        playing = self.episode[running].astype(np.int32)
        seen, rewards, terminated, truncated, info = self.envs.step(
            chosen.astype(self.kind), playing
        )
        assert (info["env_id"] == playing).all()
        self.rows[running] = seen.reshape(len(seen), -1)
        return rewards.astype(np.float64), terminated | truncated
