"""The actions of an interface, and when two of them differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Two continuous actions are different if they differ by more than this share of their range.
#: The range of an action without both bounds counts as 2.
DIFFERENT = 0.1
#: A bound may be exceeded by rounding in float32.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Actions:
    """Bounds of an action's k elements: (k,) each, infinite where there is no bound."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def have(self, action: Any) -> bool:
        """Whether an action, a number or a list of k numbers, is an action of the interface."""
        if isinstance(action, int):
            return bool(self.low[0] <= action <= self.high[0])
        return self.have_all(np.array(action, np.float64).reshape(1, -1))

    def have_all(self, actions: NDArray[Any]) -> bool:
        """Whether each of n actions, (n,) or (n, k), is an action of the interface."""
        rows = actions.reshape(len(actions), -1)
        if rows.shape[1] != len(self.low):
            return False
        low, high = self._outer
        if len(low) == 1:  # the usual case, in half the time
            return bool(rows.min() >= low[0] and rows.max() <= high[0])
        return bool((rows >= low).all() and (rows <= high).all())

    def differ(self, first: Any, second: Any) -> bool:
        """Whether two actions differ; continuous ones as `DIFFERENT` says."""
        if isinstance(first, int) or isinstance(second, int):
            return bool(first != second)
        gap = np.abs(np.array(first, np.float64) - np.array(second, np.float64)).ravel()
        return bool((gap > DIFFERENT * np.where(self._bounded, self.high - self.low, 2.0)).any())

    @cached_property
    def _outer(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The bounds with room for rounding."""
        room = _ROUNDING * np.maximum(1, np.where(self._bounded, np.abs(self.high), 1))
        return self.low - room, self.high + room

    @cached_property
    def _bounded(self) -> NDArray[np.bool_]:
        return np.isfinite(self.low) & np.isfinite(self.high)


def actions_of(interface: Mapping[str, Any] | None) -> Actions | None:
    """The actions of a manifest's interface; None if the manifest does not describe them."""
    if not interface or "action_kind" not in interface:
        return None
    if interface["action_kind"] == "box":
        size = math.prod(interface.get("action_shape", ()))
        low = _bounds(interface["action_low"], size, -math.inf)
        return Actions(low, _bounds(interface["action_high"], size, math.inf))
    starts = np.array(interface["starts"], np.float64)
    return Actions(starts, starts + np.array(interface["choices"], np.float64) - 1)


def _bounds(values: Any, size: int, unbounded: float) -> NDArray[np.float64]:
    listed = [unbounded if value is None else float(value) for value in values]
    return np.broadcast_to(np.array(listed, np.float64), (size,)).copy()
