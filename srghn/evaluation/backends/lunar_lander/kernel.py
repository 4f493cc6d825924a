# mypy: disable-error-code="no-untyped-def"
"""LunarLander's world as machine code: Box2D's step for one lander on its legs above the moon.

An altered version of Box2D 2.3, written anew for three bodies, two joints and eleven edges that
never move, with what cannot happen between them left out. All that is left computes as Box2D does:
float32, each operation in its place, so that every bit is the same. (But for the sign of a zero,
which reaches no result: a velocity or position is never -0, and to such a one it adds nothing.)
Docstrings name the function of Box2D's whose work each does.

Bodies are 0 for the lander, 1 and 2 for its legs; joint j holds leg j + 1. Bodies collide with
edges only, so contact `body * EDGES + edge` is all there can be between the two. Positions and
velocities are (x, y, angle), in metres, seconds and radians. A frame is b2Transform: the origin of
a body's shape (x, y), sine and cosine of its angle. The moon's own is the identity.

The velocity iterations, nine tenths of Box2D's time, hardly ever come to rest before their end. So
`WIDTH` landers share them, each in a column of a batch, on which the vector unit works.
"""

# Box2D: Copyright (c) 2006-2013 Erin Catto, http://www.box2d.org
#
# This software is provided 'as-is', without any express or implied warranty. In no event will the
# authors be held liable for any damages arising from the use of this software. Permission is
# granted to anyone to use this software for any purpose, including commercial applications, and to
# alter it and redistribute it freely, subject to the following restrictions:
# 1. The origin of this software must not be misrepresented; you must not claim that you wrote the
#    original software. If you use this software in a product, an acknowledgment in the product
#    documentation would be appreciated but is not required.
# 2. Altered source versions must be plainly marked as such, and must not be misrepresented as being
#    the original software.
# 3. This notice may not be removed or altered from any source distribution.

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from srghn.compiled import compiled, inlined, intrinsic
from srghn.lanes import insert_function

BODIES, LEGS, EDGES, CORNERS = 3, 2, 11, 6
CONTACTS = BODIES * EDGES
LANDER = 0
WIDTH = 16

_f4, _f8, _i8, _u1, _b1 = np.float32, np.float64, np.int64, np.uint8, np.bool_


def _record(**fields: Any) -> np.dtype[Any]:
    return np.dtype(
        [(name, *(f if isinstance(f, tuple) else (f,))) for name, f in fields.items()], align=True
    )


#: What all lanes share.
WORLD = _record(
    # corners and outward normals of each body's polygon, in its own frame, counterclockwise
    size=(_i8, BODIES),
    corner=(_f4, (BODIES, CORNERS, 2)),
    normal=(_f4, (BODIES, CORNERS, 2)),
    centroid=(_f4, (BODIES, 2)),
    center=(_f4, (BODIES, 2)),  # of mass, in the body's frame
    inverse_mass=(_f4, BODIES),
    inverse_inertia=(_f4, BODIES),
    friction=(_f4, (BODIES, EDGES)),
    radius=_f4,  # of the skin around polygons and edges
    gravity=_f4,
    step=_f4,  # seconds
    anchor=(_f4, (LEGS, 4)),  # from the centre of mass to the joint: the lander's x, y, the leg's
    reference=(_f4, LEGS),  # the leg's angle to the lander at which the joint's is 0
    lower=(_f4, LEGS),
    upper=(_f4, LEGS),
    speed=(_f4, LEGS),  # the joint's motor's, and its greatest impulse in one step
    motor=_f4,
    start=(_f4, (BODIES, 3)),  # origin and angle before the first step
    # Gymnasium's: (value - shift) * gain / unit is an observation
    shift=(_f8, 8),
    gain=(_f8, 8),
    unit=(_f8, 8),
    scale=_f8,
    main=(_f8, 2),  # power and place
    side=(_f8, 4),  # power, how far away, the height where it is and the one that Gymnasium aims at
    windy=_b1,
    wind=(_f8, 2),  # power of the wind and of the turbulence
)

#: One lander's state.
LANE = _record(
    edge=(_f4, (EDGES, 2, 2)),  # both ends
    fat=(_f4, (BODIES + EDGES, 4)),  # b2AABB in the broad phase, bodies first: lower, upper
    now=(_f4, (BODIES, 3)),  # b2Sweep's c and a, of the centre of mass
    before=(_f4, (BODIES, 3)),  # its c0 and a0
    alpha=(_f4, BODIES + 1),  # its alpha0, the moon's last
    velocity=(_f4, (BODIES, 3)),
    frame=(_f4, (BODIES, 4)),
    force=(_f4, 3),  # on the lander in the next step: x, y, torque
    impulse=(_f4, (LEGS, 4)),  # of each joint: x, y, limit, motor
    limit=(_i8, LEGS),  # at which each joint is: -1 the lower, 1 the upper, 0 none
    awake=(_u1, BODIES),
    still=(_f4, BODIES),  # seconds
    contacts=(_i8, CONTACTS),  # the first `count` exist, the latest last
    count=_i8,
    # Gymnasium's
    grounded=(_u1, LEGS),
    crashed=_b1,
    gust=(_f8, 2),  # index of the wind and of the turbulence
    shaping=_f8,
)

#: b2Contact of a body with an edge, and its b2Manifold.
CONTACT = _record(
    exists=_b1,
    touching=_b1,
    enabled=_b1,
    timed=_b1,  # whether `time` of impact is known
    time=_f4,
    impacts=_i8,
    points=_i8,
    on_body=_b1,  # whether the plane is the body's and the points are the edge's (e_faceB)
    normal=(_f4, 2),  # the plane's, and a point of it
    plane=(_f4, 2),
    clip=(_f4, (2, 2)),
    feature=(_i8, 2),
    impulse=(_f4, (2, 2)),  # of each point: normal, tangent
)

