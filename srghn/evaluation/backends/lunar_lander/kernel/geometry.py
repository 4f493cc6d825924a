# mypy: disable-error-code="no-untyped-def"
"""Frames, rotations and unit vectors."""

# An altered version of Box2D: see the notice in this folder's __init__.py.

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from srghn.compiled import inlined, intrinsic
from srghn.evaluation.backends.lunar_lander.kernel.records import EPSILON, ONE
from srghn.lanes import insert_function


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
def rotate(sine, cosine, x, y):
    """b2Mul(b2Rot, b2Vec2)."""
    return cosine * x - sine * y, sine * x + cosine * y


@inlined
def unrotate(sine, cosine, x, y):
    """b2MulT(b2Rot, b2Vec2)."""
    return cosine * x + sine * y, -sine * x + cosine * y


@inlined
def to_world(frame, point):
    """b2Mul(b2Transform, b2Vec2): a point of a body's in the world."""
    x, y, sine, cosine = frame
    return (cosine * point[0] - sine * point[1]) + x, (sine * point[0] + cosine * point[1]) + y


@inlined
def clamp(value, low, high):
    value = value if value < high else high
    return low if low > value else value


@inlined
def unit_vector(x, y):
    """b2Vec2::Normalize."""
    length = math.sqrt(x * x + y * y)
    inverse = ONE if length < EPSILON else ONE / length
    return x * inverse, y * inverse


@inlined
def frame_at(x, y, angle, center):
    """The frame of a body whose centre of mass is at (x, y)."""
    sine, cosine = sincosf(angle)
    a, b = rotate(sine, cosine, center[0], center[1])
    return x - a, y - b, sine, cosine


@inlined
def frame_of(lane, body):
    frame = lane.frame[body]
    return frame[0], frame[1], frame[2], frame[3]


@inlined
def synchronize(world, lane, body):
    """b2Body::SynchronizeTransform."""
    now, frame = lane.now[body], lane.frame[body]
    frame[0], frame[1], frame[2], frame[3] = frame_at(now[0], now[1], now[2], world.center[body])
