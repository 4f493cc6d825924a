# mypy: disable-error-code="no-untyped-def"
"""Box2D's revolute joint, which holds a leg to the lander."""

# An altered version of Box2D: see the notice in this folder's __init__.py.

from __future__ import annotations

import math

from srghn.compiled import compiled, inlined
from srghn.evaluation.backends.lunar_lander.kernel.geometry import clamp, rotate, sincosf
from srghn.evaluation.backends.lunar_lander.kernel.records import (
    ANGULAR_SLOP,
    LANDER,
    LINEAR_SLOP,
    MOST_TURN,
    ONE,
    WIDTH,
    ZERO,
)


@compiled
def hold(world, lane, batch, column, place):
    """b2RevoluteJoint::InitVelocityConstraints, of the joint in that place."""
    j = batch.first[column] ^ place
    leg, anchor, impulse = j + 1, world.anchor[j], lane.impulse[j]
    a, b = lane.frame[LANDER], lane.frame[leg]
    ax, ay = rotate(a[2], a[3], anchor[0], anchor[1])
    bx, by = rotate(b[2], b[3], anchor[2], anchor[3])
    ma, ia = world.inverse_mass[LANDER], world.inverse_inertia[LANDER]
    mb, ib = world.inverse_mass[leg], world.inverse_inertia[leg]
    k11 = ma + mb + ay * ay * ia + by * by * ib
    k12 = -ay * ax * ia - by * bx * ib
    k13 = -ay * ia - by * ib
    k22 = ma + mb + ax * ax * ia + bx * bx * ib
    k23, k33 = ax * ia + bx * ib, ia + ib
    cx, cy, cz = k22 * k33 - k23 * k23, k23 * k13 - k12 * k33, k12 * k23 - k22 * k13
    whole, part = k11 * cx + k12 * cy + k13 * cz, k11 * k22 - k12 * k12
    angle = lane.now[leg, 2] - lane.now[LANDER, 2] - world.reference[j]
    limit = -1 if angle <= world.lower[j] else 1 if angle >= world.upper[j] else 0
    if limit == 0 or limit != lane.limit[j]:
        impulse[2] = ZERO
    lane.limit[j] = limit
    batch.limit[place, column], batch.speed[place, column] = limit, world.speed[j]
    for i, value in enumerate((ax, ay, bx, by)):
        batch.arm[place, i, column] = value
    for i, value in enumerate((k11, k12, k13, k22, k23, k33)):
        batch.k[place, i, column] = value
    for i, value in enumerate((cx, cy, cz)):
        batch.cross[place, i, column] = value
    for i, value in enumerate((whole, part)):
        batch.inverse[place, i, column] = ONE / value if value != ZERO else ZERO
    for i in range(4):
        batch.impulse[place, i, column] = impulse[i]
    va, vb, x, y = batch.velocity[LANDER], batch.velocity[place + 1], impulse[0], impulse[1]
    va[0, column] -= ma * x
    va[1, column] -= ma * y
    va[2, column] -= ia * (ax * y - ay * x + impulse[3] + impulse[2])
    vb[0, column] += mb * x
    vb[1, column] += mb * y
    vb[2, column] += ib * (bx * y - by * x + impulse[3] + impulse[2])


