"""Which observations may decide a guard: those that an environment could show.

A caller may send any number within float32. At 1e38 the sums of a sound network overflow, and on a
few of such observations a canary alone would fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Largest size of an ordinary number: no sensor shows more, and no sound network overflows at it.
LARGEST = 1e15
#: How far one may lie from the middle of its declared bounds, in halves of their range. Noise, a
#: perturbation or a bad start may leave them.
ROOM = 10.0


def ordinary(observation: Sequence[float], face: Mapping[str, Any]) -> bool:
    """Whether an observation (d,) is one that the interface `face` of a manifest could show."""
    values = np.array(observation, np.float64)
    if not np.abs(values).max(initial=0.0) <= LARGEST:
        return False
    low, high = (_bounds(face.get(f"observation_{side}"), len(values)) for side in ("low", "high"))
    half = np.maximum((high - low) / 2, 1.0)
    with np.errstate(invalid="ignore"):
        far = np.abs(values - (high + low) / 2) > ROOM * half
    return not bool((far & np.isfinite(half)).any())


def _bounds(said: Any, size: int) -> Any:
    """The bounds (d,) of elements; NaN where there is none, or where the manifest says none."""
    listed = [np.nan if bound is None else float(bound) for bound in said or (None,)]
    return np.broadcast_to(np.array(listed), (size,)) if len(listed) in (1, size) else np.nan
