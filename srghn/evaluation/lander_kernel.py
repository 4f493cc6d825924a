# mypy: disable-error-code="no-untyped-def"
"""LunarLander's world as machine code: Box2D's step for one lander on its legs above the moon.

An altered version of Box2D 2.3 (Copyright (c) 2006-2013 Erin Catto, http://www.box2d.org, under the
zlib licence; this is not the original software): written anew for three bodies, two joints and
eleven edges that never move, with what cannot happen between them left out. All that is left
computes as Box2D does: float32, each operation in its place, so that every bit is the same. (But
for the sign of a zero, which reaches no result: nothing is divided by it, and adding it to a
velocity or position changes neither.)

Bodies are 0 for the lander, 1 and 2 for its legs; joint j holds leg j + 1. Bodies collide with
edges only, so contact `body * EDGES + edge` is all there can be between the two. Positions, angles
and velocities are (x, y, turn) rows, in metres, radians and seconds. A `frame` is b2Transform: the
origin of a body's shape (x, y), sine and cosine of its turn. The moon's own frame is the identity.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from srghn.compiled import compiled, inlined, intrinsic

BODIES, EDGES, CORNERS = 3, 11, 6
CONTACTS = BODIES * EDGES
LANDER = 0

_f4, _f8, _i4, _b1, _u1 = np.float32, np.float64, np.int32, np.bool_, np.uint8

#: What all lanes share. `joint` has a row for each leg.
WORLD = np.dtype(
    [
        # corners and outward normals of each body's polygon, in its own frame, counterclockwise
        ("size", _i4, (BODIES,)),
        ("corner", _f4, (BODIES, CORNERS, 2)),
        ("normal", _f4, (BODIES, CORNERS, 2)),
        ("centroid", _f4, (BODIES, 2)),
        # centre of mass in the body's frame; 1 / mass and 1 / inertia
        ("middle", _f4, (BODIES, 2)),
        ("light", _f4, (BODIES,)),
        ("nimble", _f4, (BODIES,)),
        ("friction", _f4, (BODIES, EDGES)),
        ("radius", _f4),  # of the skin around polygons and edges
        ("gravity", _f4),
        ("step", _f4),  # seconds
        # from the centre of mass to the joint, in the frame of the lander and of the leg
        ("anchor", _f4, (2, 4)),
        ("reference", _f4, (2,)),  # angle between the bodies at which the joint's is 0
        ("lower", _f4, (2,)),
        ("upper", _f4, (2,)),
        ("motor", _f4),  # impulse of which it is capable in one step
        ("speed", _f4, (2,)),
        ("start", _f4, (BODIES, 3)),  # origin and angle before the first step
        # Gymnasium's: (value - shift) * gain / unit is an observation
        ("shift", _f8, (8,)),
        ("gain", _f8, (8,)),
        ("unit", _f8, (8,)),
        ("main", _f8, (2,)),  # power, place
        ("side", _f8, (3,)),  # power, height, and the height at which Gymnasium aims
        ("scale", _f8),
        ("windy", _b1),
        ("wind", _f8, (2,)),  # power of the wind and of the turbulence
    ],
    align=True,
)

#: One lander's state; the comments name what Box2D has.
LANE = np.dtype(
    [
        ("edge", _f4, (EDGES, 4)),  # (x, y) of both ends
        ("fat", _f4, (BODIES + EDGES, 4)),  # b2AABB in the broad phase, bodies first: lower, upper
        ("now", _f4, (BODIES, 3)),  # b2Sweep c, a: of the centre of mass
        ("before", _f4, (BODIES, 3)),  # b2Sweep c0, a0
        ("alpha", _f4, (BODIES + 1,)),  # b2Sweep alpha0, the moon's last
        ("velocity", _f4, (BODIES, 3)),
        ("frame", _f4, (BODIES, 4)),
        ("force", _f4, (3,)),  # on the lander in the next step: x, y, torque
        ("impulse", _f4, (2, 4)),  # of each joint: x, y, limit, motor
        ("limit", _i4, (2,)),  # of each joint: -1 at the lower, 1 at the upper, 0 at none
        ("awake", _u1, (BODIES,)),
        ("still", _f4, (BODIES,)),  # m_sleepTime
        ("contacts", _i4, (CONTACTS,)),  # the first `count` exist, the latest last
        ("count", _i4),
        # Gymnasium's
        ("grounded", _u1, (2,)),
        ("crashed", _b1),
        ("gust", _f8, (2,)),  # wind_idx and torque_idx
        ("shaping", _f8),
    ],
    align=True,
)

#: A contact of a body with an edge: b2Contact and its b2Manifold.
CONTACT = np.dtype(
    [
        ("exists", _b1),
        ("touching", _b1),
        ("enabled", _b1),
        ("timed", _b1),  # e_toiFlag
        ("impacts", _i4),  # m_toiCount
        ("time", _f4),  # m_toi
        ("points", _i4),
        ("on_body", _b1),  # e_faceB: the plane is a side of the body's and the points are the edge's
        ("normal", _f4, (2,)),
        ("plane", _f4, (2,)),
        ("clip", _f4, (2, 2)),
        ("feature", _i4, (2,)),
        ("impulse", _f4, (2, 2)),  # of each point: normal, tangent
    ],
    align=True,
)

#: A contact while it is solved: b2ContactVelocityConstraint.
CONSTRAINT = np.dtype(
    [
        ("row", _i4),  # of the body in the batch
        ("contact", _i4),
        ("points", _i4),
        ("friction", _f4),
        ("light", _f4),
        ("nimble", _f4),
        ("normal", _f4, (2,)),
        ("arm", _f4, (2, 2)),
        ("mass", _f4, (2, 2)),  # of each point: normal, tangent
        ("k", _f4, (3,)),  # K: 11, 12, 22
        ("inverse", _f4, (3,)),  # of K
        ("impulse", _f4, (2, 2)),
    ],
    align=True,
)

#: Landers solved together, each in a column: the last axis is theirs. Of both joints the one that
#: is solved first comes first, and so do the legs behind the lander.
WIDTH = 16
BATCH = np.dtype(
    [
        ("velocity", _f4, (BODIES, 3, WIDTH)),
        ("impulse", _f4, (2, 4, WIDTH)),
        ("limit", _f4, (2, WIDTH)),
        ("speed", _f4, (2, WIDTH)),
        # between arm a of the lander and arm b of the leg
        ("arm", _f4, (2, 4, WIDTH)),
        ("k", _f4, (2, 6, WIDTH)),  # b2Mat33, symmetric: 11, 12, 13, 22, 23, 33
        ("cross", _f4, (2, 3, WIDTH)),  # of its second and third column
        ("inverse", _f4, (2, 2, WIDTH)),  # 1 / determinant: of all of it, of the first two rows
        ("first", _i4, (WIDTH,)),  # which joint comes first
        ("count", _i4, (WIDTH,)),  # of contacts
    ],
    align=True,
)

#: Room for what a step computes and forgets.
ROOM = np.dtype(
    [
        ("corner", _f4, (CORNERS, 2)),  # of a polygon in the world, and its normals
        ("normal", _f4, (CORNERS, 2)),
        ("simplex", _f4, (3, 4)),  # of each vertex: its point of the edge (x, y), of the polygon,
        ("share", _f4, (3,)),  # and its barycentric coordinate
        ("vertex", _i4, (3, 2)),  # which of the edge's and of the polygon's corners these are
        ("saved", _i4, (3, 2)),
        ("state", _f8, (8,)),  # the observation
    ],
    align=True,
)

F = np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
EPSILON = np.finfo(np.float32).eps
LARGEST = np.finfo(np.float32).max
PI = F(3.14159265359)
# b2Settings.h
LINEAR_SLOP, ANGULAR_SLOP = F(0.005), F(2) / F(180) * PI
FAT, AHEAD = F(0.1), F(2)
MOST_SHIFT, MOST_TURN = F(0.2), F(8) / F(180) * PI
FARTHEST, FARTHEST_TURN = F(2), F(0.5) * PI
FARTHEST_SQUARED, FARTHEST_TURN_SQUARED = FARTHEST * FARTHEST, FARTHEST_TURN * FARTHEST_TURN
SLEEPY, CALM, CALM_TURN = F(0.5), F(0.01), F(2) / F(180) * PI
CALM_SQUARED, CALM_TURN_SQUARED = CALM * CALM, CALM_TURN * CALM_TURN
MOST_IMPACTS = 8
CLOSE = -F(3) * LINEAR_SLOP
IMPACT_CLOSE = -F(1.5) * LINEAR_SLOP
BAUMGARTE, IMPACT_BAUMGARTE = F(0.2), F(0.75)
# of a contact whose two points are as good as one
MOST_CONDITION = F(1000)
TARGET_SLOP, TOLERANCE = F(3) * LINEAR_SLOP, F(0.25) * LINEAR_SLOP
NEVER = ONE - F(10) * EPSILON
# hysteresis between the sides of an edge and of a polygon
RELATIVE, ABSOLUTE = F(0.98), F(0.001)
# the solvers' iterations: Gymnasium's, and b2World::SolveTOI's
VELOCITY_ITERATIONS, POSITION_ITERATIONS, IMPACT_ITERATIONS = 180, 60, 20


@intrinsic
def sincosf(typing: Any, angle: Any) -> Any:
    """The C library's `sinf` and `cosf`, by its one call for both, as Box2D is compiled."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FloatType()
        out = [cgutils.alloca_once(builder, kind) for _ in range(2)]  # type: ignore[no-untyped-call]
        pointer = kind.as_pointer()
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, ir.FunctionType(ir.VoidType(), [kind, pointer, pointer]), "sincosf"
        )
        builder.call(function, [arguments[0], *out])
        return context.make_tuple(builder, signature.return_type, [builder.load(o) for o in out])

    return types.UniTuple(types.float32, 2)(types.float32), build


