# mypy: disable-error-code="no-untyped-def"
"""When a moving body first touches an edge: Box2D's distance and time of impact."""

# An altered version of Box2D: see the notice in this folder's __init__.py.

from __future__ import annotations

import math

import numpy as np

from srghn.compiled import compiled, inlined
from srghn.evaluation.backends.lunar_lander.kernel.geometry import (
    frame_at,
    rotate,
    to_world,
    unit_vector,
    unrotate,
)
from srghn.evaluation.backends.lunar_lander.kernel.records import (
    EPSILON,
    HALF,
    LINEAR_SLOP,
    MOST_CORNERS,
    MOST_ROOTS,
    MOST_SEARCHES,
    ONE,
    TARGET_SLOP,
    TOLERANCE,
    TWO,
    ZERO,
)


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
    x, y = to_world(frame, corner[b])
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
        x, y = unrotate(frame[2], frame[3], x, y)
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
    qx, qy = to_world(frame, corner[b])
    if count == 2:
        s, t, a, b = room.share[0], room.share[1], room.vertex[1, 0], room.vertex[1, 1]
        x, y = to_world(frame, corner[b])
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
    return frame_at(rest * x0 + part * x1, rest * y0 + part * y1, angle, center)


@inlined
def _axis(room, ends, corner, frame, count):
    """b2SeparationFunction::Initialize: (kind, the axis's x, y, and a point on it).

    It goes from point to point (kind 0), or is a normal of the edge's (1) or the polygon's (2).
    """
    a, b, c, d = room.vertex[0, 0], room.vertex[0, 1], room.vertex[1, 0], room.vertex[1, 1]
    px, py = ends[a, 0], ends[a, 1]
    qx, qy = to_world(frame, corner[b])
    if count == 1:
        x, y = unit_vector(qx - px, qy - py)
        return 0, x, y, ZERO, ZERO
    if a == c:
        x, y = unit_vector(corner[d, 1] - corner[b, 1], -(corner[d, 0] - corner[b, 0]))
        lx, ly = HALF * (corner[b, 0] + corner[d, 0]), HALF * (corner[b, 1] + corner[d, 1])
        nx, ny = rotate(frame[2], frame[3], x, y)
        mx, my = to_world(frame, (lx, ly))
        kind, separation = 2, (px - mx) * nx + (py - my) * ny
    else:
        x, y = unit_vector(ends[c, 1] - py, -(ends[c, 0] - px))
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
        x, y = rotate(frame[2], frame[3], x, y)
        if a < 0:
            a = _support(ends, 2, -x, -y)
        lx, ly = to_world(frame, (lx, ly))
        return (ends[a, 0] - lx) * x + (ends[a, 1] - ly) * y, (a, b)
    if b < 0:
        dx, dy = unrotate(frame[2], frame[3], -x, -y)
        a, b = _support(ends, 2, x, y), _support(corner, size, dx, dy)
    if kind == 0:
        lx, ly = ends[a, 0], ends[a, 1]
    qx, qy = to_world(frame, corner[b])
    return (qx - lx) * x + (qy - ly) * y, (a, b)


@compiled
def time_of_impact(room, ends, corner, size, center, sweep, radius):
    """b2TimeOfImpact: the part of the way to the impact, 1 if there is none."""
    target = max(LINEAR_SLOP, radius + radius - TARGET_SLOP)
    now, count, metric, anything = ZERO, np.int64(0), ZERO, (np.int64(-1), np.int64(-1))
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
