"""One linear layer for every lane with its own weights, compiled.

numba contracts nothing without `fastmath`, so each output is bias + w[0] x[0] + w[1] x[1] + ... in
this order in float32, on every machine; the inner loop runs over outputs and is vectorised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from srghn.compiled import compiled, intrinsic

Float32 = NDArray[np.float32]


@intrinsic
def narrow(typing: Any) -> Any:
    """Makes the kernel that calls it use vectors of 128 bits where wider ones would do.

    After wide ones some processors are slower for a millisecond or two, whatever runs then; between
    two of these calls a world steps, and would lose more than they gain.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite's own `add` refuses attributes that have a value
        set.add(builder.function.attributes, '"prefer-vector-width"="128"')
        return context.get_dummy_value()

    return types.none(), build


@compiled
def linear(values: Float32, weights: Float32, biases: Float32, who: NDArray[np.int64]) -> Float32:
    """Values (lanes, inputs) -> (lanes, outputs), by the weights of `who` (lanes,).

    `weights` (individuals, inputs, outputs), `biases` (individuals, outputs).
    """
    narrow()
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