@inlined
def _rotate(sine, cosine, x, y):
    """b2Mul(b2Rot, b2Vec2)."""
    return cosine * x - sine * y, sine * x + cosine * y


@inlined
def _unrotate(sine, cosine, x, y):
    """b2MulT(b2Rot, b2Vec2)."""
    return cosine * x + sine * y, -sine * x + cosine * y


@inlined
def _place(frame, x, y):
    """b2Mul(b2Transform, b2Vec2): a point of a body's in the world."""
    return (
        (frame[3] * x - frame[2] * y) + frame[0],
        (frame[2] * x + frame[3] * y) + frame[1],
    )


@inlined
def _clamp(value, low, high):
    value = value if value < high else high
    return low if low > value else value


@inlined
def _frame(x, y, angle, middle):
    """The frame of a body whose centre of mass is at (x, y): b2Body::SynchronizeTransform."""
    sine, cosine = sincosf(angle)
    a, b = _rotate(sine, cosine, middle[0], middle[1])
    return x - a, y - b, sine, cosine


@compiled
def _synchronize(world, lane, body):
    now, frame = lane.now[body], lane.frame[body]
    frame[0], frame[1], frame[2], frame[3] = _frame(now[0], now[1], now[2], world.middle[body])


# Broad phase --------------------------------------------------------------------------------------


@inlined
def _bounds(world, body, frame):
    """b2PolygonShape::ComputeAABB."""
    left, low = _place(frame, world.corner[body, 0, 0], world.corner[body, 0, 1])
    right, high = left, low
    for i in range(1, world.size[body]):
        x, y = _place(frame, world.corner[body, i, 0], world.corner[body, i, 1])
        left, right = left if left < x else x, right if right > x else x
        low, high = low if low < y else y, high if high > y else y
    radius = world.radius
    return left - radius, low - radius, right + radius, high + radius


@compiled
def _move(world, lane, body):
    """b2Body::SynchronizeFixtures and b2DynamicTree::MoveProxy; whether the fat box changed."""
    before, frame, fat = lane.before[body], lane.frame[body], lane.fat[body]
    first = _frame(before[0], before[1], before[2], world.middle[body])
    left, low, right, high = _bounds(world, body, first)
    x0, y0, x1, y1 = _bounds(world, body, frame)
    left, low = left if left < x0 else x0, low if low < y0 else y0
    right, high = right if right > x1 else x1, high if high > y1 else y1
    if fat[0] <= left and fat[1] <= low and right <= fat[2] and high <= fat[3]:
        return False
    x, y = AHEAD * (frame[0] - first[0]), AHEAD * (frame[1] - first[1])
    fat[0], fat[1], fat[2], fat[3] = left - FAT, low - FAT, right + FAT, high + FAT
    fat[0 if x < ZERO else 2] += x
    fat[1 if y < ZERO else 3] += y
    return True


@inlined
def _overlap(lane, body, edge):
    """b2TestOverlap of the fat boxes."""
    a, b = lane.fat[BODIES + edge], lane.fat[body]
    return not (
        b[0] - a[2] > ZERO or b[1] - a[3] > ZERO or a[0] - b[2] > ZERO or a[1] - b[3] > ZERO
    )


@compiled
def _find_contacts(lane, contacts):
    """b2BroadPhase::UpdatePairs and b2ContactManager::AddPair.

    Pairs come in the order of their proxies, which is that of their making: edges, then bodies.
    """
    for edge in range(EDGES):
        for body in range(BODIES):
            contact = contacts[body * EDGES + edge]
            if contact.exists or not _overlap(lane, body, edge):
                continue
            contact.exists, contact.enabled = True, True
            contact.touching, contact.timed = False, False
            contact.impacts, contact.points = 0, 0
            lane.contacts[lane.count] = body * EDGES + edge
            lane.count += 1
            if not lane.awake[body]:
                lane.awake[body], lane.still[body] = True, ZERO


# Narrow phase -------------------------------------------------------------------------------------


@inlined
def _clip(x0, y0, id0, x1, y1, id1, nx, ny, offset, vertex):
    """b2ClipSegmentToLine; a feature is (index A, index B, type A, type B), a byte each."""
    distance0, distance1 = nx * x0 + ny * y0 - offset, nx * x1 + ny * y1 - offset
    inside0, inside1 = distance0 <= ZERO, distance1 <= ZERO
    if inside0 and inside1:
        return True, x0, y0, id0, x1, y1, id1
    if not (inside0 or inside1) or not distance0 * distance1 < ZERO:
        return False, x0, y0, id0, x1, y1, id1
    part = distance0 / (distance0 - distance1)
    x, y = x0 + part * (x1 - x0), y0 + part * (y1 - y0)
    cut = vertex | (id0 & 0xFF00) | 1 << 24
    if inside0:
        return True, x0, y0, id0, x, y, cut
    return True, x1, y1, id1, x, y, cut


