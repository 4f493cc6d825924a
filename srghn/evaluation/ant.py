"""Ant-v5 by MuJoCo's own step, with rewards and observations computed for all lanes at once.

The same returns as Gymnasium's `AntEnv`, bit for bit, on the same seeds and actions: the same
MuJoCo calls on the same model, the same NumPy sums in the same order. Whatever kwargs Ant-v5 has
are read from a real environment, and so are dynamics that a perturbation changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srghn.evaluation.base import Evaluation, Float32, Float64, Int64, Policies, Progress
from srghn.evaluation.episodes import Episodes, Mask
from srghn.evaluation.forward import Forward, make_forward
from srghn.evaluation.gymnasium_backend import LANES
from srghn.evaluation.special import Bare, Env, SpecialBackend

if TYPE_CHECKING:
    from srghn.envs.version import EnvVersion

#: Episodes abreast: few enough for the simulations' memory to stay near the processor.
ABREAST = 32


class AntBackend(SpecialBackend["_World"]):
    """Plays Ant-v5; where a wrapper perturbs it, the general backend does."""

    name = "mujoco"
    ids = ("Ant-v5",)

    @classmethod
    def read(cls, env: Env) -> _World | None:
        from gymnasium.envs.mujoco.ant_v5 import AntEnv

        bare = Bare.of(env)
        return _World(bare.env, bare.limit) if bare and type(bare.env) is AntEnv else None

    def play(
        self,
        policies: Policies,
        version: EnvVersion,
        world: _World,
        seeds: Int64,
        progress: Progress | None,
    ) -> Evaluation:
        with make_forward(policies, version.interface, LANES) as forward:
            return _Episodes(forward, len(policies), seeds, world).run(progress)


class _World:
    """A real `AntEnv`, which resets, and simulations that share its model, which step."""

    def __init__(self, ant: Any, limit: int) -> None:
        import mujoco

        self.ant, self.limit = ant, limit
        self.copy, self.step = mujoco.mj_copyData, mujoco.mj_step
        self.finish = mujoco.mj_rnePostConstraint
        self.lanes: list[_Lane] = []

    def lane(self, lane: int) -> _Lane:
        """That lane's simulation, made when it is first used."""
        import mujoco

        while len(self.lanes) <= lane:
            data = mujoco.MjData(self.ant.model)
            self.lanes.append(_Lane.of(data, self.ant.data.body(self.ant._main_body).id))
        return self.lanes[lane]


@dataclass(frozen=True)
class _Lane:
    """One simulation and views into its memory, which stay where they are."""

    data: Any
    control: Float64
    position: Float64
    velocity: Float64
    contact: Float64
    place: Float64

    @classmethod
    def of(cls, data: Any, body: int) -> _Lane:
        contact = data.cfrc_ext.reshape(-1)
        return cls(data, data.ctrl, data.qpos, data.qvel, contact, data.xpos[body, :1])


class _Episodes(Episodes):
    def __init__(self, forward: Forward, individuals: int, seeds: Int64, world: _World) -> None:
        super().__init__(forward, individuals, seeds, world.limit, ABREAST)
        model, self.world, self.ant = world.ant.model, world, world.ant
        self.state = np.zeros((LANES, model.nq + model.nv))
        self.contact = np.zeros((LANES, model.nbody * 6))
        self.place, self.nq = np.zeros(LANES), model.nq
        self.rows = np.zeros((LANES, forward.interface.observation_size), dtype=np.float32)

    def begin(self, lane: int, seed: int) -> None:
        self.ant.reset(seed=int(self.seeds[seed]))
        self.world.copy(self.world.lane(lane).data, self.ant.model, self.ant.data)
        self._read(lane)
        self._see(np.array([lane]))

    def _read(self, lane: int) -> None:
        simulation = self.world.lanes[lane]
        self.state[lane, : self.nq] = simulation.position
        self.state[lane, self.nq :] = simulation.velocity
        self.contact[lane] = simulation.contact
        self.place[lane] = simulation.place[0]

    def _see(self, lanes: Int64) -> tuple[Float64, Float64]:
        """Write the observations of those lanes (k,); their states and contact forces (k, ...)."""
        state, (low, high) = self.state[lanes], self.ant._contact_force_range
        forces = np.clip(self.contact[lanes], low, high)
        skipped = 2 if self.ant._exclude_current_positions_from_observation else 0
        parts = [state[:, skipped:]]
        if self.ant._include_cfrc_ext_in_observation:
            parts.append(forces[:, 6:])
        self.rows[lanes] = np.concatenate(parts, axis=1)
        return state, forces

    def observe(self) -> Float32:
        return self.rows

    def advance(self, actions: NDArray[Any], running: Int64) -> tuple[Float64, Mask]:
        world, model, skip = self.world, self.ant.model, self.ant.frame_skip
        before = self.place[running]
        for lane in running.tolist():
            simulation = world.lanes[lane]
            simulation.control[:] = actions[lane]
            world.step(model, simulation.data, skip)
            world.finish(model, simulation.data)
            self._read(lane)
        moved = self.place[running] - before
        return self._reward(actions[running], moved, *self._see(running))

    def _reward(
        self, actions: Float32, moved: Float64, state: Float64, forces: Float64
    ) -> tuple[Float64, Mask]:
        """`AntEnv._get_rew`, in its order and its widths: the control cost is float32 there too."""
        ant, height = self.ant, state[:, 2]
        low, high = ant._healthy_z_range
        healthy = np.isfinite(state).all(axis=1) & (low <= height) & (height <= high)
        gains = moved / ant.dt * ant._forward_reward_weight + healthy * ant._healthy_reward
        control = ant._ctrl_cost_weight * np.sum(np.square(actions), axis=1)
        contact = ant._contact_cost_weight * np.sum(np.square(forces), axis=1)
        over = ~healthy if ant._terminate_when_unhealthy else np.zeros(len(state), dtype=bool)
        return gains - (control + contact), over
