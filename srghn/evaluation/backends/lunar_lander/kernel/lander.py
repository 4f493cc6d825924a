# mypy: disable-error-code="no-untyped-def"
"""One step of Gymnasium's LunarLander over lanes."""

# An altered version of Box2D: see the notice in this folder's __init__.py.

from __future__ import annotations

import math

import numpy as np

from srghn.compiled import compiled, inlined
from srghn.evaluation.backends.lunar_lander.kernel.collide import (
    bounds,
    find_contacts,
    update_contacts,
)
from srghn.evaluation.backends.lunar_lander.kernel.geometry import sincosf, to_world
from srghn.evaluation.backends.lunar_lander.kernel.impacts import solve_impacts
from srghn.evaluation.backends.lunar_lander.kernel.islands import finish, iterate, prepare
from srghn.evaluation.backends.lunar_lander.kernel.records import (
    BODIES,
    EDGES,
    FAT,
    LANDER,
    WIDTH,
    F,
)


@compiled
def begin(worlds, lanes, contacts):
    """The world before its first step, where `edge` and `force` of the only lane are given."""
    world, lane = worlds[0], lanes[0]
    radius = world.radius
    for edge in range(EDGES):
        ends, fat = lane.edge[edge], lane.fat[BODIES + edge]
        for i in range(2):
            a, b = ends[0, i], ends[1, i]
            fat[i] = (a if a < b else b) - radius - FAT
            fat[2 + i] = (a if a > b else b) + radius + FAT
    for body in range(BODIES):
        start, now, fat = world.start[body], lane.now[body], lane.fat[body]
        sine, cosine = sincosf(start[2])
        frame = (start[0], start[1], sine, cosine)
        now[0], now[1] = to_world(frame, world.center[body])
        now[2] = start[2]
        for i in range(4):
            lane.frame[body, i] = frame[i]
        left, low, right, high = bounds(world, body, frame)
        fat[0], fat[1], fat[2], fat[3] = left - FAT, low - FAT, right + FAT, high + FAT
    lane.awake[:] = True
    find_contacts(lane, contacts[0])


@inlined
def _gust(index):
    return math.tanh(math.sin(0.02 * index) + math.sin(math.pi * 0.01 * index))


@inlined
def _kick(world, lane, x, y, px, py):
    """b2Body::ApplyLinearImpulse on the lander: impulse (x, y) at (px, py), float64."""
    velocity, now, ix, iy = lane.velocity[LANDER], lane.now[LANDER], F(x), F(y)
    velocity[0] += world.inverse_mass[LANDER] * ix
    velocity[1] += world.inverse_mass[LANDER] * iy
    turn = (F(px) - now[0]) * iy - (F(py) - now[1]) * ix
    velocity[2] += world.inverse_inertia[LANDER] * turn


@compiled
def _steer(world, lane, engines, first, second):
    """The wind and the engines of `LunarLander.step`, in float64."""
    if world.windy and not (lane.grounded[0] or lane.grounded[1]):
        lane.force[0] += F(_gust(lane.gust[0]) * world.wind[0])
        lane.force[2] += F(_gust(lane.gust[1]) * world.wind[1])
        lane.gust[0] += 1.0
        lane.gust[1] += 1.0
    main, side, way, scale = engines[0], engines[1], engines[2], world.scale
    if main == 0.0 and side == 0.0:
        return
    x, y, angle = (
        np.float64(lane.frame[LANDER, 0]),
        np.float64(lane.frame[LANDER, 1]),
        lane.now[LANDER, 2],
    )
    sine, cosine = math.sin(np.float64(angle)), math.cos(np.float64(angle))
    if main != 0.0:
        ahead, power = world.main[1] / scale + 2 * first, world.main[0]
        ox, oy = sine * ahead + -cosine * second, -cosine * ahead - sine * second
        _kick(world, lane, -ox * power * main, -oy * power * main, x + ox, y + oy)
    if side != 0.0:
        across, power = 3 * second + way * world.side[1] / scale, world.side[0]
        ox, oy = sine * first + -cosine * across, -cosine * first - sine * across
        px = x + ox - sine * world.side[3] / scale
        py = y + oy + cosine * world.side[2] / scale
        _kick(world, lane, -ox * power * side, -oy * power * side, px, py)


@compiled
def _judge(world, lane, engines, state, row):
    """The observation (8,), float64 in `state` and float32 in `row`; the reward and the end."""
    for i in range(2):
        state[i], state[2 + i] = lane.frame[LANDER, i], lane.velocity[LANDER, i]
        state[6 + i] = lane.grounded[i]
    state[4], state[5] = lane.now[LANDER, 2], lane.velocity[LANDER, 2]
    for i in range(8):
        state[i] = (state[i] - world.shift[i]) * world.gain[i] / world.unit[i]
        row[i] = state[i]
    shaping = (
        -100 * math.sqrt(state[0] * state[0] + state[1] * state[1])
        - 100 * math.sqrt(state[2] * state[2] + state[3] * state[3])
        - 100 * abs(state[4])
        + 10 * state[6]
        + 10 * state[7]
    )
    reward = shaping - lane.shaping - engines[0] * 0.30 - engines[1] * 0.03
    lane.shaping = shaping
    if not lane.awake[LANDER]:
        return 100.0, True
    if lane.crashed or abs(state[0]) >= 1.0:
        return -100.0, True
    return reward, False


@compiled
def fly(
    worlds, lanes, contacts, batches, constraints, rooms,
    running, engines, noise, used, rows, rewards, ended,
):  # fmt: skip
    """One step of the running lanes (r,), as `LunarLander.step` takes it.

    `worlds`, `lanes` (l,), `contacts` (l, CONTACTS), `batches`, `constraints` (WIDTH, CONTACTS) and
    `rooms` as the types above say, (1,) where nothing else is said. `engines` float64 (r, 3) is the
    power of the main and of a side engine (0: off, to 1), and on which side that one is (-1 or
    1, or anything while it is off); `noise` (l, n) what is drawn for the engines, of which `used`
    (l,) have been. Writes `rows` float32 (l, 8), `rewards` float64 (r,) and `ended` (r,).
    """
    world, room, batch = worlds[0], rooms[0], batches[0]
    # those that touch the moon come first, since a batch with contacts takes longer
    order, first, last = np.empty(running.size, dtype=np.int64), 0, running.size - 1
    for r in range(running.size):
        k = running[r]
        _steer(world, lanes[k], engines[r], noise[k, used[k]], noise[k, used[k] + 1])
        used[k] += 2
        if update_contacts(world, lanes[k], contacts[k], room):
            order[first] = r
            first += 1
        else:
            order[last] = r
            last -= 1
    for start in range(0, running.size, WIDTH):
        columns = min(WIDTH, running.size - start)
        batch.count[:] = 0
        for column in range(columns):
            k = running[order[start + column]]
            prepare(world, lanes[k], contacts[k], batch, column, constraints[column])
        iterate(world, batch, constraints)
        for column in range(columns):
            r = order[start + column]
            k = running[r]
            finish(world, lanes[k], contacts[k], batch, column, constraints[column])
            solve_impacts(world, lanes[k], contacts[k], batch, column, constraints[column], room)
            rewards[r], ended[r] = _judge(world, lanes[k], engines[r], room.state, rows[k])