@compiled
def _collide(world, lane, body, edge, contact, room):
    """b2CollideEdgeAndPolygon, for an edge without neighbours: fills in the contact's manifold."""
    contact.points = 0
    corners, normals = room.corner, room.normal
    frame, ends, size = lane.frame[body], lane.edge[edge], world.size[body]
    x1, y1, x2, y2 = ends[0], ends[1], ends[2], ends[3]
    ex, ey = x2 - x1, y2 - y1
    length = math.sqrt(ex * ex + ey * ey)
    if not length < EPSILON:
        inverse = ONE / length
        ex, ey = ex * inverse, ey * inverse
    nx, ny = ey, -ex
    cx, cy = _place(frame, world.centroid[body, 0], world.centroid[body, 1])
    front = nx * (cx - x1) + ny * (cy - y1) >= ZERO
    if not front:
        nx, ny = -nx, -ny
    apart = LARGEST
    for i in range(size):
        x, y = _place(frame, world.corner[body, i, 0], world.corner[body, i, 1])
        corners[i, 0], corners[i, 1] = x, y
        s = nx * (x - x1) + ny * (y - y1)
        apart = s if s < apart else apart
    radius = TWO * world.radius
    if apart > radius:
        return
    side, aside = -1, -LARGEST
    for i in range(size):
        x, y = _rotate(frame[2], frame[3], world.normal[body, i, 0], world.normal[body, i, 1])
        normals[i, 0], normals[i, 1] = x, y
        x, y = -x, -y
        s1 = x * (corners[i, 0] - x1) + y * (corners[i, 1] - y1)
        s2 = x * (corners[i, 0] - x2) + y * (corners[i, 1] - y2)
        s = s1 if s1 < s2 else s2
        if s > radius:
            return
        if not (x + nx) * nx + (y + ny) * ny < -ANGULAR_SLOP and s > aside:
            side, aside = i, s
    on_body = side >= 0 and aside > RELATIVE * apart + ABSOLUTE
    if on_body:
        # the reference is a side of the polygon, and the edge is clipped to it
        after = side + 1 if side + 1 < size else 0
        rx, ry = normals[side, 0], normals[side, 1]
        ax, ay, bx, by = corners[side, 0], corners[side, 1], corners[after, 0], corners[after, 1]
        px0, py0, id0, px1, py1 = x1, y1, side << 8 | 1 << 24, x2, y2
        id1 = id0
    else:
        after = 0
        least = nx * normals[0, 0] + ny * normals[0, 1]
        for i in range(1, size):
            value = nx * normals[i, 0] + ny * normals[i, 1]
            if value < least:
                least, after = value, i
        follower = after + 1 if after + 1 < size else 0
        px0, py0, id0 = corners[after, 0], corners[after, 1], after << 8 | 1 << 16
        px1, py1, id1 = corners[follower, 0], corners[follower, 1], follower << 8 | 1 << 16
        side, after = (0, 1) if front else (1, 0)
        rx, ry = nx, ny
        ax, ay, bx, by = (x1, y1, x2, y2) if front else (x2, y2, x1, y1)
    tx, ty = ry, -rx
    some, px0, py0, id0, px1, py1, id1 = _clip(
        px0, py0, id0, px1, py1, id1, tx, ty, tx * ax + ty * ay, side
    )
    if not some:
        return
    tx, ty = -tx, -ty
    some, px0, py0, id0, px1, py1, id1 = _clip(
        px0, py0, id0, px1, py1, id1, tx, ty, tx * bx + ty * by, after
    )
    if not some:
        return
    contact.on_body = on_body
    if on_body:
        contact.normal[0], contact.normal[1] = world.normal[body, side, 0], world.normal[body, side, 1]
        contact.plane[0], contact.plane[1] = world.corner[body, side, 0], world.corner[body, side, 1]
    else:
        contact.normal[0], contact.normal[1] = rx, ry
        contact.plane[0], contact.plane[1] = ax, ay
    for x, y, feature in ((px0, py0, id0), (px1, py1, id1)):
        if rx * (x - ax) + ry * (y - ay) <= radius:
            if not on_body:
                x, y = _unrotate(frame[2], frame[3], x - frame[0], y - frame[1])
            else:  # A and B change places
                feature = (feature & 0xFF00FF) << 8 | feature >> 8 & 0xFF00FF
            contact.clip[contact.points, 0], contact.clip[contact.points, 1] = x, y
            contact.feature[contact.points] = feature
            contact.points += 1


@compiled
def _update(world, lane, code, contact, room):
    """b2Contact::Update, and Gymnasium's ContactDetector."""
    body, edge = code // EDGES, code % EDGES
    points, was = contact.points, contact.touching
    first, second = contact.feature[0], contact.feature[1]
    a, b = contact.impulse[0, 0], contact.impulse[0, 1]
    c, d = contact.impulse[1, 0], contact.impulse[1, 1]
    contact.enabled = True
    _collide(world, lane, body, edge, contact, room)
    for i in range(contact.points):
        normal, tangent = ZERO, ZERO
        if points > 0 and first == contact.feature[i]:
            normal, tangent = a, b
        elif points > 1 and second == contact.feature[i]:
            normal, tangent = c, d
        contact.impulse[i, 0], contact.impulse[i, 1] = normal, tangent
    contact.touching = contact.points > 0
    if contact.touching != was:
        _notice(lane, body, contact.touching)


@inlined
def _notice(lane, body, touching):
    if body != LANDER:
        lane.grounded[body - 1] = touching
    elif touching:
        lane.crashed = True


@compiled
def _update_contacts(world, lane, contacts, room):
    """b2ContactManager::Collide, from the latest contact to the oldest."""
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


# Contact solver -----------------------------------------------------------------------------------


@inlined
def _plane(frame, contact, i):
    """Point i of a contact, a point of its plane and that plane's normal, in the world."""
    x, y = contact.clip[i, 0], contact.clip[i, 1]
    nx, ny = contact.normal[0], contact.normal[1]
    px, py = contact.plane[0], contact.plane[1]
    if contact.on_body:
        nx, ny = _rotate(frame[2], frame[3], nx, ny)
        px, py = _place(frame, px, py)
    else:
        nx, ny = _rotate(ZERO, ONE, nx, ny)
        x, y = _place(frame, x, y)
    return x, y, px, py, nx, ny


@compiled
def _constrain(world, lane, code, contact, constraint, row, warm):
    """b2ContactSolver and its InitializeVelocityConstraints, of one contact."""
    body = code // EDGES
    now = lane.now[body]
    light, nimble, radius = world.light[body], world.nimble[body], world.radius
    constraint.row, constraint.contact, constraint.points = row, code, contact.points
    constraint.light, constraint.nimble = light, nimble
    constraint.friction = world.friction[body, code % EDGES]
    frame = _frame(now[0], now[1], now[2], world.middle[body])
    nx, ny = ZERO, ZERO
    for i in range(contact.points):
        x, y, px, py, nx, ny = _plane(frame, contact, i)
        away = radius - ((x - px) * nx + (y - py) * ny)
        ax, ay = x + away * nx, y + away * ny
        bx, by = x - radius * nx, y - radius * ny
        if contact.on_body:
            nx, ny = -nx, -ny
        rx, ry = HALF * (ax + bx) - now[0], HALF * (ay + by) - now[1]
        tx, ty = ny, -nx
        across, along = rx * ny - ry * nx, rx * ty - ry * tx
        k, kt = light + nimble * across * across, light + nimble * along * along
        constraint.arm[i, 0], constraint.arm[i, 1] = rx, ry
        constraint.mass[i, 0] = ONE / k if k > ZERO else ZERO
        constraint.mass[i, 1] = ONE / kt if kt > ZERO else ZERO
        for j in range(2):
            constraint.impulse[i, j] = contact.impulse[i, j] if warm else ZERO
    constraint.normal[0], constraint.normal[1] = nx, ny
    if contact.points == 2:
        arm = constraint.arm
        one, two = arm[0, 0] * ny - arm[0, 1] * nx, arm[1, 0] * ny - arm[1, 1] * nx
        k11, k22 = light + nimble * one * one, light + nimble * two * two
        k12 = light + nimble * one * two
        determinant = k11 * k22 - k12 * k12
        if k11 * k11 < MOST_CONDITION * determinant:
            if determinant != ZERO:
                determinant = ONE / determinant
            constraint.k[0], constraint.k[1], constraint.k[2] = k11, k12, k22
            inverse = constraint.inverse
            inverse[0], inverse[1] = determinant * k22, -determinant * k12
            inverse[2] = determinant * k11
        else:
            constraint.points = 1


