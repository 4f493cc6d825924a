# mypy: disable-error-code="no-untyped-def"
"""Box2D's continuous collision: no body passes through an edge within a step."""

# An altered version of Box2D: see the notice in this folder's __init__.py.

from __future__ import annotations

import numpy as np

from srghn.compiled import compiled, inlined
from srghn.evaluation.backends.lunar_lander.kernel.collide import find_contacts, move_box, update
from srghn.evaluation.backends.lunar_lander.kernel.contacts import (
    constrain,
    separate,
    solve_contact,
)
from srghn.evaluation.backends.lunar_lander.kernel.geometry import synchronize
from srghn.evaluation.backends.lunar_lander.kernel.impact_time import time_of_impact
from srghn.evaluation.backends.lunar_lander.kernel.islands import integrate
from srghn.evaluation.backends.lunar_lander.kernel.records import (
    BODIES,
    EDGES,
    IMPACT_BAUMGARTE,
    IMPACT_CLOSE,
    IMPACT_ITERATIONS,
    LANDER,
    MOST_IMPACTS,
    NEVER,
    ONE,
    PI,
    TWO,
    VELOCITY_ITERATIONS,
    ZERO,
)


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
            part = time_of_impact(room, ends, corner, size, center, sweep, world.radius)
            contact.time, contact.timed = min(alpha + (ONE - alpha) * part, ONE), True
        if contact.time < least:
            found, least = code, contact.time
    return found, least


@compiled
def solve_impacts(world, lane, contacts, batch, column, constraints, room):
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
        synchronize(world, lane, body)
        update(world, lane, code, contact, room)
        contact.timed = False
        contact.impacts += 1
        if not contact.touching:
            contact.enabled = False
            before[0], before[1], before[2], now[0], now[1], now[2] = x0, y0, angle0, x1, y1, angle1
            lane.alpha[body], lane.alpha[moon] = alpha0, alpha1
            synchronize(world, lane, body)
            continue
        constraints[0].contact, count = code, np.int64(1)
        for i in range(lane.count - 1, -1, -1):
            other = lane.contacts[i]
            if other != code and other // EDGES == body:
                update(world, lane, other, contacts[other], room)
                if contacts[other].touching:
                    constraints[count].contact = other
                    count += 1
        for _ in range(IMPACT_ITERATIONS):
            least = separate(world, lane, contacts, constraints, count, IMPACT_BAUMGARTE)
            if least >= IMPACT_CLOSE:
                break
        for k in range(count):
            constraints[k].row = LANDER
            constrain(world, lane, contacts[constraints[k].contact], constraints[k], False)
        for i in range(3):
            before[i], batch.velocity[LANDER, i, column] = now[i], velocity[i]
        for _ in range(VELOCITY_ITERATIONS):
            changed = False
            for k in range(count):
                changed |= solve_contact(batch, column, constraints[k])
            if not changed:  # nor will any other do anything
                break
        for i in range(3):
            velocity[i] = batch.velocity[LANDER, i, column]
        integrate(lane, body, (ONE - alpha) * world.step)
        synchronize(world, lane, body)
        for i in range(lane.count):
            if lane.contacts[i] // EDGES == body:
                contacts[lane.contacts[i]].timed = False
        if move_box(world, lane, body):
            find_contacts(lane, contacts)
