# mypy: disable-error-code="no-untyped-def"
"""One step of Box2D's island: forces, velocity iterations, positions, sleep."""

# An altered version of Box2D: see the notice in this folder's __init__.py.

from __future__ import annotations

import math

from srghn.compiled import compiled, inlined
from srghn.evaluation.backends.lunar_lander.kernel.collide import find_contacts, move_box
from srghn.evaluation.backends.lunar_lander.kernel.contacts import (
    constrain,
    line_up,
    separate,
    solve_contact,
    solve_contacts,
    warm_start,
)
from srghn.evaluation.backends.lunar_lander.kernel.geometry import synchronize
from srghn.evaluation.backends.lunar_lander.kernel.joints import hold, join, solve_joints
from srghn.evaluation.backends.lunar_lander.kernel.records import (
    BAUMGARTE,
    BODIES,
    CALM_SQUARED,
    CALM_TURN_SQUARED,
    CLOSE,
    EDGES,
    FARTHEST,
    FARTHEST_SQUARED,
    FARTHEST_TURN,
    FARTHEST_TURN_SQUARED,
    LANDER,
    LARGEST,
    LEGS,
    POSITION_ITERATIONS,
    SLEEPY,
    SLOTS,
    VELOCITY_ITERATIONS,
    ZERO,
)


@compiled
def prepare(world, lane, contacts, batch, column, constraints):
    """b2World::Solve and b2Island::Solve up to the velocity iterations.

    The joints make one island of all bodies. The search for it begins with the last body made
    that is awake, which settles the order.
    """
    first, order = 1, (2, 0, 1)
    if not lane.awake[2]:
        first, order = (0, (1, 0, 2)) if lane.awake[1] else (1, (0, 1, 2))
    batch.first[column], step, count = first, world.step, 0
    for body in order:
        if not lane.awake[body]:
            lane.awake[body], lane.still[body] = True, ZERO
        for i in range(3):
            lane.before[body, i] = lane.now[body, i]
        row = LANDER if body == LANDER else 1 + (first ^ body - 1)
        mass, inertia = world.inverse_mass[body], world.inverse_inertia[body]
        fx, fy, torque = ZERO, ZERO, ZERO
        if body == LANDER:
            fx, fy, torque = lane.force[0], lane.force[1], lane.force[2]
        velocity, old = batch.velocity[row], lane.velocity[body]
        velocity[0, column] = old[0] + step * (ZERO + mass * fx)
        velocity[1, column] = old[1] + step * (world.gravity + mass * fy)
        velocity[2, column] = old[2] + step * inertia * torque
        for i in range(lane.count - 1, -1, -1):
            code = lane.contacts[i]
            if code // EDGES == body and contacts[code].enabled and contacts[code].touching:
                constraints[count].contact, constraints[count].row = code, row
                constrain(world, lane, contacts[code], constraints[count], True)
                count += 1
    lane.force[:] = ZERO
    batch.count[column] = count
    for k in range(count):
        warm_start(batch, column, constraints[k])
    for place in range(LEGS):
        hold(world, lane, batch, column, place)


@compiled
def iterate(world, batch, constraints):
    """The velocity iterations of b2Island::Solve."""
    slots, odd = line_up(batch, constraints)
    for _ in range(VELOCITY_ITERATIONS):
        solve_joints(world, batch, 0)
        solve_joints(world, batch, 1)
        # numbers that the compiler knows: with a loop's it does not use the vector unit
        if slots > 0:
            solve_contacts(world, batch, 0)
        if slots > 1:
            solve_contacts(world, batch, 1)
        if slots > 2:
            solve_contacts(world, batch, 2)
        if slots > 3:
            solve_contacts(world, batch, 3)
        for i in range(odd):
            column = batch.odd[i]
            for k in range(batch.count[column]):
                solve_contact(batch, column, constraints[column, k])


@inlined
def integrate(lane, body, step):
    """The positions of b2Island::Solve and SolveTOI."""
    now, velocity = lane.now[body], lane.velocity[body]
    x, y, turn = step * velocity[0], step * velocity[1], step * velocity[2]
    if x * x + y * y > FARTHEST_SQUARED:
        ratio = FARTHEST / math.sqrt(x * x + y * y)
        velocity[0] *= ratio
        velocity[1] *= ratio
    if turn * turn > FARTHEST_TURN_SQUARED:
        velocity[2] *= FARTHEST_TURN / abs(turn)
    for i in range(3):
        now[i] += step * velocity[i]


@inlined
def _settle(world, lane, contacts, constraints, count, first):
    """The position iterations of b2Island::Solve: whether they came to an end."""
    for _ in range(POSITION_ITERATIONS):
        fine = separate(world, lane, contacts, constraints, count, BAUMGARTE) >= CLOSE
        fine &= join(world, lane, first)
        fine &= join(world, lane, 1 - first)
        if fine:
            return True
    return False


@inlined
def _rest(lane, step, settled):
    """How b2Island::Solve lets bodies fall asleep."""
    shortest = LARGEST
    for body in range(BODIES):
        x, y, w = lane.velocity[body, 0], lane.velocity[body, 1], lane.velocity[body, 2]
        if w * w > CALM_TURN_SQUARED or x * x + y * y > CALM_SQUARED:
            lane.still[body] = ZERO
        else:
            lane.still[body] += step
        shortest = min(shortest, lane.still[body])
    if shortest >= SLEEPY and settled:
        lane.awake[:] = False
        lane.still[:] = ZERO
        lane.velocity[:] = ZERO


@compiled
def finish(world, lane, contacts, batch, column, constraints):
    """b2Island::Solve and b2World::Solve from the velocity iterations on."""
    count, first = batch.count[column], batch.first[column]
    for i in range(3):
        lane.velocity[LANDER, i] = batch.velocity[LANDER, i, column]
    for place in range(LEGS):
        j = first ^ place
        for i in range(3):
            lane.velocity[1 + j, i] = batch.velocity[1 + place, i, column]
        for i in range(4):
            lane.impulse[j, i] = batch.impulse[place, i, column]
    for k in range(count):
        if count <= SLOTS and batch.leg[k, column] != ZERO:
            for n in range(2):
                constraints[k].impulse[0, n] = batch.push[k, n, column]
        impulse = contacts[constraints[k].contact].impulse
        for i in range(constraints[k].points):
            for n in range(2):
                impulse[i, n] = constraints[k].impulse[i, n]
    for body in range(BODIES):
        integrate(lane, body, world.step)
    settled = _settle(world, lane, contacts, constraints, count, first)
    for body in range(BODIES):
        synchronize(world, lane, body)
    _rest(lane, world.step, settled)
    moved = False
    for body in range(BODIES):
        moved |= move_box(world, lane, body)
    if moved:
        find_contacts(lane, contacts)