@inlined
def _push(batch, l, constraint, i, px, py):
    """The impulse (px, py) at point i of a contact."""
    velocity, light, nimble = batch.velocity[constraint.row], constraint.light, constraint.nimble
    velocity[0, l] += light * px
    velocity[1, l] += light * py
    velocity[2, l] += nimble * (constraint.arm[i, 0] * py - constraint.arm[i, 1] * px)


@inlined
def _speed(batch, l, constraint, i, x, y):
    """How fast point i of a contact moves in a direction."""
    velocity, arm = batch.velocity[constraint.row], constraint.arm[i]
    w = velocity[2, l]
    return (velocity[0, l] - w * arm[1]) * x + (velocity[1, l] + w * arm[0]) * y


@compiled
def _warm(batch, l, constraint):
    """b2ContactSolver::WarmStart."""
    nx, ny = constraint.normal[0], constraint.normal[1]
    for i in range(constraint.points):
        normal, tangent = constraint.impulse[i, 0], constraint.impulse[i, 1]
        _push(batch, l, constraint, i, normal * nx + tangent * ny, normal * ny + tangent * -nx)


@compiled
def _solve_contact(batch, l, constraint):
    """b2ContactSolver::SolveVelocityConstraints, of one contact."""
    impulse, mass, nx, ny = constraint.impulse, constraint.mass, constraint.normal[0], constraint.normal[1]
    for i in range(constraint.points):
        slip = _speed(batch, l, constraint, i, ny, -nx)
        most = constraint.friction * impulse[i, 0]
        wanted = _clamp(impulse[i, 1] + mass[i, 1] * -slip, -most, most)
        change = wanted - impulse[i, 1]
        impulse[i, 1] = wanted
        _push(batch, l, constraint, i, change * ny, change * -nx)
    b1 = _speed(batch, l, constraint, 0, nx, ny)
    if constraint.points == 1:
        wanted = impulse[0, 0] + -mass[0, 0] * b1
        wanted = wanted if wanted > ZERO else ZERO
        change = wanted - impulse[0, 0]
        impulse[0, 0] = wanted
        _push(batch, l, constraint, 0, change * nx, change * ny)
        return
    b2 = _speed(batch, l, constraint, 1, nx, ny)
    k, inverse, arm = constraint.k, constraint.inverse, constraint.arm
    a1, a2 = impulse[0, 0], impulse[1, 0]
    b1 -= k[0] * a1 + k[1] * a2
    b2 -= k[1] * a1 + k[2] * a2
    # both points carry, only the first, only the second, or none: what first makes sense
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
        d1, d2 = x1 - a1, x2 - a2
        p1x, p1y, p2x, p2y = d1 * nx, d1 * ny, d2 * nx, d2 * ny
        turn = (arm[0, 0] * p1y - arm[0, 1] * p1x) + (arm[1, 0] * p2y - arm[1, 1] * p2x)
        velocity = batch.velocity[constraint.row]
        velocity[0, l] += constraint.light * (p1x + p2x)
        velocity[1, l] += constraint.light * (p1y + p2y)
        velocity[2, l] += constraint.nimble * turn


@compiled
def _separate(world, lane, contact, body, baumgarte):
    """b2ContactSolver::SolvePositionConstraints, of one contact: its least separation."""
    now, light, nimble, least = lane.now[body], world.light[body], world.nimble[body], ZERO
    for i in range(contact.points):
        frame = _frame(now[0], now[1], now[2], world.middle[body])
        x, y, px, py, nx, ny = _plane(frame, contact, i)
        separation = (x - px) * nx + (y - py) * ny - world.radius - world.radius
        if contact.on_body:
            nx, ny = -nx, -ny
        rx, ry = x - now[0], y - now[1]
        least = least if least < separation else separation
        c = _clamp(baumgarte * (separation + LINEAR_SLOP), -MOST_SHIFT, ZERO)
        across = rx * ny - ry * nx
        k = light + nimble * across * across
        impulse = -c / k if k > ZERO else ZERO
        px, py = impulse * nx, impulse * ny
        now[0] += light * px
        now[1] += light * py
        now[2] += nimble * (rx * py - ry * px)
    return least


# Revolute joints ----------------------------------------------------------------------------------


@compiled
def _hold(world, lane, batch, l, s):
    """b2RevoluteJoint::InitVelocityConstraints, of the joint in place s."""
    j = batch.first[l] ^ s
    leg = j + 1
    a, b = lane.frame[LANDER], lane.frame[leg]
    anchor, impulse = world.anchor[j], lane.impulse[j]
    ax, ay = _rotate(a[2], a[3], anchor[0], anchor[1])
    bx, by = _rotate(b[2], b[3], anchor[2], anchor[3])
    light, ia, ib = world.light[LANDER] + world.light[leg], world.nimble[LANDER], world.nimble[leg]
    k11 = light + ay * ay * ia + by * by * ib
    k12 = -ay * ax * ia - by * bx * ib
    k13 = -ay * ia - by * ib
    k22 = light + ax * ax * ia + bx * bx * ib
    k23 = ax * ia + bx * ib
    k33 = ia + ib
    # b2Cross of the second and the third column
    cx, cy, cz = k22 * k33 - k23 * k23, k23 * k13 - k12 * k33, k12 * k23 - k22 * k13
    determinant, smaller = k11 * cx + k12 * cy + k13 * cz, k11 * k22 - k12 * k12
    angle = lane.now[leg, 2] - lane.now[LANDER, 2] - world.reference[j]
    limit = -1 if angle <= world.lower[j] else 1 if angle >= world.upper[j] else 0
    if limit == 0 or limit != lane.limit[j]:
        impulse[2] = ZERO
    lane.limit[j] = limit
    batch.limit[s, l], batch.speed[s, l] = limit, world.speed[j]
    for i, value in enumerate((ax, ay, bx, by)):
        batch.arm[s, i, l] = value
    for i, value in enumerate((k11, k12, k13, k22, k23, k33)):
        batch.k[s, i, l] = value
    for i, value in enumerate((cx, cy, cz)):
        batch.cross[s, i, l] = value
    batch.inverse[s, 0, l] = ONE / determinant if determinant != ZERO else ZERO
    batch.inverse[s, 1, l] = ONE / smaller if smaller != ZERO else ZERO
    for i in range(4):
        batch.impulse[s, i, l] = impulse[i]
    va, vb, px, py = batch.velocity[LANDER], batch.velocity[s + 1], impulse[0], impulse[1]
    va[0, l] -= world.light[LANDER] * px
    va[1, l] -= world.light[LANDER] * py
    va[2, l] -= ia * (ax * py - ay * px + impulse[3] + impulse[2])
    vb[0, l] += world.light[leg] * px
    vb[1, l] += world.light[leg] * py
    vb[2, l] += ib * (bx * py - by * px + impulse[3] + impulse[2])


