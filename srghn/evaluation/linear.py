"""One linear layer for every lane with its own weights, compiled.

numba contracts nothing without `fastmath`, so each output is bias + w[0] x[0] + w[1] x[1] + ... in
this order in float32, on every machine; the inner loop runs over outputs and is vectorised.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from srghn.compiled import compiled

Float32 = NDArray[np.float32]


@compiled
def linear(values: Float32, weights: Float32, biases: Float32, who: NDArray[np.int64]) -> Float32:
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
