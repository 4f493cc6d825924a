"""Loops as machine code: numba's compiler, as every kernel here uses it.

Without `fastmath` nothing is reordered or contracted, so a kernel's results are those that its
source spells out. numba's cache looks at the time of a kernel's own file and not at those it calls
into: kernels that call each other stand in one file, and what changes does not come from another
(after a change of `srghn.lanes`, touch the kernels that use it).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic as _intrinsic

# numba types its decorators by the Python signature, which is not the compiled one
intrinsic: Callable[[Callable[..., Any]], Any] = _intrinsic

#: tanh(x) = x * P(x*x) / Q(x*x) on [-LIMIT, LIMIT], beyond which float32 tanh is 1. A relative
#: minimax fit in float64 (iteratively reweighted least squares), error 2e-8 before rounding.
TANH_LIMIT = np.float32(9.02)
TANH_P = tuple(np.float32(c) for c in (1.0, 0.13379718, 0.0034940347, 2.0583484e-05, 1.3319075e-08))
TANH_Q = tuple(np.float32(c) for c in (1.0, 0.46713033, 0.025871073, 0.00032830931, 7.762021e-07))


_OPTIONS: Any = {"error_model": "numpy", "nogil": True}


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled at its first call, and kept on disk where numba finds a writable place for it."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no writable cache directory: compile in every process
        return numba.njit(**_OPTIONS)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compiled into each kernel that calls it: passing arrays costs as much as a small product."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)


def in_c_library(name: str) -> bool:
    """Whether a kernel can call this function; glibc has some that other systems lack."""
    return hasattr(ctypes.CDLL(None), name)
