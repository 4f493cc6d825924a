# mypy: disable-error-code="no-untyped-def"
"""Randomness of births and of the fixed basis.

Each birth draws a few hundred numbers from a Philox stream of its own. numpy's generator takes
longer to be given a key than to draw them, so here its stream is one compiled loop over all births.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numpy.typing import NDArray

from srghn.compiled import compiled, inlined, intrinsic
from srghn.seeding import stream

Float32 = NDArray[np.float32]

# Philox4x64-10 (Salmon et al. 2011, 'Parallel random numbers: as easy as 1, 2, 3')
_FACTOR_A, _FACTOR_C = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_KEY_STEPS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)

#: Most words of a stream that are made at a time, for the processor then works on several blocks.
_ROOM = 512

#: Bytes; a vector that lies across two lines takes twice as long to load. Rows of the basis are of
#: any length, and so begin at a line's start only where it is a multiple of sixteen.
CACHE_LINE = 64

_TAIL = 3.6541528853610088  # where the ziggurat's lowest layer becomes the normal curve's tail


def _ziggurat() -> tuple[NDArray[np.int32], Float32, Float32]:
    """256 layers of equal area (Marsaglia and Tsang 2000), numpy's own for float32 to the bit.

    Tail first, then from the top down: how much of a layer lies under the curve at any height, in
    2**-23 of its width; that unit, and once more for the curve's other side; the curve's height at
    the layer's edge.
    """
    foot = math.exp(-0.5 * _TAIL**2)
    area = _TAIL * foot + math.sqrt(math.pi / 2) * math.erfc(_TAIL / math.sqrt(2))
    edges = [area / foot, _TAIL]
    while len(edges) < 256:
        top = area / edges[-1] + math.exp(-0.5 * edges[-1] ** 2)
        edges.append(math.sqrt(-2 * math.log(top)))
    layer = np.array([0, *range(255, 0, -1)])
    width, inner = np.array(edges)[layer], np.array([*edges, 0])[layer + 1]
    height = np.where(layer == 0, 1, np.exp(-0.5 * width**2))
    unit = np.append(width, -width) * 2**-23
    within = np.rint(inner / width * 2**23).astype(np.int32)
    return within, unit.astype(np.float32), height.astype(np.float32)


_WITHIN, _UNIT, _HEIGHT = _ziggurat()


@intrinsic
def _high(typing: Any, a: Any, b: Any) -> Any:
    """The upper 64 bits of the product of two uint64."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), build


@inlined
def _philox(key, block, words):
    """Block `block` (from 0 on) of the stream, to `words` (4,): twice 32 bits each, lower first."""
    a, b, c, d = np.uint64(block + 1), np.uint64(0), np.uint64(0), np.uint64(0)
    k, m = np.uint64(key), np.uint64(0)
    for _ in range(10):
        high_a, high_c = _high(_FACTOR_A, a), _high(_FACTOR_C, c)
        a, b, c, d = high_c ^ b ^ k, _FACTOR_C * c, high_a ^ d ^ m, _FACTOR_A * a
        k, m = k + _KEY_STEPS[0], m + _KEY_STEPS[1]
    words[0], words[1], words[2], words[3] = a, b, c, d


@compiled
def _uniform(key, at, block):
    """Word `at` as a float32 in [0, 1); for the few draws that need one, its block is remade."""
    _philox(key, at >> 3, block)
    word = block[at % 8 >> 1] >> np.uint64(at % 2 * 32) & np.uint64(0xFFFFFFFF)
    return np.float32(word >> np.uint64(8)) * np.float32(2**-24)


@compiled
def _near_the_curve(key, at, block, layer, place, x):
    """(draw or NaN to try again, next word) for an `x` where the layer crosses the curve."""
    if layer == 0:
        while True:
            beyond = np.float32(-1 / _TAIL) * np.float32(math.log1p(-_uniform(key, at, block)))
            y = -np.float32(math.log1p(-_uniform(key, at + 1, block)))
            at += 2
            if y + y > beyond * beyond:
                far = np.float32(_TAIL) + beyond
                return -far if place & 0x100 else far, at
    rise = (_HEIGHT[layer - 1] - _HEIGHT[layer]) * _uniform(key, at, block)
    under = rise + _HEIGHT[layer] < math.exp(-0.5 * np.float64(x) * np.float64(x))
    return x if under else np.float32(np.nan), at + 1


@compiled
def _fill(keys, noise):
    """`noise` (n, size): row by row the draws of that row's key, by the ziggurat."""
    size = noise.shape[1]
    blocks = min(size // 8 + 2, _ROOM // 8)  # few draws need more than a word
    made, other = np.empty((blocks, 4), dtype=np.uint64), np.empty(4, dtype=np.uint64)
    words = made.reshape(made.size).view(np.uint32)
    for i in range(len(keys)):
        at, first, end = 0, 0, 0
        for j in range(size):
            while True:
                if at >= end:
                    first, end = at - at % 8, at - at % 8 + len(words)
                    for block in range(blocks):
                        _philox(keys[i], at // 8 + block, made[block])
                word = words[np.uint64(at - first)]  # no index can be below zero
                at += 1
                layer, place = word & np.uint32(0xFF), np.int32(word >> np.uint32(9))
                x = np.float32(place) * _UNIT[word & np.uint32(0x1FF)]
                if place < _WITHIN[layer]:
                    break
                x, at = _near_the_curve(keys[i], at, other, np.int64(layer), place, x)
                if not np.isnan(x):
                    break
            noise[i, j] = x


def birth_noise(noise_seeds: NDArray[np.int64], shape: tuple[int, ...]) -> Float32:
    """Standard normal draws (n, *shape), each row by its own seed alone.

    Row i is what `Generator(Philox(key=noise_seeds[i])).standard_normal(shape, float32)` draws.
    """
    noise = np.empty((len(noise_seeds), *shape), dtype=np.float32)
    _fill(noise_seeds, noise.reshape(len(noise_seeds), math.prod(shape)))
    return noise


@lru_cache(maxsize=16)
def fixed_basis(seed: int, width: int, length: int) -> Float32:
    """The fixed random basis (width, length), entries N(0, 1/width); read-only.

    A longer basis of the same seed and width begins with the shorter one, so an architecture that
    was never seen uses the same columns.
    """
    draws = stream(seed, "basis").standard_normal((length, width), dtype=np.float32)
    room = np.empty(draws.nbytes + CACHE_LINE, dtype=np.uint8)
    room = room[-room.ctypes.data % CACHE_LINE :][: draws.nbytes]
    basis = room.view(np.float32).reshape(width, length)
    np.multiply(draws.T, np.float32(width**-0.5), out=basis)
    basis.flags.writeable = False
    return basis
