"""Ant-v5 by MuJoCo's own step, with rewards and observations computed for all lanes at once.

The same returns as Gymnasium's `AntEnv`, bit for bit, on the same seeds and actions: the same
MuJoCo calls on the same model, the same NumPy sums in the same order. Whatever kwargs Ant-v5 has
are read from a real environment, and so are dynamics that a perturbation changed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn.evaluation.backends.gymnasium import LANES
from srghn.evaluation.backends.special import Bare, Env, SpecialBackend
from srghn.evaluation.base import Evaluation, Float32, Float64, Int64, Policies, Progress
from srghn.evaluation.episodes import Episodes, Mask
from srghn.evaluation.policies.forward import Forward, make_forward
from srghn.evaluation.task import Task


class AntBackend(SpecialBackend["_World"]):
    """Plays Ant-v5; where a wrapper perturbs it, the general backend does."""

    name = "ant"
    ids = ("Ant-v5",)

    @classmethod
    def read(cls, env: Env) -> _World | None:
        from gymnasium.envs.mujoco.ant_v5 import AntEnv

        bare = Bare.of(env, AntEnv)
        return _World(bare.env, bare.limit) if bare and bare.view is None else None

    def play(
        self, policies: Policies, task: Task, world: _World, progress: Progress | None
    ) -> Evaluation:
        with make_forward(policies, task.version.interface, LANES) as forward:
            return _Episodes(forward, len(policies), task.seeds, world).run(progress)


class _World:
    """A real `AntEnv`, whose one simulation steps every lane in turn.

    MuJoCo's integration state is all that a step depends on: a lane is a row of it, loaded before
    the lane's step and saved after. So the simulation's memory stays near the processor.
    """

    def __init__(self, ant: Any, limit: int) -> None:
        import mujoco

        self.ant, self.limit, self.model, self.data = ant, limit, ant.model, ant.data
        self.step, self.finish = mujoco.mj_step, mujoco.mj_rnePostConstraint
        self.load, self.save = mujoco.mj_setState, mujoco.mj_getState
        self.kept = mujoco.mjtState.mjSTATE_INTEGRATION.value
        self.place = ant.data.body(ant._main_body).xpos
        self.contact = ant.data.cfrc_ext.reshape(-1)

    def columns(self, part: str) -> slice:
        """Where a part of the state, by its name in `mjtState`, stands in a row of it."""
        import mujoco

        bit = getattr(mujoco.mjtState, f"mjSTATE_{part}").value
        # the parts stand in the order of their bits
        start = mujoco.mj_stateSize(self.model, self.kept & (bit - 1))
        return slice(start, start + mujoco.mj_stateSize(self.model, bit))


class _Episodes(Episodes):
    def __init__(self, forward: Forward, individuals: int, seeds: Int64, world: _World) -> None:
        import mujoco

        super().__init__(forward, individuals, seeds, world.limit)
        self.world, self.ant, model = world, world.ant, world.model
        self.state = np.zeros((LANES, mujoco.mj_stateSize(model, world.kept)))
        self.control = self.state[:, world.columns("CTRL")]
        position, velocity = world.columns("QPOS"), world.columns("QVEL")
        self.motion = self.state[:, position.start : velocity.stop]
        self.contact, self.place = np.zeros((LANES, model.nbody * 6)), np.zeros(LANES)
        self.rows = np.zeros((LANES, forward.interface.observation_size), dtype=np.float32)
        self.dt = self.ant.dt

    def begin(self, lane: int, seed: int) -> None:
        self.ant.reset(seed=int(self.seeds[seed]))
        self._save(lane)
        self._see(np.array([lane]))

    def _save(self, lane: int) -> None:
        world = self.world
        world.save(world.model, world.data, self.state[lane], world.kept)
        self.contact[lane], self.place[lane] = world.contact, world.place[0]

    def _see(self, lanes: Int64) -> tuple[Float64, Float64]:
        """Write the observations of those lanes (k,); their motion and contact forces (k, ...)."""
        motion, (low, high) = self.motion[lanes], self.ant._contact_force_range
        forces = self.contact[lanes].clip(low, high)
        skipped = 2 if self.ant._exclude_current_positions_from_observation else 0
        parts = [motion[:, skipped:]]
        if self.ant._include_cfrc_ext_in_observation:
            parts.append(forces[:, 6:])
        self.rows[lanes] = np.concatenate(parts, axis=1)
        return motion, forces

    def observe(self) -> Float32:
        return self.rows

    def advance(self, actions: NDArray[Any], running: Int64) -> tuple[Float64, Mask]:
        world, skip = self.world, self.ant.frame_skip
        model, data, kept = world.model, world.data, world.kept
        before = self.place[running]
        self.control[running] = actions[running]
        for lane in running.tolist():
            world.load(model, data, self.state[lane], kept)
            world.step(model, data, skip)
            world.finish(model, data)
            self._save(lane)
        moved = self.place[running] - before
        return self._reward(actions[running], moved, *self._see(running))

    def _reward(
        self, actions: Float32, moved: Float64, motion: Float64, forces: Float64
    ) -> tuple[Float64, Mask]:
        """`AntEnv._get_rew`, in its order and its widths: the control cost is float32 there too."""
        ant, height = self.ant, motion[:, 2]
        low, high = ant._healthy_z_range
        healthy = np.isfinite(motion).all(axis=1) & (low <= height) & (height <= high)
        gains = moved / self.dt * ant._forward_reward_weight + healthy * ant._healthy_reward
        control = ant._ctrl_cost_weight * np.square(actions).sum(axis=1)
        contact = ant._contact_cost_weight * np.square(forces).sum(axis=1)
        over = ~healthy if ant._terminate_when_unhealthy else np.zeros(len(motion), dtype=bool)
        return gains - (control + contact), over
