"""LunarLander-v3 without its environment: the same world compiled, for all lanes at once.

The same returns as Gymnasium's `LunarLander`, bit for bit, on the same seeds and actions: the same
physics (`kernel`), the same draws, the same sums in the same order. Where that is not so,
because this machine's Box2D was compiled to other arithmetic, say, the general backend plays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn.compiled import in_c_library
from srghn.evaluation.backends.gymnasium import LANES
from srghn.evaluation.backends.lunar_lander.world import Fleet, Records, Start, read_world, start_of
from srghn.evaluation.backends.special import Bare, Env, SpecialBackend
from srghn.evaluation.base import (
    Evaluation,
    Float32,
    Float64,
    Int64,
    Policies,
    Progress,
    WeightedPolicies,
)
from srghn.evaluation.episodes import Episodes, Mask
from srghn.evaluation.policies.forward import Forward, MLPForward, make_forward
from srghn.evaluation.task import Task

#: Seeds of the episodes on which the kernel is compared with Gymnasium: the first lander falls; the
#: second has a pilot, hits the end of an edge, slides, stands on a whole side and comes to rest.
FALL, LANDING = 0, 7
#: Steps after which such an episode has shown enough.
SHOWN = 400
#: Lanes where the policies are cheap, so that what Python does in a step is for more of them.
WIDE = 512


class LunarLanderBackend(SpecialBackend["_World"]):
    """Plays LunarLander; where a wrapper perturbs it, the general backend does."""

    name = "lunar-lander"
    ids = ("LunarLander-v3", "LunarLanderSwitch-v3", "LunarLanderRewired-v3")

    @classmethod
    def read(cls, env: Env) -> _World | None:
        from gymnasium.envs.box2d.lunar_lander import LunarLander

        bare = Bare.of(env, LunarLander)
        if bare is None or bare.env.render_mode is not None:
            return None
        if not in_c_library("sincosf"):
            return None
        try:
            worlds = read_world(bare.env)
            return _World(bare, worlds) if _equal(bare.env, worlds) else None
        except (AttributeError, ValueError):  # a Gymnasium whose lander has other parts
            return None

    def play(
        self, policies: Policies, task: Task, world: _World, progress: Progress | None
    ) -> Evaluation:
        lanes, count = LANES, len(policies) * len(task.seeds)
        if isinstance(policies, WeightedPolicies) and MLPForward.fits(policies):
            lanes = min(count, WIDE)
        with make_forward(policies, task.version.interface, lanes) as forward:
            return _Episodes(forward, len(policies), task.seeds, world).run(progress)


class _World:
    """A world's constants, (1,) of `kernel.WORLD`, and what the wrappers did."""

    def __init__(self, bare: Bare, worlds: Records) -> None:
        self.worlds, self.limit, self.continuous = worlds, bare.limit, bare.env.continuous
        self.order = None if bare.order is None else np.array(bare.order)
        self.view = None if bare.view is None else np.array(bare.view[0])
        self.signs = np.array(bare.view[1] if bare.view else 1, dtype=np.float32)
        self._seeds, self._starts = list[int](), dict[int, Start]()

    def starts(self, seeds: Int64) -> dict[int, Start]:
        """The known starts by their number in `seeds`, kept while those are the same.

        All shards of a call have the same, and a small one would spend a tenth of its time on them.
        """
        if self._seeds != seeds.tolist():
            self._seeds, self._starts = seeds.tolist(), {}
        return self._starts


#: Worlds that were compared, and whether they were equal.
_compared: dict[tuple[bool, bytes], bool] = {}


def _equal(env: Any, worlds: Records) -> bool:
    """Whether the kernel does what a real environment does in two episodes, to the last bit.

    They show this machine's arithmetic and nearly all constants; not all, since no limit of a joint
    is reached on either side, nor every edge of the moon.
    """
    key = (env.continuous, worlds.tobytes())
    if key not in _compared:
        _compared[key] = all(_replays(env, worlds, seed) for seed in (FALL, LANDING))
    return _compared[key]


def _replays(env: Any, worlds: Records, seed: int) -> bool:
    from gymnasium.envs.box2d import lunar_lander as its

    heuristic: Any = its.heuristic
    fleet, lanes = Fleet(worlds, 1), np.zeros(1, dtype=np.int64)
    row, _ = env.reset(seed=seed)
    fleet.begin(0, start_of(worlds, seed))
    idle = np.zeros(2, dtype=np.float32) if env.continuous else 0
    for _ in range(SHOWN):
        action = np.array([heuristic(env, row) if seed == LANDING else idle])
        rewards, ended = fleet.fly(lanes, _engines(action, env.continuous))
        row, reward, over, _, _ = env.step(action[0])
        same = row.tobytes() == fleet.rows[0].tobytes() and reward == rewards[0]
        if not same or over != ended[0]:
            return False
        if over:
            break
    return True


def _engines(actions: NDArray[Any], continuous: bool) -> Float64:
    """Power of the main and of a side engine (0: off, to 1), and that one's side, (r, 3)."""
    engines = np.empty((len(actions), 3))
    if continuous:
        throttle, lateral = np.clip(actions, -1, +1).astype(np.float64).T
        power = np.abs(lateral)
        engines[:, 0] = np.where(throttle > 0.0, (np.clip(throttle, 0.0, 1.0) + 1.0) * 0.5, 0.0)
        engines[:, 1] = np.where(power > 0.5, np.clip(power, 0.5, 1.0), 0.0)
        engines[:, 2] = np.sign(lateral)
    else:
        engines[:, 0], engines[:, 1], engines[:, 2] = actions == 2, actions % 2, actions - 2
    return engines


class _Episodes(Episodes):
    def __init__(self, forward: Forward, individuals: int, seeds: Int64, world: _World) -> None:
        super().__init__(forward, individuals, seeds, world.limit)
        self.world, self.fleet = world, Fleet(world.worlds, len(forward.who))
        self.starts = world.starts(seeds)

    def begin(self, lane: int, seed: int) -> None:
        if seed not in self.starts:
            self.starts[seed] = start_of(self.world.worlds, int(self.seeds[seed]))
        self.fleet.begin(lane, self.starts[seed])

    def observe(self) -> Float32:
        rows, view = self.fleet.rows, self.world.view
        return rows if view is None else rows[:, view] * self.world.signs

    def advance(self, actions: NDArray[Any], running: Int64) -> tuple[Float64, Mask]:
        chosen = actions[running]
        if self.world.order is not None:
            chosen = self.world.order[chosen]
        return self.fleet.fly(running, _engines(chosen, self.world.continuous))
