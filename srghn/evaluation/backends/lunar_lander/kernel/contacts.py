# mypy: disable-error-code="no-untyped-def"
"""Box2D's contact solver: velocities and positions of bodies that touch an edge."""

# An altered version of Box2D: see the notice in this folder's __init__.py.

from __future__ import annotations

from srghn.compiled import compiled, inlined
from srghn.evaluation.backends.lunar_lander.kernel.geometry import clamp, frame_at, rotate, to_world
from srghn.evaluation.backends.lunar_lander.kernel.records import (
    EDGES,
    HALF,
    LANDER,
    LINEAR_SLOP,
    MOST_CONDITION,
    MOST_SHIFT,
    ONE,
    SLOTS,
    TWO,
    WIDTH,
    ZERO,
)


@inlined
def _plane(frame, contact, i):
    """Point i of a contact, a point of its plane and that plane's normal, in the world."""
    if contact.on_body:
        nx, ny = rotate(frame[2], frame[3], contact.normal[0], contact.normal[1])
        px, py = to_world(frame, contact.plane)
        return contact.clip[i, 0], contact.clip[i, 1], px, py, nx, ny
    x, y = to_world(frame, contact.clip[i])
    return x, y, contact.plane[0], contact.plane[1], contact.normal[0], contact.normal[1]


@compiled
def constrain(world, lane, contact, constraint, warm):
    """b2ContactSolver and its InitializeVelocityConstraints, of one contact.

    `constraint` has got its contact and its row.
    """
    body, edge = constraint.contact // EDGES, constraint.contact % EDGES
    now, radius, arm = lane.now[body], world.radius, constraint.arm
    mb, ib = world.inverse_mass[body], world.inverse_inertia[body]
    constraint.inverse_mass, constraint.inverse_inertia, constraint.points = mb, ib, contact.points
    constraint.friction = world.friction[body, edge]
    frame, nx, ny = frame_at(now[0], now[1], now[2], world.center[body]), ZERO, ZERO
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
def _pushed(body, constraint, i, x, y):
    """A body's velocity (x, y, turn) after the impulse (x, y) at point i of a contact."""
    arm = constraint.arm[i]
    return (
        body[0] + constraint.inverse_mass * x,
        body[1] + constraint.inverse_mass * y,
        body[2] + constraint.inverse_inertia * (arm[0] * y - arm[1] * x),
    )


@inlined
def _speed(body, constraint, i, x, y):
    """How fast point i of a contact moves in direction (x, y), by the body's velocity."""
    arm = constraint.arm[i]
    return (body[0] - body[2] * arm[1]) * x + (body[1] + body[2] * arm[0]) * y


@inlined
def _velocity(batch, column, row):
    velocity = batch.velocity[row]
    return velocity[0, column], velocity[1, column], velocity[2, column]


@inlined
def _move(batch, column, row, body):
    velocity = batch.velocity[row]
    velocity[0, column], velocity[1, column], velocity[2, column] = body


@compiled
def warm_start(batch, column, constraint):
    """b2ContactSolver::WarmStart, of one contact."""
    body = _velocity(batch, column, constraint.row)
    nx, ny = constraint.normal[0], constraint.normal[1]
    for i in range(constraint.points):
        a, b = constraint.impulse[i, 0], constraint.impulse[i, 1]
        body = _pushed(body, constraint, i, a * nx + b * ny, a * ny + b * -nx)
    _move(batch, column, constraint.row, body)


@inlined
def solve_contact(batch, column, constraint):
    """b2ContactSolver::SolveVelocityConstraints, of one contact; whether an impulse changed."""
    impulse, mass, points = constraint.impulse, constraint.mass, constraint.points
    nx, ny, changed = constraint.normal[0], constraint.normal[1], False
    body = _velocity(batch, column, constraint.row)
    for i in range(points):
        slip, old = _speed(body, constraint, i, ny, -nx), impulse[i, 1]
        most = constraint.friction * impulse[i, 0]
        new = clamp(old + mass[i, 1] * -slip, -most, most)
        body = _pushed(body, constraint, i, (new - old) * ny, (new - old) * -nx)
        impulse[i, 1] = new
        changed |= new != old
    b1, a1 = _speed(body, constraint, 0, nx, ny), impulse[0, 0]
    if points == 1:
        new = a1 + -mass[0, 0] * b1
        new = new if new > ZERO else ZERO
        impulse[0, 0] = new
        body = _pushed(body, constraint, 0, (new - a1) * nx, (new - a1) * ny)
        _move(batch, column, constraint.row, body)
        return changed or new != a1
    b2, a2 = _speed(body, constraint, 1, nx, ny), impulse[1, 0]
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
        body = (
            body[0] + constraint.inverse_mass * (ax + bx),
            body[1] + constraint.inverse_mass * (ay + by),
            body[2] + constraint.inverse_inertia * turn,
        )
        changed |= x1 != a1 or x2 != a2
    _move(batch, column, constraint.row, body)
    return changed


