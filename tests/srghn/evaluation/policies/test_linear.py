"""The compiled layer: its sums' order, and the width of its vectors."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from srghn.evaluation.policies.linear import linear


def test_sums_run_in_order_in_narrow_vectors() -> None:
    random = np.random.default_rng(0)
    values, weights, biases = (
        random.standard_normal(shape, dtype=np.float32) for shape in ((5, 7), (3, 7, 33), (3, 33))
    )
    who = np.array([2, 0, 0, 1, 2])
    expected = biases[who]
    for j in range(7):
        expected = expected + weights[who, j] * values[:, j, None]
    kernel: Any = numba.jit(**linear.targetoptions)(linear.py_func)
    assert kernel(values, weights, biases, who).tobytes() == expected.tobytes()
    (code,) = kernel.inspect_llvm().values()
    assert '"prefer-vector-width"="128"' in code
    assert not any(f"<{width} x float>" in code for width in (8, 16))
