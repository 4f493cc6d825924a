"""Any Gymnasium environment, in this process: many episodes abreast, one environment a lane.

All running episodes take a step, then one forward pass answers all of them. A lane whose episode
ends takes the next one, so no step is spent on a finished episode; environments are reused.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from srghn.config import NetworkParams
from srghn.errors import FAILURES, EvaluationError
from srghn.evaluation.base import (
    Backend,
    Crash,
    Evaluation,
    Float32,
    Policies,
    Progress,
    check_call,
)
from srghn.evaluation.policies.forward import IDLE, Forward, describe, make_forward
from srghn.evaluation.task import Task
from srghn.interrupt import interruptible, raise_interrupt

if TYPE_CHECKING:
    import gymnasium as gym

    from srghn.envs.version import EnvVersion

    Env = gym.Env[Any, Any]

_log = logging.getLogger(__name__)

_NAN = "an observation is NaN"
#: Episodes abreast. Fixed, so that a policy's forward pass always has the same shape.
LANES = 128


class GymnasiumBackend(Backend):
    """Plays any world that `EnvVersion.make` builds, with any policy."""

    name = "gymnasium"

    def __init__(self, version: EnvVersion, network: NetworkParams) -> None:
        super().__init__(version, network)
        self._worlds: _Worlds | None = None

    @classmethod
    def supports(cls, version: EnvVersion, network: NetworkParams) -> bool:
        return True

    def evaluate(
        self, policies: Policies, task: Task, progress: Progress | None = None
    ) -> Evaluation:
        check_call(self.version, self.network, policies, task)
        worlds = self._open(task)
        with interruptible(), make_forward(policies, task.version.interface, LANES) as forward:
            return _Play(worlds, forward, len(policies), task, progress).run()

    def close(self) -> None:
        if self._worlds is not None:
            self._worlds.close()
        self._worlds = None

    def _open(self, task: Task) -> _Worlds:
        """The environments of the last call where they still fit, else new ones."""
        kept = self._worlds
        if kept is None or kept.task.world != task.world:
            self.close()
            kept = self._worlds = _Worlds(task)
        return kept


class _Worlds:
    """One environment a lane, made when the lane is first used and again after a crash."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._lanes: dict[int, Env] = {}

    def lane(self, lane: int) -> Env:
        if lane not in self._lanes:
            self._lanes[lane] = self.task.make()
        return self._lanes[lane]

    def drop(self, lane: int) -> None:
        """Discard an environment whose state is unknown."""
        _close(self._lanes.pop(lane))

    def close(self) -> None:
        for lane in list(self._lanes):
            self.drop(lane)


def _close(env: Env) -> None:
    try:
        env.close()
    except FAILURES as error:  # a broken one may fail to close, and is gone anyway
        raise_interrupt(error)
        _log.debug("an environment failed to close: %s", describe(error))


def _order(task: Task, count: int) -> list[int]:
    """In which order episodes are started; raises `EvaluationError` for one that skips any."""
    if task.order is None:
        return list(range(count))
    if not np.array_equal(np.sort(task.order), np.arange(count)):
        raise EvaluationError(
            f"a task's order must be a permutation of its {count} episodes, got "
            f"{task.order.shape} numbers"
        )
    order: list[int] = task.order.tolist()
    return order