@inlined
def _solve_joints(world, batch, s):
    """b2RevoluteJoint::SolveVelocityConstraints of all joints in place s, for the vector unit.

    What Box2D decides by branches is computed both ways. Off the limits, the third equation's
    impulse is 0, so that what follows from exceeding it is the solution of two equations there.
    """
    ma, mb, ia, ib = world.light[LANDER], world.light[1], world.nimble[LANDER], world.nimble[1]
    most, mass = world.motor, ONE / (ia + ib)
    velocity, impulse, arm, k = batch.velocity, batch.impulse, batch.arm, batch.k
    for l in range(WIDTH):
        vax, vay, wa = velocity[0, 0, l], velocity[0, 1, l], velocity[0, 2, l]
        vbx, vby, wb = velocity[s + 1, 0, l], velocity[s + 1, 1, l], velocity[s + 1, 2, l]
        ax, ay, bx, by = arm[s, 0, l], arm[s, 1, l], arm[s, 2, l], arm[s, 3, l]
        k11, k12, k13, k22 = k[s, 0, l], k[s, 1, l], k[s, 2, l], k[s, 3, l]
        k23, k33, limit, old = k[s, 4, l], k[s, 5, l], batch.limit[s, l], impulse[s, 3, l]
        motor = _clamp(old + -mass * (wb - wa - batch.speed[s, l]), -most, most)
        impulse[s, 3, l] = motor
        wa, wb = wa - ia * (motor - old), wb + ib * (motor - old)
        x, y, z = vbx - wb * by - vax + wa * ay, vby + wb * bx - vay - wa * ax, wb - wa
        inverse, held = batch.inverse[s, 0, l], impulse[s, 2, l]
        px = -(inverse * (x * batch.cross[s, 0, l] + y * batch.cross[s, 1, l] + z * batch.cross[s, 2, l]))
        cx, cy, cz = y * k33 - z * k23, z * k13 - x * k33, x * k23 - y * k13
        py = -(inverse * (k11 * cx + k12 * cy + k13 * cz))
        cx, cy, cz = k22 * z - k23 * y, k23 * x - k12 * z, k12 * y - k22 * x
        pz = -(inverse * (k11 * cx + k12 * cy + k13 * cz))
        total, x, y = held + pz, -x + held * k13, -y + held * k23
        two = (limit == ZERO) | (limit * total > ZERO)
        px = batch.inverse[s, 1, l] * (k22 * x - k12 * y) if two else px
        py = batch.inverse[s, 1, l] * (k11 * y - k12 * x) if two else py
        pz = -held if two else pz
        impulse[s, 0, l] += px
        impulse[s, 1, l] += py
        impulse[s, 2, l] = ZERO if two else total
        velocity[0, 0, l], velocity[0, 1, l] = vax - ma * px, vay - ma * py
        velocity[0, 2, l] = wa - ia * (ax * py - ay * px + pz)
        velocity[s + 1, 0, l], velocity[s + 1, 1, l] = vbx + mb * px, vby + mb * py
        velocity[s + 1, 2, l] = wb + ib * (bx * py - by * px + pz)


@compiled
def _iterate(world, batch, constraints):
    """The velocity iterations of b2Island::Solve."""
    for _ in range(VELOCITY_ITERATIONS):
        _solve_joints(world, batch, 0)
        _solve_joints(world, batch, 1)
        for l in range(WIDTH):
            for k in range(batch.count[l]):
                _solve_contact(batch, l, constraints[l, k])


@compiled
def _join(world, lane, j):
    """b2RevoluteJoint::SolvePositionConstraints: whether the errors are small."""
    leg = j + 1
    a, b = lane.now[LANDER], lane.now[leg]
    ma, mb, ia, ib = world.light[LANDER], world.light[leg], world.nimble[LANDER], world.nimble[leg]
    anchor, limit, turned = world.anchor[j], lane.limit[j], ZERO
    if limit != 0:
        angle = b[2] - a[2] - world.reference[j]
        if limit < 0:
            c = angle - world.lower[j]
            turned, c = -c, _clamp(c + ANGULAR_SLOP, -MOST_TURN, ZERO)
        else:
            c = angle - world.upper[j]
            turned, c = c, _clamp(c - ANGULAR_SLOP, ZERO, MOST_TURN)
        impulse = -(ONE / (ia + ib)) * c
        a[2] -= ia * impulse
        b[2] += ib * impulse
    sine, cosine = sincosf(a[2])
    ax, ay = _rotate(sine, cosine, anchor[0], anchor[1])
    sine, cosine = sincosf(b[2])
    bx, by = _rotate(sine, cosine, anchor[2], anchor[3])
    x, y = b[0] + bx - a[0] - ax, b[1] + by - a[1] - ay
    moved = math.sqrt(x * x + y * y)
    k11 = ma + mb + ia * ay * ay + ib * by * by
    k12 = -ia * ax * ay - ib * bx * by
    k22 = ma + mb + ia * ax * ax + ib * bx * bx
    determinant = k11 * k22 - k12 * k12
    if determinant != ZERO:
        determinant = ONE / determinant
    px, py = -(determinant * (k22 * x - k12 * y)), -(determinant * (k11 * y - k12 * x))
    a[0] -= ma * px
    a[1] -= ma * py
    a[2] -= ia * (ax * py - ay * px)
    b[0] += mb * px
    b[1] += mb * py
    b[2] += ib * (bx * py - by * px)
    return moved <= LINEAR_SLOP and turned <= ANGULAR_SLOP


# Islands ------------------------------------------------------------------------------------------


@inlined
def _integrate(lane, body, step):
    """The positions of b2Island::Solve and SolveTOI."""
    now, velocity = lane.now[body], lane.velocity[body]
    x, y = step * velocity[0], step * velocity[1]
    squared = x * x + y * y
    if squared > FARTHEST_SQUARED:
        ratio = FARTHEST / math.sqrt(squared)
        velocity[0] *= ratio
        velocity[1] *= ratio
    turn = step * velocity[2]
    if turn * turn > FARTHEST_TURN_SQUARED:
        velocity[2] *= FARTHEST_TURN / abs(turn)
    now[0] += step * velocity[0]
    now[1] += step * velocity[1]
    now[2] += step * velocity[2]