#: b2ContactVelocityConstraint: a contact while it is solved.
CONSTRAINT = _record(
    contact=_i8,
    row=_i8,  # of its body in the batch
    points=_i8,
    friction=_f4,
    inverse_mass=_f4,
    inverse_inertia=_f4,
    normal=(_f4, 2),
    arm=(_f4, (2, 2)),
    mass=(_f4, (2, 2)),  # of each point: normal, tangent
    k=(_f4, 3),  # K, symmetric: 11, 12, 22
    inverse=(_f4, 3),
    impulse=(_f4, (2, 2)),
)

#: What velocity iterations read and change; the last axis is the landers'. Of two joints the one
#: that is solved first comes first, and so do the legs in the rows behind the lander's.
BATCH = _record(
    velocity=(_f4, (BODIES, 3, WIDTH)),
    impulse=(_f4, (LEGS, 4, WIDTH)),
    limit=(_f4, (LEGS, WIDTH)),
    speed=(_f4, (LEGS, WIDTH)),
    arm=(_f4, (LEGS, 4, WIDTH)),  # `anchor` turned into the world
    k=(_f4, (LEGS, 6, WIDTH)),  # b2Mat33, symmetric: 11, 12, 13, 22, 23, 33
    cross=(_f4, (LEGS, 3, WIDTH)),  # of its second and third column
    inverse=(_f4, (LEGS, 2, WIDTH)),  # of the determinants of all of it and of 11 to 22
    first=(_i8, WIDTH),  # which joint comes first
    count=(_i8, WIDTH),  # of contacts
)

#: Room for what a step computes and forgets.
ROOM = _record(
    corner=(_f4, (CORNERS, 2)),  # a polygon's in the world, and its normals
    normal=(_f4, (CORNERS, 2)),
    simplex=(_f4, (3, 2)),  # b2Simplex: from a corner of the edge to one of the polygon
    vertex=(_i8, (3, 2)),  # which these are
    saved=(_i8, (3, 2)),
    share=(_f4, 2),  # barycentric coordinates of the closest point
    state=(_f8, 8),  # the observation
)

F = np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
EPSILON, LARGEST = np.finfo(np.float32).eps, np.finfo(np.float32).max
PI = F(3.14159265359)
# b2Settings.h, and constants that Box2D writes where it uses them
LINEAR_SLOP, ANGULAR_SLOP = F(0.005), F(2) / F(180) * PI
FAT, AHEAD = F(0.1), F(2)
MOST_SHIFT, MOST_TURN = F(0.2), F(8) / F(180) * PI
FARTHEST, FARTHEST_TURN = F(2), F(0.5) * PI
FARTHEST_SQUARED, FARTHEST_TURN_SQUARED = FARTHEST * FARTHEST, FARTHEST_TURN * FARTHEST_TURN
SLEEPY = F(0.5)
CALM_SQUARED, CALM_TURN_SQUARED = F(0.01) * F(0.01), ANGULAR_SLOP * ANGULAR_SLOP
BAUMGARTE, CLOSE = F(0.2), -F(3) * LINEAR_SLOP
IMPACT_BAUMGARTE, IMPACT_CLOSE = F(0.75), -F(1.5) * LINEAR_SLOP
MOST_CONDITION = F(1000)
RELATIVE, ABSOLUTE = F(0.98), F(0.001)
TARGET_SLOP, TOLERANCE, NEVER = F(3) * LINEAR_SLOP, F(0.25) * LINEAR_SLOP, ONE - F(10) * EPSILON
MOST_IMPACTS, MOST_CORNERS, MOST_ROOTS, MOST_SEARCHES = 8, 16, 50, 20
# the solvers' iterations: Gymnasium's, and b2World::SolveTOI's
VELOCITY_ITERATIONS, POSITION_ITERATIONS, IMPACT_ITERATIONS = 180, 60, 20


@intrinsic
def sincosf(typing: Any, angle: Any) -> Any:
    """The C library's `sinf` and `cosf` by its one call for both, as compilers make it of b2Rot."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FloatType()
        out = [cgutils.alloca_once(builder, kind) for _ in range(2)]  # type: ignore[no-untyped-call]
        pointer = kind.as_pointer()
        signed = ir.FunctionType(ir.VoidType(), [kind, pointer, pointer])
        function = insert_function(builder.module, signed, "sincosf")
        builder.call(function, [arguments[0], *out])
        return context.make_tuple(builder, signature.return_type, [builder.load(o) for o in out])

    both: Any = types.UniTuple(types.float32, 2)  # type: ignore[no-untyped-call]
    return both(types.float32), build


@inlined
def _rotate(sine, cosine, x, y):
    """b2Mul(b2Rot, b2Vec2)."""
    return cosine * x - sine * y, sine * x + cosine * y


@inlined
def _unrotate(sine, cosine, x, y):
    """b2MulT(b2Rot, b2Vec2)."""
    return cosine * x + sine * y, -sine * x + cosine * y


@inlined
def _place(frame, point):
    """b2Mul(b2Transform, b2Vec2): a point of a body's in the world."""
    x, y, sine, cosine = frame
    return (cosine * point[0] - sine * point[1]) + x, (sine * point[0] + cosine * point[1]) + y


@inlined
def _clamp(value, low, high):
    value = value if value < high else high
    return low if low > value else value


@inlined
def _unit(x, y):
    """b2Vec2::Normalize."""
    length = math.sqrt(x * x + y * y)
    inverse = ONE if length < EPSILON else ONE / length
    return x * inverse, y * inverse


@inlined
def _frame(x, y, angle, center):
    """The frame of a body whose centre of mass is at (x, y)."""
    sine, cosine = sincosf(angle)
    a, b = _rotate(sine, cosine, center[0], center[1])
    return x - a, y - b, sine, cosine


@inlined
def _frame_of(lane, body):
    frame = lane.frame[body]
    return frame[0], frame[1], frame[2], frame[3]


@inlined
def _synchronize(world, lane, body):
    """b2Body::SynchronizeTransform."""
    now, frame = lane.now[body], lane.frame[body]
    frame[0], frame[1], frame[2], frame[3] = _frame(now[0], now[1], now[2], world.center[body])


# Broad phase --------------------------------------------------------------------------------------


