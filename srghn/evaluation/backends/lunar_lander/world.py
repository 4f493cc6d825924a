"""What the compiled LunarLander must know, read from a real environment, and how episodes begin."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray

from srghn.evaluation.backends.lunar_lander import kernel
from srghn.evaluation.base import Float64, Int64

Records = NDArray[Any]

#: Random numbers drawn at once: two for each step.
DRAWN = 256
#: The height at which Gymnasium's step takes the side engines to be; it has no name there.
AIM = 17


def read_world(env: Any) -> Records:
    """The constants of a `LunarLander`, (1,) of `kernel.WORLD`; resets it."""
    import gymnasium.envs.box2d.lunar_lander as its

    env.reset(seed=0)
    worlds = np.zeros(1, dtype=kernel.WORLD)
    world, width, height = worlds[0], its.VIEWPORT_W / its.SCALE, its.VIEWPORT_H / its.SCALE
    moon = list(env.moon.fixtures)
    one: Any = np.float32(1)
    for b, body in enumerate((env.lander, *env.legs)):
        (fixture,) = body.fixtures
        shape, mass = fixture.shape, fixture.massData
        size = len(shape.vertices)
        world["size"][b] = size
        world["corner"][b, :size], world["normal"][b, :size] = shape.vertices, shape.normals
        world["centroid"][b] = tuple(shape.centroid)
        # b2Body::ResetMassData
        center = world["center"][b]
        center[:] = tuple(body.localCenter)
        weight, about_origin = np.float32(mass.mass), np.float32(mass.I)
        inertia = about_origin - weight * (center[0] * center[0] + center[1] * center[1])
        world["inverse_mass"][b], world["inverse_inertia"][b] = one / weight, one / inertia
        friction = [np.float32(edge.friction) * np.float32(fixture.friction) for edge in moon]
        world["friction"][b] = np.sqrt(friction)
    world["radius"], world["gravity"] = shape.radius, env.world.gravity[1]
    world["step"] = 1.0 / its.FPS
    world["start"][0] = width / 2, height, 0.0
    for j, leg in enumerate(env.legs):
        joint, i = leg.joint, (-1, +1)[j]
        ends = np.array([joint.GetLocalAnchorA(), joint.GetLocalAnchorB()], dtype=np.float32)
        world["anchor"][j] = (ends - world["center"][[0, j + 1]]).ravel()
        world["reference"][j] = joint.GetReferenceAngle()
        world["lower"][j], world["upper"][j] = joint.lowerLimit, joint.upperLimit
        world["motor"] = world["step"] * np.float32(joint.GetMaxMotorTorque())
        world["speed"][j] = joint.motorSpeed
        world["start"][j + 1] = width / 2 - i * its.LEG_AWAY / its.SCALE, height, i * 0.05
    world["scale"] = its.SCALE
    world["main"] = its.MAIN_ENGINE_POWER, its.MAIN_ENGINE_Y_LOCATION
    world["side"] = its.SIDE_ENGINE_POWER, its.SIDE_ENGINE_AWAY, its.SIDE_ENGINE_HEIGHT, AIM
    world["shift"][:2] = width / 2, env.helipad_y + its.LEG_DOWN / its.SCALE
    world["gain"] = 1, 1, width / 2, height / 2, 1, 20.0, 1, 1
    world["unit"] = width / 2, height / 2, its.FPS, its.FPS, 1, its.FPS, 1, 1
    world["windy"], world["wind"] = env.enable_wind, (env.wind_power, env.turbulence_power)
    return worlds


@dataclass(frozen=True)
class Start:
    """An episode after its reset, and the noise of its engines, which all who play it share."""

    lane: Any
    contacts: Records
    row: NDArray[np.float32]
    noise: list[_Block]

    def block(self, number: int) -> Float64:
        """The block of noise with that number, from 0 on."""
        while len(self.noise) <= number:
            self.noise.append(self.noise[-1].following())
        return self.noise[number].values


class _Block(NamedTuple):
    """Some noise of the engines, and PCG64's state after it.

    With that state what follows is the same however often, and wherever, drawing it is interrupted.
    """

    values: Float64
    after: Any
    worlds: Records

    def following(self) -> _Block:
        bits = np.random.PCG64(0)
        bits.state = self.after
        return _Block(draw(np.random.Generator(bits), self.worlds), bits.state, self.worlds)


class Fleet:
    """Lanes that fly in one world: `begin` starts an episode in one of them."""

    def __init__(self, worlds: Records, lanes: int) -> None:
        self.worlds = worlds
        self.lanes = np.zeros(lanes, dtype=kernel.LANE)
        self.contacts = np.zeros((lanes, kernel.CONTACTS), dtype=kernel.CONTACT)
        self.rows = np.zeros((lanes, 8), dtype=np.float32)
        self.noise = np.zeros((lanes, DRAWN))
        self.used = np.zeros(lanes, dtype=np.int64)
        self._batches = np.zeros(1, dtype=kernel.BATCH)
        self._constraints = np.zeros((kernel.WIDTH, kernel.CONTACTS), dtype=kernel.CONSTRAINT)
        self._rooms = np.zeros(1, dtype=kernel.ROOM)
        self._blocks: dict[int, Iterator[Float64]] = {}

    def fly(self, running: Int64, engines: Float64) -> tuple[Float64, NDArray[np.bool_]]:
        """One step, `kernel.fly`'s: rewards (r,), and whether they ended (r,)."""
        for lane in running[self.used[running] == DRAWN].tolist():
            self.noise[lane], self.used[lane] = next(self._blocks[lane]), 0
        rewards, ended = np.empty(running.size), np.empty(running.size, dtype=np.bool_)
        kernel.fly(
            self.worlds, self.lanes, self.contacts, self._batches, self._constraints, self._rooms,
            running, engines, self.noise, self.used, self.rows, rewards, ended,
        )  # fmt: skip
        return rewards, ended

    def begin(self, lane: int, start: Start) -> None:
        self.lanes[lane], self.contacts[lane] = start.lane, start.contacts
        self._blocks[lane] = map(start.block, itertools.count())
        self.rows[lane], self.noise[lane], self.used[lane] = start.row, next(self._blocks[lane]), 2


