"""Sixteen float32 values as one vector, for numba kernels: sixteen episodes, or sixteen outputs.

numba offers no vector type and leaves vectorisation to the compiler, which gives up on loops whose
accumulators must stay in registers. Here a `Lanes` value is an LLVM `<16 x float>`, one register
with AVX-512 and two with AVX2; every operation rounds as IEEE 754 says, and `fma` is fused on every
processor, so results do not depend on the machine's vector width.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import register_model

from srghn.compiled import intrinsic

WIDTH = 16
#: Values of `load_twice`: lanes k and k + HALF share what they are given.
HALF = WIDTH // 2

insert_function: Any = cgutils.get_or_insert_function

_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
_VECTOR = ir.VectorType(_FLOAT, WIDTH)


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


_lanes: Any = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)  # type: ignore[no-untyped-call]


def _address(context: Any, builder: Any, kind: Any, array_type: Any, array: Any, place: Any) -> Any:
    """Pointer to the `kind` that begins at `place`, an index into all values in order."""
    view = context.make_array(array_type)(context, builder, array)
    return builder.bitcast(builder.gep(view.data, [place]), kind.as_pointer())


def _row(context: Any, builder: Any, kind: Any, array_type: Any, array: Any, row: Any) -> Any:
    """Pointer to row `row`, a vector of `kind`, of a C-contiguous float32 array (rows, count)."""
    place = builder.mul(row, ir.Constant(row.type, kind.count))
    return _address(context, builder, kind, array_type, array, place)


@intrinsic
def load(typing: Any, array: Any, row: Any) -> Any:
    """Row `row` of a float32 array (rows, WIDTH)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _row(context, builder, _VECTOR, signature.args[0], *arguments)
        return builder.load(pointer, align=4)

    return _lanes(array, types.intp), build


@intrinsic
def load_twice(typing: Any, array: Any, row: Any) -> Any:
    """Row `row` of a float32 array (rows, HALF), in the first lanes and again in the others."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(_FLOAT, HALF)
        pointer = _row(context, builder, kind, signature.args[0], *arguments)
        half = builder.load(pointer, align=4)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [*range(HALF)] * 2)
        return builder.shuffle_vector(half, ir.Constant(kind, ir.Undefined), mask)

    return _lanes(array, types.intp), build


@intrinsic
def store(typing: Any, array: Any, row: Any, value: Any) -> Any:
    """Write `value` to row `row` of a float32 array (rows, WIDTH)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, value = arguments
        pointer = _row(context, builder, _VECTOR, signature.args[0], array, row)
        builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, _lanes), build


@intrinsic
def load_at(typing: Any, array: Any, place: Any) -> Any:
    """The WIDTH values of a flat float32 array from `place` on."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(context, builder, _VECTOR, signature.args[0], *arguments)
        return builder.load(pointer, align=4)

    return (_lanes(array, types.intp), build) if _is_flat(array) else None


@intrinsic
def store_at(typing: Any, array: Any, place: Any, value: Any) -> Any:
    """Write `value` to a flat float32 array from `place` on."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, value = arguments
        pointer = _address(context, builder, _VECTOR, signature.args[0], array, place)
        builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    return (types.none(array, types.intp, _lanes), build) if _is_flat(array) else None


def _is_flat(array: Any) -> bool:
    """Whether its values lie side by side; of any other no kernel is compiled."""
    return bool((array.ndim, array.layout, array.dtype) == (1, "C", types.float32))


def _splat(builder: Any, value: Any) -> Any:
    empty = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(first, empty, mask)


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """The same float32 in every lane."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, *arguments)

    return _lanes(types.float32), build


@intrinsic
def splat_at(typing: Any, array: Any, place: Any) -> Any:
    """The value at `place` of a flat float32 array in every lane.

    `splat(array[place])` would first ask whether to count from the array's end.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(context, builder, _FLOAT, signature.args[0], *arguments)
        return _splat(builder, builder.load(pointer))

    return (_lanes(array, types.intp), build) if _is_flat(array) else None


@intrinsic
def splat_lane(typing: Any, vector: Any, lane: Any) -> Any:
    """The value in one lane, a constant after unrolling, in every lane."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, builder.extract_element(*arguments))

    return (_lanes(_lanes, types.intp), build) if vector is _lanes else None


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """`a * b + c`, rounded once."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        function = insert_function(builder.module, kind, f"llvm.fma.v{WIDTH}f32")
        return builder.call(function, arguments)

    return _lanes(_lanes, _lanes, _lanes), build


def _binary(instruction: str, doc: str) -> Any:
    def typer(typing: Any, a: Any, b: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments)

        return _lanes(_lanes, _lanes), build

    typer.__doc__ = doc
    return intrinsic(typer)


add = _binary("fadd", "`a + b`.")
sub = _binary("fsub", "`a - b`.")
mul = _binary("fmul", "`a * b`.")
div = _binary("fdiv", "`a / b`.")


def _bound(comparison: str, doc: str) -> Any:
    def typer(typing: Any, a: Any, b: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, b = arguments
            return builder.select(builder.fcmp_ordered(comparison, a, b), b, a)

        return _lanes(_lanes, _lanes), build

    typer.__doc__ = doc
    return intrinsic(typer)


smaller = _bound(">", "Lane by lane `b if a > b else a`: a NaN in `a` stays.")
larger = _bound("<", "Lane by lane `b if a < b else a`: a NaN in `a` stays.")


@intrinsic
def above(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Lane by lane `yes if a > b else no`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, yes, no = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), yes, no)

    return _lanes(_lanes, _lanes, _lanes, _lanes), build


@intrinsic
def sincos(typing: Any, angles: Any, sines: Any, cosines: Any, lane: Any) -> Any:
    """The C library's `sin` and `cos` of `angles[lane]`, float64, by its one call for both."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *arrays, lane = arguments
        angle, sine, cosine = (
            builder.gep(context.make_array(kind)(context, builder, array).data, [lane])
            for kind, array in zip(signature.args, arrays, strict=False)
        )
        pointer = _DOUBLE.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [_DOUBLE, pointer, pointer])
        function = insert_function(builder.module, kind, "sincos")
        builder.call(function, [builder.load(angle), sine, cosine])
        return context.get_dummy_value()

    return types.none(angles, sines, cosines, types.intp), build