@inlined
def _bounds(world, body, frame):
    """b2PolygonShape::ComputeAABB."""
    left, low = _place(frame, world.corner[body, 0])
    right, high = left, low
    for i in range(1, world.size[body]):
        x, y = _place(frame, world.corner[body, i])
        left, right = left if left < x else x, right if right > x else x
        low, high = low if low < y else y, high if high > y else y
    radius = world.radius
    return left - radius, low - radius, right + radius, high + radius


@compiled
def _move(world, lane, body):
    """b2Body::SynchronizeFixtures and b2DynamicTree::MoveProxy; whether the fat box changed."""
    before, last, fat = lane.before[body], _frame_of(lane, body), lane.fat[body]
    first = _frame(before[0], before[1], before[2], world.center[body])
    left, low, right, high = _bounds(world, body, first)
    x0, y0, x1, y1 = _bounds(world, body, last)
    left, low = left if left < x0 else x0, low if low < y0 else y0
    right, high = right if right > x1 else x1, high if high > y1 else y1
    if fat[0] <= left and fat[1] <= low and right <= fat[2] and high <= fat[3]:
        return False
    x, y = AHEAD * (last[0] - first[0]), AHEAD * (last[1] - first[1])
    fat[0], fat[1], fat[2], fat[3] = left - FAT, low - FAT, right + FAT, high + FAT
    fat[0 if x < ZERO else 2] += x
    fat[1 if y < ZERO else 3] += y
    return True


@inlined
def _overlap(lane, body, edge):
    """b2TestOverlap of the fat boxes."""
    a, b = lane.fat[BODIES + edge], lane.fat[body]
    apart = b[0] - a[2] > ZERO or b[1] - a[3] > ZERO or a[0] - b[2] > ZERO or a[1] - b[3] > ZERO
    return not apart


@compiled
def _find_contacts(lane, contacts):
    """b2BroadPhase::UpdatePairs and b2ContactManager::AddPair.

    Pairs come in the order of their proxies, which is that of their making: edges, then bodies.
    """
    for edge in range(EDGES):
        for body in range(BODIES):
            contact = contacts[body * EDGES + edge]
            if not contact.exists and _overlap(lane, body, edge):
                contact.exists = contact.enabled = True
                contact.touching = contact.timed = False
                contact.impacts = contact.points = 0
                lane.contacts[lane.count] = body * EDGES + edge
                lane.count += 1
                if not lane.awake[body]:
                    lane.awake[body], lane.still[body] = True, ZERO


# Narrow phase -------------------------------------------------------------------------------------


@inlined
def _clip(points, nx, ny, offset, vertex):
    """b2ClipSegmentToLine: whether both of the points (x, y, feature) remain, and these.

    A feature is (index A, index B, type A, type B), a byte each, the first the lowest.
    """
    (x0, y0, feature0), (x1, y1, _) = points
    distance0, distance1 = nx * x0 + ny * y0 - offset, nx * x1 + ny * y1 - offset
    if distance0 <= ZERO and distance1 <= ZERO:
        return True, points
    if not distance0 * distance1 < ZERO:
        return False, points
    part = distance0 / (distance0 - distance1)
    x, y = x0 + part * (x1 - x0), y0 + part * (y1 - y0)
    cut = (x, y, vertex | feature0 & 0xFF00 | 1 << 24)
    return True, (points[0] if distance0 <= ZERO else points[1], cut)


@compiled
def _collide(world, lane, body, edge, contact, room):
    """b2CollideEdgeAndPolygon, for an edge without neighbours: fills in the contact's manifold."""
    contact.points = 0
    frame, ends, size = _frame_of(lane, body), lane.edge[edge], world.size[body]
    corner, normal, reach = room.corner, room.normal, TWO * world.radius
    x1, y1, x2, y2 = ends[0, 0], ends[0, 1], ends[1, 0], ends[1, 1]
    tx, ty = _unit(x2 - x1, y2 - y1)
    nx, ny = ty, -tx
    cx, cy = _place(frame, world.centroid[body])
    front = nx * (cx - x1) + ny * (cy - y1) >= ZERO
    if not front:
        nx, ny = -nx, -ny
    apart = LARGEST
    for i in range(size):
        x, y = _place(frame, world.corner[body, i])
        corner[i, 0], corner[i, 1] = x, y
        s = nx * (x - x1) + ny * (y - y1)
        apart = s if s < apart else apart
    if apart > reach:
        return
    side, aside = -1, -LARGEST
    for i in range(size):
        x, y = _rotate(frame[2], frame[3], world.normal[body, i, 0], world.normal[body, i, 1])
        normal[i, 0], normal[i, 1] = x, y
        x, y = -x, -y
        s1 = x * (corner[i, 0] - x1) + y * (corner[i, 1] - y1)
        s2 = x * (corner[i, 0] - x2) + y * (corner[i, 1] - y2)
        s = s1 if s1 < s2 else s2
        if s > reach:
            return
        if not (x + nx) * nx + (y + ny) * ny < -ANGULAR_SLOP and s > aside:
            side, aside = i, s
    on_body = side >= 0 and aside > RELATIVE * apart + ABSOLUTE
    if on_body:  # the edge is clipped to a side of the polygon
        after = (side + 1) % size
        nx, ny = normal[side, 0], normal[side, 1]
        ax, ay, bx, by = corner[side, 0], corner[side, 1], corner[after, 0], corner[after, 1]
        feature = side << 8 | 1 << 24
        points = ((x1, y1, feature), (x2, y2, feature))
    else:  # the side of the polygon that faces the edge is clipped to it
        best, least = 0, LARGEST
        for i in range(size):
            s = nx * normal[i, 0] + ny * normal[i, 1]
            if s < least:
                best, least = i, s
        after = (best + 1) % size
        points = (
            (corner[best, 0], corner[best, 1], best << 8 | 1 << 16),
            (corner[after, 0], corner[after, 1], after << 8 | 1 << 16),
        )
        side, after = (0, 1) if front else (1, 0)
        ax, ay, bx, by = (x1, y1, x2, y2) if front else (x2, y2, x1, y1)
    tx, ty = ny, -nx
    some, points = _clip(points, tx, ty, tx * ax + ty * ay, side)
    if some:
        some, points = _clip(points, -tx, -ty, -tx * bx + -ty * by, after)
    if not some:
        return
    contact.on_body = on_body
    if on_body:
        for i in range(2):
            contact.normal[i] = world.normal[body, side, i]
            contact.plane[i] = world.corner[body, side, i]
    else:
        contact.normal[0], contact.normal[1] = nx, ny
        contact.plane[0], contact.plane[1] = ax, ay
    for x, y, feature in points:
        if nx * (x - ax) + ny * (y - ay) <= reach:
            if on_body:  # A and B change places
                feature = (feature & 0xFF00FF) << 8 | feature >> 8 & 0xFF00FF
            else:
                x, y = _unrotate(frame[2], frame[3], x - frame[0], y - frame[1])
            contact.clip[contact.points, 0], contact.clip[contact.points, 1] = x, y
            contact.feature[contact.points] = feature
            contact.points += 1


