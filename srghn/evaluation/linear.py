"""One linear layer for every lane with its own weights, compiled.

numba contracts nothing without `fastmath`, so each output is bias + w[0] x[0] + w[1] x[1] + ... in
this order in float32, on every machine; the inner loop runs over outputs and is vectorised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def _linear(values: Float32, weights: Float32, biases: Float32, who: NDArray[np.int64]) -> Float32:
    """Values (lanes, inputs) -> (lanes, outputs), by the weights of `who` (lanes,).

    `weights` (individuals, inputs, outputs), `biases` (individuals, outputs).
    """
    out = np.empty((values.shape[0], weights.shape[2]), dtype=np.float32)
    for lane in range(values.shape[0]):
        individual = who[lane]
        for k in range(out.shape[1]):
            out[lane, k] = biases[individual, k]
        for j in range(values.shape[1]):
            value = values[lane, j]
            for k in range(out.shape[1]):
                out[lane, k] += weights[individual, j, k] * value
    return out


def _compile(function: Callable[..., Float32]) -> Any:
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # no writable place for a cache: compile in every process
        return numba.njit(function)


linear = _compile(_linear)