@inlined
def line_up(batch, constraints):
    """Fills in the contacts that `solve_contacts` takes: the slots in use, and how many are odd."""
    slots, odd, batch.leg[:] = 0, 0, ZERO
    if not batch.count.any():
        return slots, odd
    batch.friction[:] = ZERO
    batch.side[:] = batch.reach[:] = batch.mass[:] = batch.push[:] = ZERO
    for column in range(WIDTH):
        count = batch.count[column]
        plain = count <= SLOTS
        for k in range(count):
            plain &= constraints[column, k].points == 1 and constraints[column, k].row != LANDER
        if not plain:
            batch.odd[odd] = column
            odd += 1
            continue
        slots = max(slots, count)
        for k in range(count):
            constraint = constraints[column, k]
            batch.leg[k, column], batch.friction[k, column] = constraint.row, constraint.friction
            for n in range(2):
                batch.side[k, n, column] = constraint.normal[n]
                batch.reach[k, n, column] = constraint.arm[0, n]
                batch.mass[k, n, column] = constraint.mass[0, n]
                batch.push[k, n, column] = constraint.impulse[0, n]
    return slots, odd


@inlined
def solve_contacts(world, batch, slot):
    """`solve_contact` of one point of a leg, for all columns at once.

    Where a column has none, masses and impulses are 0, and so is what this adds.
    """
    mass, inertia = world.inverse_mass[1], world.inverse_inertia[1]
    velocity, side, reach, push = batch.velocity, batch.side, batch.reach, batch.push
    for c in range(WIDTH):
        one = batch.leg[slot, c] < TWO
        x1, y1, w1 = velocity[1, 0, c], velocity[1, 1, c], velocity[1, 2, c]
        x2, y2, w2 = velocity[2, 0, c], velocity[2, 1, c], velocity[2, 2, c]
        x, y, w = x1 if one else x2, y1 if one else y2, w1 if one else w2
        nx, ny, rx, ry = side[slot, 0, c], side[slot, 1, c], reach[slot, 0, c], reach[slot, 1, c]
        normal, tangent = push[slot, 0, c], push[slot, 1, c]
        most = batch.friction[slot, c] * normal
        slip = (x - w * ry) * ny + (y + w * rx) * -nx
        new = clamp(tangent + batch.mass[slot, 1, c] * -slip, -most, most)
        px, py = (new - tangent) * ny, (new - tangent) * -nx
        push[slot, 1, c] = new
        x, y, w = x + mass * px, y + mass * py, w + inertia * (rx * py - ry * px)
        new = normal + -batch.mass[slot, 0, c] * ((x - w * ry) * nx + (y + w * rx) * ny)
        new = new if new > ZERO else ZERO
        px, py = (new - normal) * nx, (new - normal) * ny
        push[slot, 0, c] = new
        x, y, w = x + mass * px, y + mass * py, w + inertia * (rx * py - ry * px)
        velocity[1, 0, c], velocity[2, 0, c] = x if one else x1, x2 if one else x
        velocity[1, 1, c], velocity[2, 1, c] = y if one else y1, y2 if one else y
        velocity[1, 2, c], velocity[2, 2, c] = w if one else w1, w2 if one else w


@compiled
def separate(world, lane, contacts, constraints, count, baumgarte):
    """b2ContactSolver::SolvePositionConstraints: the least separation."""
    least = ZERO
    for k in range(count):
        contact, body = contacts[constraints[k].contact], constraints[k].contact // EDGES
        now, mb, ib = lane.now[body], world.inverse_mass[body], world.inverse_inertia[body]
        for i in range(contact.points):
            frame = frame_at(now[0], now[1], now[2], world.center[body])
            x, y, px, py, nx, ny = _plane(frame, contact, i)
            separation = (x - px) * nx + (y - py) * ny - world.radius - world.radius
            if contact.on_body:
                nx, ny = -nx, -ny
            rx, ry = x - now[0], y - now[1]
            least = least if least < separation else separation
            error = clamp(baumgarte * (separation + LINEAR_SLOP), -MOST_SHIFT, ZERO)
            across = rx * ny - ry * nx
            mass = mb + ib * across * across
            impulse = -error / mass
            px, py = impulse * nx, impulse * ny
            now[0] += mb * px
            now[1] += mb * py
            now[2] += ib * (rx * py - ry * px)
    return least