@inlined
def solve_joints(world, batch, place):
    """b2RevoluteJoint::SolveVelocityConstraints of all joints in that place, for the vector unit.

    What Box2D decides by branches is computed both ways. Off the limits the third equation's
    impulse is 0, and what Box2D does where it turns its sign is what there is to do. Both legs'
    mass and inertia are the same.
    """
    ma, ia = world.inverse_mass[LANDER], world.inverse_inertia[LANDER]
    mb, ib = world.inverse_mass[1], world.inverse_inertia[1]
    velocity, impulse, arm, k = batch.velocity, batch.impulse, batch.arm, batch.k
    most, mass, leg = world.motor, ONE / (ia + ib), place + 1
    for c in range(WIDTH):
        vax, vay, wa = velocity[0, 0, c], velocity[0, 1, c], velocity[0, 2, c]
        vbx, vby, wb = velocity[leg, 0, c], velocity[leg, 1, c], velocity[leg, 2, c]
        ax, ay, bx, by = arm[place, 0, c], arm[place, 1, c], arm[place, 2, c], arm[place, 3, c]
        k11, k12, k13 = k[place, 0, c], k[place, 1, c], k[place, 2, c]
        k22, k23, k33 = k[place, 3, c], k[place, 4, c], k[place, 5, c]
        cx, cy, cz = batch.cross[place, 0, c], batch.cross[place, 1, c], batch.cross[place, 2, c]
        whole, part = batch.inverse[place, 0, c], batch.inverse[place, 1, c]
        limit, held, old = batch.limit[place, c], impulse[place, 2, c], impulse[place, 3, c]
        motor = clamp(old + -mass * (wb - wa - batch.speed[place, c]), -most, most)
        impulse[place, 3, c] = motor
        wa, wb = wa - ia * (motor - old), wb + ib * (motor - old)
        x, y, z = vbx - wb * by - vax + wa * ay, vby + wb * bx - vay - wa * ax, wb - wa
        # b2Mat33::Solve33
        px = -(whole * (x * cx + y * cy + z * cz))
        cx, cy, cz = y * k33 - z * k23, z * k13 - x * k33, x * k23 - y * k13
        py = -(whole * (k11 * cx + k12 * cy + k13 * cz))
        cx, cy, cz = k22 * z - k23 * y, k23 * x - k12 * z, k12 * y - k22 * x
        pz = -(whole * (k11 * cx + k12 * cy + k13 * cz))
        total, x, y = held + pz, -x + held * k13, -y + held * k23
        two = (limit == ZERO) | (limit * total > ZERO)
        # b2Mat33::Solve22
        px = part * (k22 * x - k12 * y) if two else px
        py = part * (k11 * y - k12 * x) if two else py
        pz = -held if two else pz
        impulse[place, 0, c] += px
        impulse[place, 1, c] += py
        impulse[place, 2, c] = ZERO if two else total
        velocity[0, 0, c], velocity[0, 1, c] = vax - ma * px, vay - ma * py
        velocity[0, 2, c] = wa - ia * (ax * py - ay * px + pz)
        velocity[leg, 0, c], velocity[leg, 1, c] = vbx + mb * px, vby + mb * py
        velocity[leg, 2, c] = wb + ib * (bx * py - by * px + pz)


@compiled
def join(world, lane, j):
    """b2RevoluteJoint::SolvePositionConstraints: whether the errors are small."""
    leg, anchor, limit, turned = j + 1, world.anchor[j], lane.limit[j], ZERO
    a, b = lane.now[LANDER], lane.now[leg]
    ma, ia = world.inverse_mass[LANDER], world.inverse_inertia[LANDER]
    mb, ib = world.inverse_mass[leg], world.inverse_inertia[leg]
    if limit != 0:
        angle = b[2] - a[2] - world.reference[j]
        if limit < 0:
            turned = -(angle - world.lower[j])
            error = clamp(angle - world.lower[j] + ANGULAR_SLOP, -MOST_TURN, ZERO)
        else:
            turned = angle - world.upper[j]
            error = clamp(turned - ANGULAR_SLOP, ZERO, MOST_TURN)
        turn = -(ONE / (ia + ib)) * error
        a[2] -= ia * turn
        b[2] += ib * turn
    sine, cosine = sincosf(a[2])
    ax, ay = rotate(sine, cosine, anchor[0], anchor[1])
    sine, cosine = sincosf(b[2])
    bx, by = rotate(sine, cosine, anchor[2], anchor[3])
    x, y = b[0] + bx - a[0] - ax, b[1] + by - a[1] - ay
    k11 = ma + mb + ia * ay * ay + ib * by * by
    k12 = -ia * ax * ay - ib * bx * by
    k22 = ma + mb + ia * ax * ax + ib * bx * bx
    determinant = k11 * k22 - k12 * k12
    inverse = ONE / determinant if determinant != ZERO else ZERO
    px, py = -(inverse * (k22 * x - k12 * y)), -(inverse * (k11 * y - k12 * x))
    a[0] -= ma * px
    a[1] -= ma * py
    a[2] -= ia * (ax * py - ay * px)
    b[0] += mb * px
    b[1] += mb * py
    b[2] += ib * (bx * py - by * px)
    return math.sqrt(x * x + y * y) <= LINEAR_SLOP and turned <= ANGULAR_SLOP
