"""Randomness of births and of the fixed basis."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from srghn.seeding import stream

Float32 = NDArray[np.float32]


def birth_noise(noise_seeds: NDArray[np.int64], shape: tuple[int, ...]) -> Float32:
    """Standard normal draws (n, *shape), each row by its own seed alone.

    Row i is what `Generator(Philox(key=noise_seeds[i])).standard_normal(shape, float32)` draws; one
    generator is set to each key in turn, because making one costs more than the draws.
    """
    noise = np.empty((len(noise_seeds), *shape), dtype=np.float32)
    bits = np.random.Philox(key=0)
    generator, state = np.random.Generator(bits), bits.state
    key = np.zeros(2, dtype=np.uint64)
    state["state"]["key"] = key
    for row, noise_seed in zip(noise, noise_seeds, strict=True):
        key[0] = noise_seed
        bits.state = state
        generator.standard_normal(out=row, dtype=np.float32)
    return noise


@lru_cache(maxsize=16)
def fixed_basis(seed: int, width: int, length: int) -> Float32:
    """The fixed random basis (width, length), entries N(0, 1/width); read-only.

    A longer basis of the same seed and width begins with the shorter one, so an architecture that
    was never seen uses the same columns.
    """
    draws = stream(seed, "basis").standard_normal((length, width), dtype=np.float32)
    basis = np.ascontiguousarray(draws.T) * np.float32(width**-0.5)
    basis.flags.writeable = False
    return basis