class _Play:
    """One call's episodes; episode `i` is individual `i // len(seeds)` on seed `i % len(seeds)`."""

    def __init__(
        self,
        worlds: _Worlds,
        forward: Forward,
        individuals: int,
        task: Task,
        progress: Progress | None,
    ) -> None:
        seeds = task.seeds
        self.worlds, self.forward, self.seeds, self.progress = worlds, forward, seeds, progress
        self.shape = (individuals, len(seeds))
        self.waiting = iter(_order(task, individuals * len(seeds)))
        self.returns = np.zeros(individuals * len(seeds))
        self.lengths = np.zeros(individuals * len(seeds), dtype=np.int64)
        self.crashes: list[Crash] = []
        self.done = self.tick = 0
        lanes = len(forward.who)
        self.observations: Float32 = np.zeros(
            (lanes, forward.interface.observation_size), dtype=np.float32
        )
        self.running: dict[int, Env] = {}
        self.episode, self.begun, self.sums = [0] * lanes, [0] * lanes, [0.0] * lanes

    def run(self) -> Evaluation:
        for lane in range(len(self.forward.who)):
            self._next(lane)
        while self.running:
            self._step()
        return Evaluation(
            returns=self.returns.reshape(self.shape),
            lengths=self.lengths.reshape(self.shape),
            steps=int(self.lengths.sum()),
            crashes=tuple(sorted(self.crashes, key=lambda c: (c.individual, c.seed))),
        )

    def _next(self, lane: int) -> None:
        """Start the next waiting episode in this lane, or leave the lane idle."""
        for episode in self.waiting:
            self.episode[lane], self.begun[lane], self.sums[lane] = episode, self.tick, 0.0
            env = self.worlds.lane(lane)
            try:
                self.observations[lane], _ = env.reset(seed=int(self._seed(lane)))
            except FAILURES as error:  # the episode is lost
                raise_interrupt(error)
                self._broken(lane, describe(error))
                continue
            if np.isnan(self.observations[lane]).any():
                self._broken(lane, _NAN)
                continue
            self.running[lane] = env
            self.forward.assign(lane, episode // len(self.seeds))
            return
        self.running.pop(lane, None)
        self.forward.assign(lane, IDLE)
        self.observations[lane] = 0

    def _step(self) -> None:
        """One step of every running episode; lanes that finish start the next waiting episode."""
        actions, speechless = self.forward(self.observations)
        for lane, message in speechless.items():
            self._crash(lane, message)
        choices: Any = actions.tolist() if actions.ndim == 1 else actions
        observations, sums, ended, broken = self.observations, self.sums, [], {}
        self.tick += 1
        for lane, env in self.running.items():
            if lane in speechless:
                continue
            try:
                observations[lane], reward, terminated, truncated, _ = env.step(choices[lane])
                # in float64, and without a call for what most worlds give
                sums[lane] += reward if type(reward) is float else float(reward)
                if terminated or truncated:
                    ended.append(lane)
            except FAILURES as error:  # the episode is lost
                raise_interrupt(error)
                broken[lane] = describe(error)
        broken |= self._not_numbers()
        for lane, message in broken.items():
            self._broken(lane, message)
        for lane in ended:
            if lane not in broken:
                self._finish(lane, float(sums[lane]))
        for lane in {*speechless, *broken, *ended}:
            self._next(lane)

    def _not_numbers(self) -> dict[int, str]:
        """Running lanes whose observation is NaN or whose return is not finite."""
        failed = {}
        if np.isnan(self.observations.min()):
            nan = np.flatnonzero(np.isnan(self.observations).any(axis=1))
            failed = {int(lane): _NAN for lane in nan}
        if not math.isfinite(sum(self.sums)):
            for lane in self.running:
                if not math.isfinite(self.sums[lane]):
                    failed[lane] = f"the return became {self.sums[lane]}"
        return failed

    def _broken(self, lane: int, message: str) -> None:
        """The environment failed, so its state is unknown."""
        self.worlds.drop(lane)
        self._crash(lane, message)

    def _crash(self, lane: int, message: str) -> None:
        individual = self.episode[lane] // len(self.seeds)
        step = self.tick - self.begun[lane]
        self.crashes.append(Crash(individual, int(self._seed(lane)), step, message))
        self.sums[lane] = 0.0
        self._finish(lane, -math.inf)

    def _finish(self, lane: int, total: float) -> None:
        self.returns[self.episode[lane]] = total
        self.lengths[self.episode[lane]] = self.tick - self.begun[lane]
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, len(self.returns))

    def _seed(self, lane: int) -> np.int64:
        seed: np.int64 = self.seeds[self.episode[lane] % len(self.seeds)]
        return seed
