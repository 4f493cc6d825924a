# mypy: disable-error-code="no-untyped-def"
"""Which boxes overlap (Box2D's broad phase), and where bodies touch edges (its narrow phase)."""

# An altered version of Box2D: see the notice in this folder's __init__.py.

from __future__ import annotations

from srghn.compiled import compiled, inlined
from srghn.evaluation.backends.lunar_lander.kernel.geometry import (
    frame_at,
    frame_of,
    rotate,
    to_world,
    unit_vector,
    unrotate,
)
from srghn.evaluation.backends.lunar_lander.kernel.records import (
    ABSOLUTE,
    AHEAD,
    ANGULAR_SLOP,
    BODIES,
    EDGES,
    FAT,
    LANDER,
    LARGEST,
    RELATIVE,
    TWO,
    ZERO,
)


@inlined
def bounds(world, body, frame):
    """b2PolygonShape::ComputeAABB."""
    left, low = to_world(frame, world.corner[body, 0])
    right, high = left, low
    for i in range(1, world.size[body]):
        x, y = to_world(frame, world.corner[body, i])
        left, right = left if left < x else x, right if right > x else x
        low, high = low if low < y else y, high if high > y else y
    radius = world.radius
    return left - radius, low - radius, right + radius, high + radius


@compiled
def move_box(world, lane, body):
    """b2Body::SynchronizeFixtures and b2DynamicTree::MoveProxy; whether the fat box changed."""
    before, last, fat = lane.before[body], frame_of(lane, body), lane.fat[body]
    first = frame_at(before[0], before[1], before[2], world.center[body])
    left, low, right, high = bounds(world, body, first)
    x0, y0, x1, y1 = bounds(world, body, last)
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
def overlap(lane, body, edge):
    """b2TestOverlap of the fat boxes."""
    a, b = lane.fat[BODIES + edge], lane.fat[body]
    apart = b[0] - a[2] > ZERO or b[1] - a[3] > ZERO or a[0] - b[2] > ZERO or a[1] - b[3] > ZERO
    return not apart


@compiled
def find_contacts(lane, contacts):
    """b2BroadPhase::UpdatePairs and b2ContactManager::AddPair.

    Pairs come in the order of their proxies, which is that of their making: edges, then bodies.
    """
    for edge in range(EDGES):
        for body in range(BODIES):
            contact = contacts[body * EDGES + edge]
            if not contact.exists and overlap(lane, body, edge):
                contact.exists = contact.enabled = True
                contact.touching = contact.timed = False
                contact.impacts = contact.points = 0
                lane.contacts[lane.count] = body * EDGES + edge
                lane.count += 1
                if not lane.awake[body]:
                    lane.awake[body], lane.still[body] = True, ZERO


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
    frame, ends, size = frame_of(lane, body), lane.edge[edge], world.size[body]
    corner, normal, reach = room.corner, room.normal, TWO * world.radius
    x1, y1, x2, y2 = ends[0, 0], ends[0, 1], ends[1, 0], ends[1, 1]
    tx, ty = unit_vector(x2 - x1, y2 - y1)
    nx, ny = ty, -tx
    cx, cy = to_world(frame, world.centroid[body])
    front = nx * (cx - x1) + ny * (cy - y1) >= ZERO
    if not front:
        nx, ny = -nx, -ny
    apart = LARGEST
    for i in range(size):
        x, y = to_world(frame, world.corner[body, i])
        corner[i, 0], corner[i, 1] = x, y
        s = nx * (x - x1) + ny * (y - y1)
        apart = s if s < apart else apart
    if apart > reach:
        return
    side, aside = -1, -LARGEST
    for i in range(size):
        x, y = rotate(frame[2], frame[3], world.normal[body, i, 0], world.normal[body, i, 1])
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
                x, y = unrotate(frame[2], frame[3], x - frame[0], y - frame[1])
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
def update(world, lane, code, contact, room):
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
def update_contacts(world, lane, contacts, room):
    """b2ContactManager::Collide; whether anything touches."""
    touching = False
    for i in range(lane.count - 1, -1, -1):
        code = lane.contacts[i]
        body, contact = code // EDGES, contacts[code]
        if not lane.awake[body]:
            touching |= contact.touching
            continue
        if overlap(lane, body, code % EDGES):
            update(world, lane, code, contact, room)
            touching |= contact.touching
            continue
        if contact.touching:
            _notice(lane, body, False)
        contact.exists = False
        lane.count -= 1
        for k in range(i, lane.count):
            lane.contacts[k] = lane.contacts[k + 1]
    return touching