@compiled
def _settle(world, lane, contacts, constraints, count, first):
    """The position iterations of b2Island::Solve: whether they came to an end."""
    for _ in range(POSITION_ITERATIONS):
        least = ZERO
        for k in range(count):
            code = constraints[k].contact
            apart = _separate(world, lane, contacts[code], code // EDGES, BAUMGARTE)
            least = least if least < apart else apart
        fine = _join(world, lane, first)
        fine = _join(world, lane, 1 - first) and fine
        if fine and least >= CLOSE:
            return True
    return False


@compiled
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
def _prepare(world, lane, contacts, batch, l, constraints):
    """b2World::Solve and b2Island::Solve up to the velocity iterations, in column l.

    The joints make one island of all bodies. The search for it begins with the last body made
    that is awake, which settles the order.
    """
    first, order = 1, (2, 0, 1)
    if not lane.awake[2]:
        first, order = (0, (1, 0, 2)) if lane.awake[1] else (1, (0, 1, 2))
    batch.first[l] = first
    step, count, velocity = world.step, 0, batch.velocity
    for body in order:
        if not lane.awake[body]:
            lane.awake[body], lane.still[body] = True, ZERO
        lane.before[body] = lane.now[body]
        row = 0 if body == LANDER else 1 + (body - 1 ^ first)
        light, nimble = world.light[body], world.nimble[body]
        fx, fy, torque = ZERO, ZERO, ZERO
        if body == LANDER:
            fx, fy, torque = lane.force[0], lane.force[1], lane.force[2]
        velocity[row, 0, l] = lane.velocity[body, 0] + step * (ZERO + light * fx)
        velocity[row, 1, l] = lane.velocity[body, 1] + step * (world.gravity + light * fy)
        velocity[row, 2, l] = lane.velocity[body, 2] + step * nimble * torque
        for i in range(lane.count - 1, -1, -1):
            code = lane.contacts[i]
            contact = contacts[code]
            if code // EDGES == body and contact.enabled and contact.touching:
                _constrain(world, lane, code, contact, constraints[count], row, True)
                count += 1
    lane.force[:] = ZERO
    batch.count[l] = count
    for k in range(count):
        _warm(batch, l, constraints[k])
    _hold(world, lane, batch, l, 0)
    _hold(world, lane, batch, l, 1)


@compiled
def _finish(world, lane, contacts, batch, l, constraints):
    """b2Island::Solve and b2World::Solve from the velocity iterations on."""
    count, first, step = batch.count[l], batch.first[l], world.step
    for i in range(3):
        lane.velocity[LANDER, i] = batch.velocity[LANDER, i, l]
        for s in range(2):
            lane.velocity[(first ^ s) + 1, i] = batch.velocity[s + 1, i, l]
    for i in range(4):
        for s in range(2):
            lane.impulse[first ^ s, i] = batch.impulse[s, i, l]
    for k in range(count):
        constraint = constraints[k]
        contact = contacts[constraint.contact]
        for i in range(constraint.points):
            for j in range(2):
                contact.impulse[i, j] = constraint.impulse[i, j]
    for body in range(BODIES):
        _integrate(lane, body, step)
    settled = _settle(world, lane, contacts, constraints, count, first)
    for body in range(BODIES):
        _synchronize(world, lane, body)
    _rest(lane, step, settled)
    moved = False
    for body in range(BODIES):
        moved |= _move(world, lane, body)
    if moved:
        _find_contacts(lane, contacts)


# Continuous collision -----------------------------------------------------------------------------


@inlined
def _support(world, body, x, y):
    """b2DistanceProxy::GetSupport: the corner farthest in a direction of the body's frame."""
    corner = world.corner[body]
    best, most = 0, corner[0, 0] * x + corner[0, 1] * y
    for i in range(1, world.size[body]):
        value = corner[i, 0] * x + corner[i, 1] * y
        if value > most:
            best, most = i, value
    return best


@inlined
def _edge_support(ends, x, y):
    return 1 if ends[2] * x + ends[3] * y > ends[0] * x + ends[1] * y else 0


@inlined
def _vertex(world, room, ends, frame, body, i, a, b):
    """Vertex i of the simplex, from corner a of the edge and b of the polygon."""
    x, y = _place(frame, world.corner[body, b, 0], world.corner[body, b, 1])
    room.vertex[i, 0], room.vertex[i, 1] = a, b
    simplex = room.simplex[i]
    simplex[0], simplex[1] = ends[2 * a], ends[2 * a + 1]
    simplex[2], simplex[3] = x, y


@inlined
def _copy(room, to, of):
    for i in range(4):
        room.simplex[to, i] = room.simplex[of, i]
    for i in range(2):
        room.vertex[to, i] = room.vertex[of, i]
    room.share[to] = room.share[of]


@inlined
def _difference(room, i):
    """b2SimplexVertex w: from the edge's point to the polygon's."""
    simplex = room.simplex[i]
    return simplex[2] - simplex[0], simplex[3] - simplex[1]


@compiled
def _reduce_two(room):
    """b2Simplex::Solve2: how many vertices remain."""
    (ax, ay), (bx, by) = _difference(room, 0), _difference(room, 1)
    ex, ey = bx - ax, by - ay
    b = -(ax * ex + ay * ey)
    if b <= ZERO:
        room.share[0] = ONE
        return 1
    a = bx * ex + by * ey
    if a <= ZERO:
        room.share[1] = ONE
        _copy(room, 0, 1)
        return 1
    inverse = ONE / (a + b)
    room.share[0], room.share[1] = a * inverse, b * inverse
    return 2


@compiled
def _reduce_three(room):
    """b2Simplex::Solve3: how many vertices remain."""
    share = room.share
    (ax, ay), (bx, by), (cx, cy) = _difference(room, 0), _difference(room, 1), _difference(room, 2)
    ex, ey = bx - ax, by - ay
    ab_a, ab_b = bx * ex + by * ey, -(ax * ex + ay * ey)
    fx, fy = cx - ax, cy - ay
    ac_a, ac_c = cx * fx + cy * fy, -(ax * fx + ay * fy)
    gx, gy = cx - bx, cy - by
    bc_b, bc_c = cx * gx + cy * gy, -(bx * gx + by * gy)
    turn = ex * fy - ey * fx
    a, b, c = turn * (bx * cy - by * cx), turn * (cx * ay - cy * ax), turn * (ax * by - ay * bx)
    if ab_b <= ZERO and ac_c <= ZERO:
        share[0] = ONE
        return 1
    if ab_a > ZERO and ab_b > ZERO and c <= ZERO:
        inverse = ONE / (ab_a + ab_b)
        share[0], share[1] = ab_a * inverse, ab_b * inverse
        return 2
    if ac_a > ZERO and ac_c > ZERO and b <= ZERO:
        inverse = ONE / (ac_a + ac_c)
        share[0], share[2] = ac_a * inverse, ac_c * inverse
        _copy(room, 1, 2)
        return 2
    if ab_a <= ZERO and bc_c <= ZERO:
        share[1] = ONE
        _copy(room, 0, 1)
        return 1
    if ac_a <= ZERO and bc_b <= ZERO:
        share[2] = ONE
        _copy(room, 0, 2)
        return 1
    if bc_b > ZERO and bc_c > ZERO and a <= ZERO:
        inverse = ONE / (bc_b + bc_c)
        share[1], share[2] = bc_b * inverse, bc_c * inverse
        _copy(room, 0, 2)
        return 2
    return 3  # the origin is inside


@inlined
def _metric(room, count):
    if count == 1:
        return ZERO
    (ax, ay), (bx, by) = _difference(room, 0), _difference(room, 1)
    if count == 2:
        return math.sqrt((ax - bx) * (ax - bx) + (ay - by) * (ay - by))
    cx, cy = _difference(room, 2)
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)


