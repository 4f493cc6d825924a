"""Loops as machine code: numba's compiler, as every kernel here uses it.

Without `fastmath` nothing is reordered or contracted, so a kernel's results are those that its
source spells out. numba's own cache looks at a kernel's file and not at those that it calls into;
here a change to any file in `KERNELS` makes every kernel compile again.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
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


#: Every file whose functions are compiled, or whose constants compiled functions read; patterns
#: below the package's folder.
KERNELS = (
    "compiled.py",
    "lanes.py",
    "ghn/kernels.py",
    "ghn/noise.py",
    "evaluation/policies/linear.py",
    "evaluation/backends/cartpole/kernel.py",
    "evaluation/backends/cartpole/vectorised.py",
    "evaluation/backends/lunar_lander/kernel/*.py",
    "evaluation/backends/pendulum.py",
    "evolution/base.py",
    "evolution/metrics.py",
    "evolution/selection.py",
)

_OPTIONS: Any = {"error_model": "numpy", "nogil": True}


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled at its first call, and kept on disk where numba finds a writable place for it."""
    try:
        kernel: Any = numba.njit(cache=True, **_OPTIONS)(function)
        # what numba compares with the stamp that it wrote beside the machine code
        kernel._cache._cache_file._source_stamp = kernels_digest()
    except (RuntimeError, AttributeError):  # nowhere to write, or another numba's internals
        return numba.njit(**_OPTIONS)(function)
    return kernel


@lru_cache(maxsize=1)
def kernels_digest() -> str:
    """SHA-256, in hex, over the names and sources of all files in `KERNELS`."""
    digest, folder = hashlib.sha256(), Path(__file__).parent
    for pattern in KERNELS:
        for path in sorted(folder.glob(pattern)):
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def inlined(function: Callable[..., Any]) -> Any:
    """Compiled into each kernel that calls it: passing arrays costs as much as a small product."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)


def in_c_library(name: str) -> bool:
    """Whether a kernel can call this function; glibc has some that other systems lack."""
    return hasattr(ctypes.CDLL(None), name)