def draw(rng: np.random.Generator, worlds: Records) -> Float64:
    """The noise of the engines; a block of it is the stream of single draws."""
    noise: Float64 = rng.uniform(-1.0, +1.0, DRAWN) / worlds["scale"]
    return noise


def start_of(worlds: Records, seed: int) -> Start:
    """`LunarLander.reset`: the same draws in the same order, and then a step of doing nothing."""
    import gymnasium.envs.box2d.lunar_lander as its

    rng, _ = np_random(seed)
    width, height, chunks = its.VIEWPORT_W / its.SCALE, its.VIEWPORT_H / its.SCALE, 11
    heights = rng.uniform(0, height / 2, size=(chunks + 1,)).tolist()
    middle = chunks // 2
    heights[middle - 2 : middle + 3] = [height / 4] * 5
    smooth = [0.33 * (heights[i - 1] + heights[i] + heights[i + 1]) for i in range(chunks)]
    points = [(width / (chunks - 1) * i, y) for i, y in enumerate(smooth)]
    fleet = Fleet(worlds, 1)
    lane = fleet.lanes[0]
    lane["edge"] = [((0, 0), (width, 0)), *itertools.pairwise(points)]
    for i in range(2):
        lane["force"][i] = rng.uniform(-its.INITIAL_RANDOM, its.INITIAL_RANDOM)
    if worlds["windy"][0]:
        lane["gust"] = [rng.integers(-9999, 9999) for _ in range(2)]
    fleet.noise[0] = draw(rng, worlds)
    kernel.begin(worlds, fleet.lanes, fleet.contacts)
    fleet.fly(np.zeros(1, dtype=np.int64), np.zeros((1, 3)))
    noise = _Block(fleet.noise[0], rng.bit_generator.state, worlds)
    return Start(lane.copy(), fleet.contacts[0], fleet.rows[0], [noise])