@compiled
def _distance(world, room, ends, frame, body, count, metric):
    """b2Distance of an edge and a polygon, from the simplex that `room.vertex` names.

    Gives the distance (without skins), and the count and the metric of the simplex found.
    """
    for i in range(count):
        _vertex(world, room, ends, frame, body, i, room.vertex[i, 0], room.vertex[i, 1])
    if count > 1:
        now = _metric(room, count)
        if now < HALF * metric or TWO * metric < now or now < EPSILON:
            count = 0
    if count == 0:
        _vertex(world, room, ends, frame, body, 0, 0, 0)
        count = 1
    for _ in range(20):
        saved = count
        for i in range(saved):
            room.saved[i, 0], room.saved[i, 1] = room.vertex[i, 0], room.vertex[i, 1]
        if count == 2:
            count = _reduce_two(room)
        elif count == 3:
            count = _reduce_three(room)
        if count == 3:
            break
        x, y = _difference(room, 0)
        x, y = -x, -y
        if count == 2:
            bx, by = _difference(room, 1)
            ex, ey = bx + x, by + y
            x, y = (-ey, ex) if ex * y - ey * x > ZERO else (ey, -ex)
        if x * x + y * y < EPSILON * EPSILON:
            break
        a = _edge_support(ends, -x, -y)
        lx, ly = _unrotate(frame[2], frame[3], x, y)
        b = _support(world, body, lx, ly)
        _vertex(world, room, ends, frame, body, count, a, b)
        known = False
        for i in range(saved):
            known |= room.saved[i, 0] == a and room.saved[i, 1] == b
        if known:
            break
        count += 1
    metric = _metric(room, count)
    if count == 3:
        return ZERO, count, metric
    p = room.simplex[0]
    if count == 1:
        x, y = p[0] - p[2], p[1] - p[3]
    else:
        q, s, t = room.simplex[1], room.share[0], room.share[1]
        x = (s * p[0] + t * q[0]) - (s * p[2] + t * q[2])
        y = (s * p[1] + t * q[1]) - (s * p[3] + t * q[3])
    return math.sqrt(x * x + y * y), count, metric


@inlined
def _between(world, body, sweep, part):
    """b2Sweep::GetTransform, at `part` of the way."""
    x0, y0, a0, x1, y1, a1 = sweep
    rest = ONE - part
    angle = rest * a0 + part * a1
    return _frame(rest * x0 + part * x1, rest * y0 + part * y1, angle, world.middle[body])


@compiled
def _axis(world, room, ends, frame, body, count):
    """b2SeparationFunction::Initialize: kind, axis and the axis's local point.

    The axis goes from point to point (kind 0), or is the edge's (1) or a polygon side's normal (2).
    """
    vertex, corner = room.vertex, world.corner[body]
    a, b = vertex[0, 0], vertex[0, 1]
    px, py = ends[2 * a], ends[2 * a + 1]
    qx, qy = _place(frame, corner[b, 0], corner[b, 1])
    kind, lx, ly = 0, ZERO, ZERO
    x, y = qx - px, qy - py
    if count == 2 and a == vertex[1, 0]:
        kind, d = 2, vertex[1, 1]
        x, y = corner[d, 1] - corner[b, 1], -(corner[d, 0] - corner[b, 0])
        lx, ly = HALF * (corner[b, 0] + corner[d, 0]), HALF * (corner[b, 1] + corner[d, 1])
    elif count == 2:
        kind, c = 1, vertex[1, 0]
        x, y = ends[2 * c + 1] - py, -(ends[2 * c] - px)
        lx, ly = HALF * (px + ends[2 * c]), HALF * (py + ends[2 * c + 1])
    length = math.sqrt(x * x + y * y)
    if not length < EPSILON:
        inverse = ONE / length
        x, y = x * inverse, y * inverse
    if kind == 1 and (qx - lx) * x + (qy - ly) * y < ZERO:
        x, y = -x, -y
    if kind == 2:
        nx, ny = _rotate(frame[2], frame[3], x, y)
        mx, my = _place(frame, lx, ly)
        if (px - mx) * nx + (py - my) * ny < ZERO:
            x, y = -x, -y
    return kind, x, y, lx, ly


@compiled
def _separation(world, ends, body, sweep, part, axis, a, b, search):
    """b2SeparationFunction::Evaluate of corners a and b; of the deepest ones if `search`."""
    kind, x, y, lx, ly = axis
    frame = _between(world, body, sweep, part)
    corner = world.corner[body]
    if kind == 2:
        x, y = _rotate(frame[2], frame[3], x, y)
        if search:
            a = _edge_support(ends, -x, -y)
        qx, qy = _place(frame, lx, ly)
        return (ends[2 * a] - qx) * x + (ends[2 * a + 1] - qy) * y, a, b
    if search:
        dx, dy = _unrotate(frame[2], frame[3], -x, -y)
        b = _support(world, body, dx, dy)
        a = _edge_support(ends, x, y)
    qx, qy = _place(frame, corner[b, 0], corner[b, 1])
    if kind == 0:
        lx, ly = ends[2 * a], ends[2 * a + 1]
    return (qx - lx) * x + (qy - ly) * y, a, b


@compiled
def _time_of_impact(world, lane, room, body, edge):
    """b2TimeOfImpact: the part of the way to the impact, 1 if there is none."""
    ends, before, now = lane.edge[edge], lane.before[body], lane.now[body]
    full = TWO * PI
    turns = full * np.floor(before[2] / full)
    sweep = (before[0], before[1], before[2] - turns, now[0], now[1], now[2] - turns)
    radii = world.radius + world.radius
    target = max(LINEAR_SLOP, radii - TARGET_SLOP)
    first, count, metric = ZERO, 0, ZERO
    for _ in range(20):
        frame = _between(world, body, sweep, first)
        distance, count, metric = _distance(world, room, ends, frame, body, count, metric)
        if distance <= ZERO:
            return ONE  # they overlap
        if distance < target + TOLERANCE:
            return first
        axis = _axis(world, room, ends, frame, body, count)
        last = ONE
        for _ in range(16):  # b2_maxPolygonVertices
            s2, a, b = _separation(world, ends, body, sweep, last, axis, 0, 0, True)
            if s2 > target + TOLERANCE:
                return ONE
            if s2 > target - TOLERANCE:
                first = last
                break
            s1, a, b = _separation(world, ends, body, sweep, first, axis, a, b, False)
            if s1 < target - TOLERANCE:
                return ONE  # the search below found no root
            if s1 <= target + TOLERANCE:
                return first
            low, high = first, last
            for i in range(50):
                if i % 2:
                    part = low + (target - s1) * (high - low) / (s2 - s1)
                else:
                    part = HALF * (low + high)
                s, a, b = _separation(world, ends, body, sweep, part, axis, a, b, False)
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


@compiled
def _first_impact(world, lane, contacts, room):
    """The contact whose time of impact comes first, and that time: -1 and 1 if there is none."""
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
            alpha = lane.alpha[moon]
            part = _time_of_impact(world, lane, room, body, code % EDGES)
            contact.time, contact.timed = min(alpha + (ONE - alpha) * part, ONE), True
        if contact.time < least:
            found, least = code, contact.time
    return found, least


