"""LunarLander-v3 by Box2D's own step, with rewards and observations computed for all lanes at once.

The same returns as Gymnasium's `LunarLander`, bit for bit, on the same seeds and actions: the same
Box2D calls, the same draws, the same sums in the same order. Each lane is a real environment, which
resets itself and listens to its contacts; so kwargs and perturbed dynamics are the environment's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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

#: Constants of `gymnasium.envs.box2d.lunar_lander`, which cannot be imported without Box2D.
FPS, SCALE = 50, 30.0
WIDTH, HEIGHT = 600 / SCALE, 400 / SCALE
MAIN_POWER, SIDE_POWER = 13.0, 0.6
MAIN_Y, SIDE_AWAY, SIDE_HEIGHT = 4, 12, 14

#: What is read of a lander in each step: position, velocity, angle, angular velocity, leg contacts.
#: An element of the state is (value - SHIFT) * GAIN / UNIT; where Gymnasium has no such operation,
#: it is by 0 or 1 and changes no bit.
SHIFT = np.array([WIDTH / 2, HEIGHT / 4 + 18 / SCALE, 0, 0, 0, 0, 0, 0])
GAIN = np.array([1, 1, WIDTH / 2, HEIGHT / 2, 1, 20.0, 1, 1])
UNIT = np.array([WIDTH / 2, HEIGHT / 2, FPS, FPS, 1, FPS, 1, 1])

#: Random numbers drawn at once: two for each step.
DRAWN = 256


class LunarLanderBackend(SpecialBackend["_World"]):
    """Plays LunarLander; where a wrapper perturbs it, the general backend does."""

    name = "box2d"
    ids = ("LunarLander-v3", "LunarLanderSwitch-v3")

    @classmethod
    def read(cls, env: Env) -> _World | None:
        from gymnasium.envs.box2d.lunar_lander import LunarLander

        bare = Bare.of(env)
        if bare is None or type(bare.env) is not LunarLander or bare.env.render_mode is not None:
            return None
        return _World(bare)

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
    """A real `LunarLander`, and others like it: one a lane, made when it is first used."""

    def __init__(self, bare: Bare) -> None:
        self.lander, self.limit = bare.env, bare.limit
        self.order = None if bare.order is None else np.array(bare.order)
        self.lanes: list[Any] = []

    def lane(self, lane: int) -> Any:
        while len(self.lanes) <= lane:
            like = object.__new__(type(self.lander))
            # never reset itself, it has nothing yet that two must not share
            vars(like).update(vars(self.lander))
            self.lanes.append(like)
        return self.lanes[lane]


class _Flight:
    """One episode from its reset on: `LunarLander.step` without what all lanes share."""

    __slots__ = ("angle", "draws", "env", "left", "push", "right", "ship", "step", "x", "y")

    def __init__(self, env: Any) -> None:
        self.env, self.ship, (self.left, self.right) = env, env.lander, env.legs
        self.step: Callable[[float, int, int], None] = env.world.Step
        self.push = self.ship.ApplyLinearImpulse
        self.draws = _draws(env.np_random)
        self.x, self.y = self.ship.position
        self.angle: float = self.ship.angle

    def fly(self, main: float, side: float, way: float) -> tuple[float, ...]:
        """One step with the powers of both engines, and the side engine's place.

        Gives the ten numbers that `SHIFT` begins to list, then whether the ship crashed and whether
        it is awake.
        """
        ship, left, right = self.ship, self.left, self.right
        if self.env.enable_wind and not (left.ground_contact or right.ground_contact):
            self._blow()
        first, second = next(self.draws), next(self.draws)
        if main or side:
            self._fire(main, side, way, first, second)
        self.step(1.0 / FPS, 6 * 30, 2 * 30)
        position, velocity = ship.position, ship.linearVelocity
        self.x, self.y, self.angle = position.x, position.y, ship.angle
        return (
            self.x, self.y, velocity.x, velocity.y, self.angle, ship.angularVelocity,
            left.ground_contact, right.ground_contact, self.env.game_over, ship.awake,
        )  # fmt: skip

    def _fire(self, main: float, side: float, way: float, first: float, second: float) -> None:
        sine, cosine = math.sin(self.angle), math.cos(self.angle)
        if main:
            ahead = MAIN_Y / SCALE + 2 * first
            x = sine * ahead + -cosine * second
            y = -cosine * ahead - sine * second
            impulse = -x * MAIN_POWER * main, -y * MAIN_POWER * main
            self.push(impulse, (self.x + x, self.y + y), True)
        if side:
            across = 3 * second + way
            x = sine * first + -cosine * across
            y = -cosine * first - sine * across
            impulse = -x * SIDE_POWER * side, -y * SIDE_POWER * side
            # 17 is Gymnasium's number, and not SIDE_HEIGHT
            place = self.x + x - sine * 17 / SCALE, self.y + y + cosine * SIDE_HEIGHT / SCALE
            self.push(impulse, place, True)

    def _blow(self) -> None:
        env = self.env
        self.ship.ApplyForceToCenter((_gust(env.wind_idx) * env.wind_power, 0.0), True)
        self.ship.ApplyTorque(_gust(env.torque_idx) * env.turbulence_power, True)
        env.wind_idx += 1
        env.torque_idx += 1


def _draws(rng: np.random.Generator) -> Iterator[float]:
    """The dispersion of the engines; drawn in blocks, which gives the stream of single draws."""
    while True:
        yield from (rng.uniform(-1.0, +1.0, DRAWN) / SCALE).tolist()


def _gust(index: float) -> float:
    return math.tanh(math.sin(0.02 * index) + math.sin(math.pi * 0.01 * index))


class _Episodes(Episodes):
    def __init__(self, forward: Forward, individuals: int, seeds: Int64, world: _World) -> None:
        super().__init__(forward, individuals, seeds, world.limit)
        self.world = world
        self.flights: dict[int, _Flight] = {}
        self.rows = np.zeros((LANES, len(SHIFT)), dtype=np.float32)
        self.shaping = np.zeros(LANES)

    def begin(self, lane: int, seed: int) -> None:
        env = self.world.lane(lane)
        self.rows[lane], _ = env.reset(seed=int(self.seeds[seed]))
        self.shaping[lane] = env.prev_shaping
        self.flights[lane] = _Flight(env)

    def observe(self) -> Float32:
        return self.rows

    def advance(self, actions: NDArray[Any], running: Int64) -> tuple[Float64, Mask]:
        main, side, way = self._engines(actions[running])
        flights = map(self.flights.__getitem__, running.tolist())
        engines = zip(flights, main.tolist(), side.tolist(), way.tolist(), strict=True)
        found = np.array([flight.fly(*engine) for flight, *engine in engines], dtype=np.float64)
        state = (found[:, :8] - SHIFT) * GAIN / UNIT
        self.rows[running] = state
        return self._reward(state.T, running, main, side, found[:, 8] > 0, found[:, 9] > 0)

    def _engines(self, actions: NDArray[Any]) -> tuple[Float64, Float64, Float64]:
        """Power of the main and of a side engine (0: off, to 1), and where that one is."""
        if self.world.lander.continuous:
            throttle, lateral = np.clip(actions, -1, +1).astype(np.float64).T
            power = np.abs(lateral)
            main = np.where(throttle > 0.0, (np.clip(throttle, 0.0, 1.0) + 1.0) * 0.5, 0.0)
            side = np.where(power > 0.5, np.clip(power, 0.5, 1.0), 0.0)
            return main, side, np.sign(lateral) * SIDE_AWAY / SCALE
        chosen = actions if self.world.order is None else self.world.order[actions]
        main, side = (chosen == 2).astype(np.float64), (chosen % 2).astype(np.float64)
        return main, side, (chosen - 2) * SIDE_AWAY / SCALE

    def _reward(
        self, state: Float64, running: Int64, main: Float64, side: Float64, crash: Mask, awake: Mask
    ) -> tuple[Float64, Mask]:
        """`LunarLander.step`'s reward, in its order; `state` (8, r)."""
        x, y, vx, vy, angle, _, left, right = state
        shaping = (
            -100 * np.sqrt(x * x + y * y)
            - 100 * np.sqrt(vx * vx + vy * vy)
            - 100 * np.abs(angle)
            + 10 * left
            + 10 * right
        )
        rewards = shaping - self.shaping[running] - main * 0.30 - side * 0.03
        self.shaping[running] = shaping
        crash |= np.abs(x) >= 1.0
        rewards[crash] = -100
        rewards[~awake] = +100
        return rewards, crash | ~awake