@inlined
def _notice(lane, body, touching):
    """Gymnasium's ContactDetector."""
    if body != LANDER:
        lane.grounded[body - 1] = touching
    elif touching:
        lane.crashed = True


@compiled
def _update(world, lane, code, contact, room):
    """b2Contact::Update: impulses stay with the points whose features do."""
    points, one, two = contact.points, contact.feature[0], contact.feature[1]
    a, b = contact.impulse[0, 0], contact.impulse[0, 1]
    c, d = contact.impulse[1, 0], contact.impulse[1, 1]
    contact.enabled = True
    _collide(world, lane, code // EDGES, code % EDGES, contact, room)
    for i in range(contact.points):
        normal, tangent = ZERO, ZERO
        if points > 0 and one == contact.feature[i]:
            normal, tangent = a, b
        elif points > 1 and two == contact.feature[i]:
            normal, tangent = c, d
        contact.impulse[i, 0], contact.impulse[i, 1] = normal, tangent
    touching = contact.points > 0
    if touching != contact.touching:
        contact.touching = touching
        _notice(lane, code // EDGES, touching)


@compiled
def _update_contacts(world, lane, contacts, room):
    """b2ContactManager::Collide."""
    for i in range(lane.count - 1, -1, -1):
        code = lane.contacts[i]
        body, contact = code // EDGES, contacts[code]
        if not lane.awake[body]:
            continue
        if _overlap(lane, body, code % EDGES):
            _update(world, lane, code, contact, room)
            continue
        if contact.touching:
            _notice(lane, body, False)
        contact.exists = False
        lane.count -= 1
        for k in range(i, lane.count):
            lane.contacts[k] = lane.contacts[k + 1]


# Contacts -----------------------------------------------------------------------------------------


@inlined
def _plane(frame, contact, i):
    """Point i of a contact, a point of its plane and that plane's normal, in the world."""
    if contact.on_body:
        nx, ny = _rotate(frame[2], frame[3], contact.normal[0], contact.normal[1])
        px, py = _place(frame, contact.plane)
        return contact.clip[i, 0], contact.clip[i, 1], px, py, nx, ny
    x, y = _place(frame, contact.clip[i])
    return x, y, contact.plane[0], contact.plane[1], contact.normal[0], contact.normal[1]


@compiled
def _constrain(world, lane, contact, constraint, warm):
    """b2ContactSolver and its InitializeVelocityConstraints, of one contact.

    `constraint` has got its contact and its row.
    """
    body, edge = constraint.contact // EDGES, constraint.contact % EDGES
    now, radius, arm = lane.now[body], world.radius, constraint.arm
    mb, ib = world.inverse_mass[body], world.inverse_inertia[body]
    constraint.inverse_mass, constraint.inverse_inertia, constraint.points = mb, ib, contact.points
    constraint.friction = world.friction[body, edge]
    frame, nx, ny = _frame(now[0], now[1], now[2], world.center[body]), ZERO, ZERO
    for i in range(contact.points):
        x, y, px, py, nx, ny = _plane(frame, contact, i)
        away = radius - ((x - px) * nx + (y - py) * ny)
        ax, ay, bx, by = x + away * nx, y + away * ny, x - radius * nx, y - radius * ny
        if contact.on_body:
            nx, ny = -nx, -ny
        rx, ry, tx, ty = HALF * (ax + bx) - now[0], HALF * (ay + by) - now[1], ny, -nx
        across, along = rx * ny - ry * nx, rx * ty - ry * tx
        k, kt = mb + ib * across * across, mb + ib * along * along
        arm[i, 0], arm[i, 1] = rx, ry
        for n in range(2):
            constraint.impulse[i, n] = contact.impulse[i, n] if warm else ZERO
        constraint.mass[i, 0], constraint.mass[i, 1] = ONE / k, ONE / kt
    constraint.normal[0], constraint.normal[1] = nx, ny
    if contact.points == 2:
        one, two = arm[0, 0] * ny - arm[0, 1] * nx, arm[1, 0] * ny - arm[1, 1] * nx
        k11, k12, k22 = mb + ib * one * one, mb + ib * one * two, mb + ib * two * two
        determinant = k11 * k22 - k12 * k12
        if not k11 * k11 < MOST_CONDITION * determinant:
            constraint.points = 1  # the points are as good as one
            return
        inverse = ONE / determinant
        constraint.k[0], constraint.k[1], constraint.k[2] = k11, k12, k22
        constraint.inverse[0], constraint.inverse[1] = inverse * k22, -inverse * k12
        constraint.inverse[2] = inverse * k11


@inlined
def _push(batch, column, constraint, i, x, y):
    """The impulse (x, y) at point i of a contact."""
    velocity, arm = batch.velocity[constraint.row], constraint.arm[i]
    velocity[0, column] += constraint.inverse_mass * x
    velocity[1, column] += constraint.inverse_mass * y
    velocity[2, column] += constraint.inverse_inertia * (arm[0] * y - arm[1] * x)


@inlined
def _speed(batch, column, constraint, i, x, y):
    """How fast point i of a contact moves in direction (x, y)."""
    velocity, arm = batch.velocity[constraint.row], constraint.arm[i]
    vx, vy, w = velocity[0, column], velocity[1, column], velocity[2, column]
    return (vx - w * arm[1]) * x + (vy + w * arm[0]) * y


@compiled
def _warm(batch, column, constraint):
    """b2ContactSolver::WarmStart, of one contact."""
    nx, ny = constraint.normal[0], constraint.normal[1]
    for i in range(constraint.points):
        a, b = constraint.impulse[i, 0], constraint.impulse[i, 1]
        _push(batch, column, constraint, i, a * nx + b * ny, a * ny + b * -nx)


@compiled
def _solve_contact(batch, column, constraint):
    """b2ContactSolver::SolveVelocityConstraints, of one contact."""
    impulse, mass = constraint.impulse, constraint.mass
    nx, ny = constraint.normal[0], constraint.normal[1]
    for i in range(constraint.points):
        slip = _speed(batch, column, constraint, i, ny, -nx)
        most = constraint.friction * impulse[i, 0]
        wanted = _clamp(impulse[i, 1] + mass[i, 1] * -slip, -most, most)
        change = wanted - impulse[i, 1]
        impulse[i, 1] = wanted
        _push(batch, column, constraint, i, change * ny, change * -nx)
    b1, a1 = _speed(batch, column, constraint, 0, nx, ny), impulse[0, 0]
    if constraint.points == 1:
        wanted = a1 + -mass[0, 0] * b1
        wanted = wanted if wanted > ZERO else ZERO
        impulse[0, 0] = wanted
        _push(batch, column, constraint, 0, (wanted - a1) * nx, (wanted - a1) * ny)
        return
    b2, a2 = _speed(batch, column, constraint, 1, nx, ny), impulse[1, 0]
    k, inverse, arm = constraint.k, constraint.inverse, constraint.arm
    b1, b2 = b1 - (k[0] * a1 + k[1] * a2), b2 - (k[1] * a1 + k[2] * a2)
    # both points carry, only the first, only the second, or none: the first that makes sense
    x1, x2 = -(inverse[0] * b1 + inverse[1] * b2), -(inverse[1] * b1 + inverse[2] * b2)
    some = x1 >= ZERO and x2 >= ZERO
    if not some:
        x1, x2 = -mass[0, 0] * b1, ZERO
        some = x1 >= ZERO and k[1] * x1 + b2 >= ZERO
    if not some:
        x1, x2 = ZERO, -mass[1, 0] * b2
        some = x2 >= ZERO and k[1] * x2 + b1 >= ZERO
    if not some:
        x1, x2 = ZERO, ZERO
        some = b1 >= ZERO and b2 >= ZERO
    if some:
        impulse[0, 0], impulse[1, 0] = x1, x2
        ax, ay, bx, by = (x1 - a1) * nx, (x1 - a1) * ny, (x2 - a2) * nx, (x2 - a2) * ny
        turn = (arm[0, 0] * ay - arm[0, 1] * ax) + (arm[1, 0] * by - arm[1, 1] * bx)
        velocity = batch.velocity[constraint.row]
        velocity[0, column] += constraint.inverse_mass * (ax + bx)
        velocity[1, column] += constraint.inverse_mass * (ay + by)
        velocity[2, column] += constraint.inverse_inertia * turn


@compiled
def _separate(world, lane, contacts, constraints, count, baumgarte):
    """b2ContactSolver::SolvePositionConstraints: the least separation."""
    least = ZERO
    for k in range(count):
        contact, body = contacts[constraints[k].contact], constraints[k].contact // EDGES
        now, mb, ib = lane.now[body], world.inverse_mass[body], world.inverse_inertia[body]
        for i in range(contact.points):
            frame = _frame(now[0], now[1], now[2], world.center[body])
            x, y, px, py, nx, ny = _plane(frame, contact, i)
            separation = (x - px) * nx + (y - py) * ny - world.radius - world.radius
            if contact.on_body:
                nx, ny = -nx, -ny
            rx, ry = x - now[0], y - now[1]
            least = least if least < separation else separation
            error = _clamp(baumgarte * (separation + LINEAR_SLOP), -MOST_SHIFT, ZERO)
            across = rx * ny - ry * nx
            mass = mb + ib * across * across
            impulse = -error / mass
            px, py = impulse * nx, impulse * ny
            now[0] += mb * px
            now[1] += mb * py
            now[2] += ib * (rx * py - ry * px)
    return least


# Joints -------------------------------------------------------------------------------------------


@compiled
def _hold(world, lane, batch, column, place):
    """b2RevoluteJoint::InitVelocityConstraints, of the joint in that place."""
    j = batch.first[column] ^ place
    leg, anchor, impulse = j + 1, world.anchor[j], lane.impulse[j]
    a, b = lane.frame[LANDER], lane.frame[leg]
    ax, ay = _rotate(a[2], a[3], anchor[0], anchor[1])
    bx, by = _rotate(b[2], b[3], anchor[2], anchor[3])
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
def _solve_joints(world, batch, place):
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
        motor = _clamp(old + -mass * (wb - wa - batch.speed[place, c]), -most, most)
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
def _iterate(world, batch, constraints):
    """The velocity iterations of b2Island::Solve."""
    for _ in range(VELOCITY_ITERATIONS):
        _solve_joints(world, batch, 0)
        _solve_joints(world, batch, 1)
        for column in range(WIDTH):
            for k in range(batch.count[column]):
                _solve_contact(batch, column, constraints[column, k])


@compiled
def _join(world, lane, j):
    """b2RevoluteJoint::SolvePositionConstraints: whether the errors are small."""
    leg, anchor, limit, turned = j + 1, world.anchor[j], lane.limit[j], ZERO
    a, b = lane.now[LANDER], lane.now[leg]
    ma, ia = world.inverse_mass[LANDER], world.inverse_inertia[LANDER]
    mb, ib = world.inverse_mass[leg], world.inverse_inertia[leg]
    if limit != 0:
        angle = b[2] - a[2] - world.reference[j]
        if limit < 0:
            turned = -(angle - world.lower[j])
            error = _clamp(angle - world.lower[j] + ANGULAR_SLOP, -MOST_TURN, ZERO)
        else:
            turned = angle - world.upper[j]
            error = _clamp(turned - ANGULAR_SLOP, ZERO, MOST_TURN)
        turn = -(ONE / (ia + ib)) * error
        a[2] -= ia * turn
        b[2] += ib * turn
    sine, cosine = sincosf(a[2])
    ax, ay = _rotate(sine, cosine, anchor[0], anchor[1])
    sine, cosine = sincosf(b[2])
    bx, by = _rotate(sine, cosine, anchor[2], anchor[3])
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


# Islands ------------------------------------------------------------------------------------------


@compiled
def _prepare(world, lane, contacts, batch, column, constraints):
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
                _constrain(world, lane, contacts[code], constraints[count], True)
                count += 1
    lane.force[:] = ZERO
    batch.count[column] = count
    for k in range(count):
        _warm(batch, column, constraints[k])
    for place in range(LEGS):
        _hold(world, lane, batch, column, place)


@inlined
def _integrate(lane, body, step):
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
        fine = _separate(world, lane, contacts, constraints, count, BAUMGARTE) >= CLOSE
        fine &= _join(world, lane, first)
        fine &= _join(world, lane, 1 - first)
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
def _finish(world, lane, contacts, batch, column, constraints):
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
        impulse = contacts[constraints[k].contact].impulse
        for i in range(constraints[k].points):
            for n in range(2):
                impulse[i, n] = constraints[k].impulse[i, n]
    for body in range(BODIES):
        _integrate(lane, body, world.step)
    settled = _settle(world, lane, contacts, constraints, count, first)
    for body in range(BODIES):
        _synchronize(world, lane, body)
    _rest(lane, world.step, settled)
    moved = False
    for body in range(BODIES):
        moved |= _move(world, lane, body)
    if moved:
        _find_contacts(lane, contacts)


# Continuous collision -----------------------------------------------------------------------------


@inlined
def _support(corner, size, x, y):
    """b2DistanceProxy::GetSupport: which corner is farthest in direction (x, y)."""
    best, most = 0, corner[0, 0] * x + corner[0, 1] * y
    for i in range(1, size):
        value = corner[i, 0] * x + corner[i, 1] * y
        if value > most:
            best, most = i, value
    return best


@inlined
def _vertex(room, i, ends, corner, frame, a, b):
    """b2SimplexVertex i, from corner a of the edge to b of the polygon."""
    x, y = _place(frame, corner[b])
    room.vertex[i, 0], room.vertex[i, 1] = a, b
    room.simplex[i, 0], room.simplex[i, 1] = x - ends[a, 0], y - ends[a, 1]


@inlined
def _take(room, i, j):
    """Vertex j as vertex i."""
    for n in range(2):
        room.simplex[i, n], room.vertex[i, n] = room.simplex[j, n], room.vertex[j, n]


@inlined
def _take_two(room, i, j, one, two):
    """Vertices i and j as the first two, shared in proportion."""
    inverse = ONE / (one + two)
    room.share[0], room.share[1] = one * inverse, two * inverse
    _take(room, 0, i)
    _take(room, 1, j)
    return 2


@compiled
def _reduce(room, count):
    """b2Simplex::Solve2 and Solve3: how many vertices remain, the first ones."""
    w = room.simplex
    ax, ay, bx, by = w[0, 0], w[0, 1], w[1, 0], w[1, 1]
    ex, ey = bx - ax, by - ay
    ab_b, ab_a = -(ax * ex + ay * ey), bx * ex + by * ey
    if count == 2:
        if ab_b <= ZERO:
            return 1
        if ab_a <= ZERO:
            _take(room, 0, 1)
            return 1
        return _take_two(room, 0, 1, ab_a, ab_b)
    cx, cy = w[2, 0], w[2, 1]
    fx, fy, gx, gy = cx - ax, cy - ay, cx - bx, cy - by
    ac_c, ac_a = -(ax * fx + ay * fy), cx * fx + cy * fy
    bc_c, bc_b = -(bx * gx + by * gy), cx * gx + cy * gy
    turn = ex * fy - ey * fx
    a, b, c = turn * (bx * cy - by * cx), turn * (cx * ay - cy * ax), turn * (ax * by - ay * bx)
    if ab_b <= ZERO and ac_c <= ZERO:
        return 1
    if ab_a > ZERO and ab_b > ZERO and c <= ZERO:
        return _take_two(room, 0, 1, ab_a, ab_b)
    if ac_a > ZERO and ac_c > ZERO and b <= ZERO:
        return _take_two(room, 0, 2, ac_a, ac_c)
    if ab_a <= ZERO and bc_c <= ZERO:
        _take(room, 0, 1)
        return 1
    if ac_a <= ZERO and bc_b <= ZERO:
        _take(room, 0, 2)
        return 1
    if bc_b > ZERO and bc_c > ZERO and a <= ZERO:
        _take(room, 0, 2)
        return _take_two(room, 0, 1, bc_c, bc_b)
    return 3  # the origin is inside


@inlined
def _metric(room, count):
    """b2Simplex::GetMetric."""
    w = room.simplex
    x, y = w[1, 0] - w[0, 0], w[1, 1] - w[0, 1]
    if count == 3:
        return x * (w[2, 1] - w[0, 1]) - y * (w[2, 0] - w[0, 0])
    return math.sqrt(x * x + y * y) if count == 2 else ZERO


@compiled
def _distance(room, ends, corner, size, frame, count, metric):
    """b2Distance without skins, from the simplex of the first `count` in `room.vertex` on.

    Gives the distance, and the count and the metric of the simplex found.
    """
    for i in range(count):
        _vertex(room, i, ends, corner, frame, room.vertex[i, 0], room.vertex[i, 1])
    if count > 1:
        now = _metric(room, count)
        if now < HALF * metric or TWO * metric < now or now < EPSILON:
            count = 0
    w = room.simplex
    if count == 0:
        _vertex(room, 0, ends, corner, frame, 0, 0)
        count = 1
    for _ in range(MOST_SEARCHES):
        saved = count
        for i in range(saved):
            room.saved[i, 0], room.saved[i, 1] = room.vertex[i, 0], room.vertex[i, 1]
        if count > 1:
            count = _reduce(room, count)
        if count == 3:
            break
        x, y = -w[0, 0], -w[0, 1]
        if count == 2:
            ex, ey = w[1, 0] - w[0, 0], w[1, 1] - w[0, 1]
            x, y = (-ey, ex) if ex * y - ey * x > ZERO else (ey, -ex)
        if x * x + y * y < EPSILON * EPSILON:
            break
        a = _support(ends, 2, -x, -y)
        x, y = _unrotate(frame[2], frame[3], x, y)
        b = _support(corner, size, x, y)
        _vertex(room, count, ends, corner, frame, a, b)
        known = False
        for i in range(saved):
            known |= room.saved[i, 0] == a and room.saved[i, 1] == b
        if known:
            break
        count += 1
    metric = _metric(room, count)
    if count == 3:
        return ZERO, count, metric
    a, b = room.vertex[0, 0], room.vertex[0, 1]
    px, py = ends[a, 0], ends[a, 1]
    qx, qy = _place(frame, corner[b])
    if count == 2:
        s, t, a, b = room.share[0], room.share[1], room.vertex[1, 0], room.vertex[1, 1]
        x, y = _place(frame, corner[b])
        px, py = s * px + t * ends[a, 0], s * py + t * ends[a, 1]
        qx, qy = s * qx + t * x, s * qy + t * y
    x, y = px - qx, py - qy
    return math.sqrt(x * x + y * y), count, metric


@inlined
def _between(sweep, center, part):
    """b2Sweep::GetTransform, at `part` of the way."""
    x0, y0, angle0, x1, y1, angle1 = sweep
    rest = ONE - part
    angle = rest * angle0 + part * angle1
    return _frame(rest * x0 + part * x1, rest * y0 + part * y1, angle, center)


@inlined
def _axis(room, ends, corner, frame, count):
    """b2SeparationFunction::Initialize: (kind, the axis's x, y, and a point on it).

    It goes from point to point (kind 0), or is a normal of the edge's (1) or the polygon's (2).
    """
    a, b, c, d = room.vertex[0, 0], room.vertex[0, 1], room.vertex[1, 0], room.vertex[1, 1]
    px, py = ends[a, 0], ends[a, 1]
    qx, qy = _place(frame, corner[b])
    if count == 1:
        x, y = _unit(qx - px, qy - py)
        return 0, x, y, ZERO, ZERO
    if a == c:
        x, y = _unit(corner[d, 1] - corner[b, 1], -(corner[d, 0] - corner[b, 0]))
        lx, ly = HALF * (corner[b, 0] + corner[d, 0]), HALF * (corner[b, 1] + corner[d, 1])
        nx, ny = _rotate(frame[2], frame[3], x, y)
        mx, my = _place(frame, (lx, ly))
        kind, separation = 2, (px - mx) * nx + (py - my) * ny
    else:
        x, y = _unit(ends[c, 1] - py, -(ends[c, 0] - px))
        lx, ly = HALF * (px + ends[c, 0]), HALF * (py + ends[c, 1])
        kind, separation = 1, (qx - lx) * x + (qy - ly) * y
    if separation < ZERO:
        x, y = -x, -y
    return kind, x, y, lx, ly


@compiled
def _separation(ends, corner, size, frame, axis, pair):
    """b2SeparationFunction::Evaluate of a pair of corners, or FindMinSeparation if it is (-1, -1).

    Gives the separation and the pair.
    """
    kind, x, y, lx, ly = axis
    a, b = pair
    if kind == 2:
        x, y = _rotate(frame[2], frame[3], x, y)
        if a < 0:
            a = _support(ends, 2, -x, -y)
        lx, ly = _place(frame, (lx, ly))
        return (ends[a, 0] - lx) * x + (ends[a, 1] - ly) * y, (a, b)
    if b < 0:
        dx, dy = _unrotate(frame[2], frame[3], -x, -y)
        a, b = _support(ends, 2, x, y), _support(corner, size, dx, dy)
    if kind == 0:
        lx, ly = ends[a, 0], ends[a, 1]
    qx, qy = _place(frame, corner[b])
    return (qx - lx) * x + (qy - ly) * y, (a, b)


@compiled
def _time_of_impact(room, ends, corner, size, center, sweep, radius):
    """b2TimeOfImpact: the part of the way to the impact, 1 if there is none."""
    target = max(LINEAR_SLOP, radius + radius - TARGET_SLOP)
    now, count, metric, anything = ZERO, _i8(0), ZERO, (_i8(-1), _i8(-1))
    for _ in range(MOST_SEARCHES):
        frame = _between(sweep, center, now)
        distance, count, metric = _distance(room, ends, corner, size, frame, count, metric)
        if distance <= ZERO:
            return ONE  # they overlap, and Box2D gives up
        if distance < target + TOLERANCE:
            return now
        axis, last = _axis(room, ends, corner, frame, count), ONE
        for _ in range(MOST_CORNERS):
            there = _between(sweep, center, last)
            s2, pair = _separation(ends, corner, size, there, axis, anything)
            if s2 > target + TOLERANCE:
                return ONE
            if s2 > target - TOLERANCE:
                now = last
                break
            s1, pair = _separation(ends, corner, size, frame, axis, pair)
            if s1 < target - TOLERANCE:
                return ONE  # it gives up here too
            if s1 <= target + TOLERANCE:
                return now
            low, high = now, last
            for i in range(MOST_ROOTS):
                if i % 2:
                    part = low + (target - s1) * (high - low) / (s2 - s1)
                else:
                    part = HALF * (low + high)
                there = _between(sweep, center, part)
                s, pair = _separation(ends, corner, size, there, axis, pair)
                if abs(s - target) < TOLERANCE:
                    last = part
                    break
                if s > target:
                    low, s1 = part, s
                else:
                    high, s2 = part, s
    return ONE


@inlined
def _advance(lane, body, alpha):
    """b2Sweep::Advance."""
    before, now = lane.before[body], lane.now[body]
    part = (alpha - lane.alpha[body]) / (ONE - lane.alpha[body])
    for i in range(3):
        before[i] = (ONE - part) * before[i] + part * now[i]
    lane.alpha[body] = alpha


@inlined
def _first_impact(world, lane, contacts, room):
    """The contact whose time of impact comes first, and that time; all but 1 if there is none."""
    found, least, moon = -1, ONE, BODIES
    for i in range(lane.count - 1, -1, -1):
        code = lane.contacts[i]
        body, contact = code // EDGES, contacts[code]
        if not contact.enabled or contact.impacts > MOST_IMPACTS:
            continue
        if not contact.timed:
            if not lane.awake[body]:
                continue
            if lane.alpha[moon] < lane.alpha[body]:
                lane.alpha[moon] = lane.alpha[body]
            elif lane.alpha[body] < lane.alpha[moon]:
                _advance(lane, body, lane.alpha[moon])
            before, now, full = lane.before[body], lane.now[body], TWO * PI
            turns = full * np.floor(before[2] / full)
            sweep = (before[0], before[1], before[2] - turns, now[0], now[1], now[2] - turns)
            ends, corner, size = lane.edge[code % EDGES], world.corner[body], world.size[body]
            center, alpha = world.center[body], lane.alpha[moon]
            part = _time_of_impact(room, ends, corner, size, center, sweep, world.radius)
            contact.time, contact.timed = min(alpha + (ONE - alpha) * part, ONE), True
        if contact.time < least:
            found, least = code, contact.time
    return found, least


@compiled
def _impacts(world, lane, contacts, batch, column, constraints, room):
    """b2World::SolveTOI and b2Island::SolveTOI, whose islands are one body and its contacts."""
    lane.alpha[:], moon = ZERO, BODIES
    for i in range(lane.count):
        contact = contacts[lane.contacts[i]]
        contact.timed, contact.impacts = False, 0
    while lane.count > 0:
        code, alpha = _first_impact(world, lane, contacts, room)
        if code < 0 or alpha > NEVER:
            return
        body, contact = code // EDGES, contacts[code]
        before, now, velocity = lane.before[body], lane.now[body], lane.velocity[body]
        x0, y0, angle0, x1, y1, angle1 = before[0], before[1], before[2], now[0], now[1], now[2]
        alpha0, alpha1 = lane.alpha[body], lane.alpha[moon]
        _advance(lane, body, alpha)
        lane.alpha[moon] = alpha
        for i in range(3):
            now[i] = before[i]
        _synchronize(world, lane, body)
        _update(world, lane, code, contact, room)
        contact.timed = False
        contact.impacts += 1
        if not contact.touching:
            contact.enabled = False
            before[0], before[1], before[2], now[0], now[1], now[2] = x0, y0, angle0, x1, y1, angle1
            lane.alpha[body], lane.alpha[moon] = alpha0, alpha1
            _synchronize(world, lane, body)
            continue
        constraints[0].contact, count = code, _i8(1)
        for i in range(lane.count - 1, -1, -1):
            other = lane.contacts[i]
            if other != code and other // EDGES == body:
                _update(world, lane, other, contacts[other], room)
                if contacts[other].touching:
                    constraints[count].contact = other
                    count += 1
        for _ in range(IMPACT_ITERATIONS):
            least = _separate(world, lane, contacts, constraints, count, IMPACT_BAUMGARTE)
            if least >= IMPACT_CLOSE:
                break
        for k in range(count):
            constraints[k].row = LANDER
            _constrain(world, lane, contacts[constraints[k].contact], constraints[k], False)
        for i in range(3):
            before[i], batch.velocity[LANDER, i, column] = now[i], velocity[i]
        for _ in range(VELOCITY_ITERATIONS):
            for k in range(count):
                _solve_contact(batch, column, constraints[k])
        for i in range(3):
            velocity[i] = batch.velocity[LANDER, i, column]
        _integrate(lane, body, (ONE - alpha) * world.step)
        _synchronize(world, lane, body)
        for i in range(lane.count):
            if lane.contacts[i] // EDGES == body:
                contacts[lane.contacts[i]].timed = False
        if _move(world, lane, body):
            _find_contacts(lane, contacts)


# Gymnasium's LunarLander --------------------------------------------------------------------------


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
        now[0], now[1] = _place(frame, world.center[body])
        now[2] = start[2]
        for i in range(4):
            lane.frame[body, i] = frame[i]
        left, low, right, high = _bounds(world, body, frame)
        fat[0], fat[1], fat[2], fat[3] = left - FAT, low - FAT, right + FAT, high + FAT
    lane.awake[:] = True
    _find_contacts(lane, contacts[0])


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
    x, y, angle = _f8(lane.frame[LANDER, 0]), _f8(lane.frame[LANDER, 1]), lane.now[LANDER, 2]
    sine, cosine = math.sin(_f8(angle)), math.cos(_f8(angle))
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
    for start in range(0, running.size, WIDTH):
        columns = min(WIDTH, running.size - start)
        batch.count[:] = 0
        for column in range(columns):
            k, r = running[start + column], start + column
            _steer(world, lanes[k], engines[r], noise[k, used[k]], noise[k, used[k] + 1])
            used[k] += 2
            _update_contacts(world, lanes[k], contacts[k], room)
            _prepare(world, lanes[k], contacts[k], batch, column, constraints[column])
        _iterate(world, batch, constraints)
        for column in range(columns):
            k, r = running[start + column], start + column
            _finish(world, lanes[k], contacts[k], batch, column, constraints[column])
            _impacts(world, lanes[k], contacts[k], batch, column, constraints[column], room)
            rewards[r], ended[r] = _judge(world, lanes[k], engines[r], room.state, rows[k])