@compiled
def _impacts(world, lane, contacts, batch, constraints, room):
    """b2World::SolveTOI and b2Island::SolveTOI, whose islands are one body and its contacts."""
    lane.alpha[:] = ZERO
    for i in range(lane.count):
        contact = contacts[lane.contacts[i]]
        contact.timed, contact.impacts, contact.time = False, 0, ONE
    while lane.count > 0:
        code, alpha = _first_impact(world, lane, contacts, room)
        if code < 0 or alpha > NEVER:
            return
        body, contact = code // EDGES, contacts[code]
        before, now = lane.before[body], lane.now[body]
        x0, y0, a0, x1, y1, a1 = before[0], before[1], before[2], now[0], now[1], now[2]
        alpha0, moons = lane.alpha[body], lane.alpha[BODIES]
        _advance(lane, body, alpha)
        lane.alpha[BODIES] = alpha
        now[:] = before
        _synchronize(world, lane, body)
        _update(world, lane, code, contact, room)
        contact.timed = False
        contact.impacts += 1
        if not contact.touching:
            contact.enabled = False
            before[0], before[1], before[2], now[0], now[1], now[2] = x0, y0, a0, x1, y1, a1
            lane.alpha[body], lane.alpha[BODIES] = alpha0, moons
            _synchronize(world, lane, body)
            continue
        constraints[0].contact, count = code, 1
        for i in range(lane.count - 1, -1, -1):
            other = lane.contacts[i]
            if other != code and other // EDGES == body:
                _update(world, lane, other, contacts[other], room)
                if contacts[other].touching:
                    constraints[count].contact = other
                    count += 1
        for _ in range(IMPACT_ITERATIONS):
            least = ZERO
            for k in range(count):
                other = constraints[k].contact
                apart = _separate(world, lane, contacts[other], body, IMPACT_BAUMGARTE)
                least = least if least < apart else apart
            if least >= IMPACT_CLOSE:
                break
        before[:] = now
        for k in range(count):
            other = constraints[k].contact
            _constrain(world, lane, other, contacts[other], constraints[k], LANDER, False)
        for i in range(3):
            batch.velocity[LANDER, i, 0] = lane.velocity[body, i]
        for _ in range(VELOCITY_ITERATIONS):
            for k in range(count):
                _solve_contact(batch, 0, constraints[k])
        for i in range(3):
            lane.velocity[body, i] = batch.velocity[LANDER, i, 0]
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
            a, b = ends[i], ends[2 + i]
            fat[i] = (a if a < b else b) - radius - FAT
            fat[2 + i] = (a if a > b else b) + radius + FAT
    for body in range(BODIES):
        start, frame, now = world.start[body], lane.frame[body], lane.now[body]
        sine, cosine = sincosf(start[2])
        frame[0], frame[1], frame[2], frame[3] = start[0], start[1], sine, cosine
        now[0], now[1] = _place(frame, world.middle[body, 0], world.middle[body, 1])
        now[2] = start[2]
        left, low, right, high = _bounds(world, body, frame)
        fat = lane.fat[body]
        fat[0], fat[1], fat[2], fat[3] = left - FAT, low - FAT, right + FAT, high + FAT
    lane.awake[:] = True
    _find_contacts(lane, contacts[0])


@inlined
def _gust(index):
    return math.tanh(math.sin(0.02 * index) + math.sin(math.pi * 0.01 * index))


@inlined
def _kick(world, lane, px, py, x, y):
    """b2Body::ApplyLinearImpulse on the lander, of what Python gives in float64."""
    px, py, x, y = F(px), F(py), F(x) - lane.now[LANDER, 0], F(y) - lane.now[LANDER, 1]
    velocity = lane.velocity[LANDER]
    velocity[0] += world.light[LANDER] * px
    velocity[1] += world.light[LANDER] * py
    velocity[2] += world.nimble[LANDER] * (x * py - y * px)


@compiled
def _steer(world, lane, engines, noise):
    """The wind and the engines of `LunarLander.step`, in float64."""
    if world.windy and not (lane.grounded[0] or lane.grounded[1]):
        lane.force[0] += F(_gust(lane.gust[0]) * world.wind[0])
        lane.force[2] += F(_gust(lane.gust[1]) * world.wind[1])
        lane.gust[0] += 1.0
        lane.gust[1] += 1.0
    main, side, way, first, second = engines[0], engines[1], engines[2], noise[0], noise[1]
    if main == 0.0 and side == 0.0:
        return
    frame, scale = lane.frame[LANDER], world.scale
    angle, x, y = _f8(lane.now[LANDER, 2]), _f8(frame[0]), _f8(frame[1])
    sine, cosine = math.sin(angle), math.cos(angle)
    if main != 0.0:
        ahead, power = world.main[1] / scale + 2 * first, world.main[0]
        ox, oy = sine * ahead + -cosine * second, -cosine * ahead - sine * second
        _kick(world, lane, -ox * power * main, -oy * power * main, x + ox, y + oy)
    if side != 0.0:
        across, power = 3 * second + way, world.side[0]
        ox, oy = sine * first + -cosine * across, -cosine * first - sine * across
        px = x + ox - sine * world.side[2] / scale
        py = y + oy + cosine * world.side[1] / scale
        _kick(world, lane, -ox * power * side, -oy * power * side, px, py)


@compiled
def _judge(world, lane, engines, row, out):
    """The observation (8,), float64 in `row` and float32 in `out`; the reward and the end."""
    frame, velocity = lane.frame[LANDER], lane.velocity[LANDER]
    found = (
        _f8(frame[0]), _f8(frame[1]), _f8(velocity[0]), _f8(velocity[1]),
        _f8(lane.now[LANDER, 2]), _f8(velocity[2]),
            _f8(lane.grounded[0]), _f8(lane.grounded[1]),
    )  # fmt: skip
    for i in range(8):
        row[i] = (found[i] - world.shift[i]) * world.gain[i] / world.unit[i]
        out[i] = F(row[i])
    shaping = (
        -100 * math.sqrt(row[0] * row[0] + row[1] * row[1])
        - 100 * math.sqrt(row[2] * row[2] + row[3] * row[3])
        - 100 * abs(row[4])
        + 10 * row[6]
        + 10 * row[7]
    )
    reward = shaping - lane.shaping - engines[0] * 0.30 - engines[1] * 0.03
    lane.shaping = shaping
    if not lane.awake[LANDER]:
        return 100.0, True
    if lane.crashed or abs(row[0]) >= 1.0:
        return -100.0, True
    return reward, False


@compiled
def fly(
    worlds, lanes, contacts, batches, constraints, rooms,
    running, engines, noise, at, rows, rewards, ended,
):  # fmt: skip
    """One step of the running lanes (r,), as `LunarLander.step` takes it.

    `worlds`, `lanes` (l,), `contacts` (l, CONTACTS), `batches`, `constraints` (WIDTH, CONTACTS) and
    `rooms` as the types above say, (1,) where nothing else is said. `engines` float64 (r, 3) is the
    power of the main and of a side engine (0: off, to 1), and where that one is; `noise` (l, n)
    what is drawn for the engines, of which `at` (l,) have been used. Writes `rows` float32 (l, 8),
    `rewards` float64 (r,) and `ended` (r,).
    """
    world, room, batch = worlds[0], rooms[0], batches[0]
    for start in range(0, running.size, WIDTH):
        some = min(WIDTH, running.size - start)
        batch.count[:] = 0
        for l in range(some):
            k = running[start + l]
            _steer(world, lanes[k], engines[start + l], noise[k, at[k] : at[k] + 2])
            at[k] += 2
            _update_contacts(world, lanes[k], contacts[k], room)
            _prepare(world, lanes[k], contacts[k], batch, l, constraints[l])
        _iterate(world, batch, constraints)
        for l in range(some):
            k = running[start + l]
            _finish(world, lanes[k], contacts[k], batch, l, constraints[l])
        for l in range(some):
            k = running[start + l]
            _impacts(world, lanes[k], contacts[k], batch, constraints[0], room)
            r = start + l
            rewards[r], ended[r] = _judge(world, lanes[k], engines[r], room.state, rows[k])
