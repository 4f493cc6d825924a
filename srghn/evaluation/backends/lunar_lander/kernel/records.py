# mypy: disable-error-code="no-untyped-def"
"""What the kernel reads and writes, as numpy records, and Box2D's constants."""

# An altered version of Box2D: see the notice in this folder's __init__.py.

from __future__ import annotations

from typing import Any

import numpy as np

BODIES, LEGS, EDGES, CORNERS = 3, 2, 11, 6
CONTACTS = BODIES * EDGES
LANDER = 0
#: Landers in a batch, and contacts that each may have there for the vector unit (`islands.iterate`
#: solves each by its number).
WIDTH, SLOTS = 32, 4

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
    # contacts of one point of a leg, of each column in the order in which they are solved
    leg=(_f4, (SLOTS, WIDTH)),  # 1 or 2: its row in `velocity`; all is 0 where there is no contact
    friction=(_f4, (SLOTS, WIDTH)),
    side=(_f4, (SLOTS, 2, WIDTH)),  # the normal
    reach=(_f4, (SLOTS, 2, WIDTH)),  # from the leg's centre of mass to the point
    mass=(_f4, (SLOTS, 2, WIDTH)),  # normal, tangent
    push=(_f4, (SLOTS, 2, WIDTH)),  # the impulses: normal, tangent
    odd=(_i8, WIDTH),  # the first of these are the columns that have other contacts
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
