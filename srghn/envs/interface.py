"""Observations and actions of a policy: sizes, bounds, and the rule from outputs to actions.

Needs numpy alone, so that a server can check requests and decode answers without an environment.
`srghn.envs.spaces` derives an `Interface` from Gymnasium's spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from srghn.envs.layout import Layout
from srghn.errors import EnvVersionError

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
ActionKind = Literal["discrete", "multidiscrete", "box"]
Bounds = tuple[float | None, ...]
#: Half of a range from which on it says nothing of the actions' size.
VAST = 1e6


@dataclass(frozen=True)
class BoxRule:
    """`action = clip(output, low, high) * half + centre`, elementwise in float32.

    Every field has shape (k,). An element with two finite bounds is clipped to [-1, 1] and scaled;
    any other passes as it is, clipped only at a side that is finite. No action lies beyond a bound,
    not by rounding either.
    """

    low: Float32
    high: Float32
    half: Float32
    centre: Float32

    def __call__(self, outputs: Float32) -> Float32:
        """Outputs (n, k) -> actions (n, k), both float32."""
        clipped = np.minimum(np.maximum(outputs, self.low), self.high)
        return np.asarray(clipped * self.half + self.centre, dtype=np.float32)


@dataclass(frozen=True)
class Interface:
    """Observations are flat float32 vectors; actions are one of three kinds.

    `observation_low` and `observation_high` hold one bound per element, or a single bound that all
    elements share; None is unbounded. So do `action_low` and `action_high` of a box. `choices` is
    empty for a box, holds n for `Discrete(n)` and one count a block for multi-discrete actions;
    `starts` is the first value of each block. `action_shape` is the shape of one native action.

    `layout` says how a native observation that is no flat box becomes the vector; None for one
    that is. `observation_mean` and `observation_deviation` (observation_size,) normalise what the
    network sees, `(x - mean) / deviation`; empty where it sees observations as they are.
    """

    observation_size: int
    observation_low: Bounds
    observation_high: Bounds
    action_kind: ActionKind
    action_shape: tuple[int, ...] = ()
    choices: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    action_low: Bounds = ()
    action_high: Bounds = ()
    observation_dtype: str = "float32"
    layout: Layout | None = None
    observation_mean: tuple[float, ...] = ()
    observation_deviation: tuple[float, ...] = ()

    @cached_property
    def action_size(self) -> int:
        """Outputs a policy network must have."""
        return sum(self.choices) if self.choices else int(np.prod(self.action_shape, dtype=int))

    @cached_property
    def box_rule(self) -> BoxRule:
        """Clipping and scaling of box actions; raises for any other kind."""
        if self.action_kind != "box":
            raise EnvVersionError(f"box_rule is for box actions, these are {self.action_kind}")
        size = self.action_size
        low = -at_most(-_expand(self.action_low, size, -np.inf))
        high = at_most(_expand(self.action_high, size, np.inf))
        scaled = np.isfinite(low) & np.isfinite(high)
        least = np.where(scaled, low, np.float32(-1))
        most = np.where(scaled, high, np.float32(1))
        centre = ((least.astype(np.float64) + most) / 2).astype(np.float32)
        middle = centre.astype(np.float64)
        half = at_most(np.minimum(most - middle, middle - least))
        # in float64, too, a difference may be rounded up
        beyond = (centre - half < least) | (centre + half > most)
        return BoxRule(
            low=np.where(scaled, np.float32(-1), low),
            high=np.where(scaled, np.float32(1), high),
            half=np.where(beyond, np.nextafter(half, np.float32(0)), half),
            centre=centre,
        )

    def decode(self, outputs: NDArray[Any]) -> Int64 | Float32:
        """Raw outputs (n, action_size) -> n native actions.

        - discrete: int64 (n,), the index of the largest output; the first of equals wins;
        - multidiscrete: int64 (n, blocks), the same within each block of outputs;
        - box: float32 (n, k) by `BoxRule`: clipped to [-1, 1] and scaled linearly to [low, high];
          elements without both bounds are the output itself, clipped at a finite side if any.

        A NaN output has no action: evaluators count it as a crash before they decode.
        """
        if outputs.ndim != 2 or outputs.shape[1] != self.action_size:
            raise EnvVersionError(
                f"outputs must have shape (n, {self.action_size}), got {outputs.shape}; "
                "the policy's last layer must have as many units as the interface's action_size"
            )
        if self.action_kind == "box":
            return self.box_rule(outputs.astype(np.float32, copy=False))
        if self.action_kind == "discrete":
            chosen: Int64 = outputs.argmax(axis=1).astype(np.int64) + self.starts[0]
            return chosen
        edges = np.cumsum(self.choices)[:-1]
        best = [block.argmax(axis=1) for block in np.split(outputs, edges, axis=1)]
        return np.stack(best, axis=1).astype(np.int64) + np.array(self.starts, dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `from_dict` is the inverse. What is not set is left out."""
        data = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        data = {name: data[name] for name in _FIELDS if name not in _LATE or data[name]}
        if self.layout is not None:
            data["layout"] = self.layout.to_dict()
        return data

    def for_clients(self) -> dict[str, Any]:
        """What a client of the policy must agree on: without layout and normalisation.

        The same vector may be sent in a form that an older policy did not know, and normalising is
        the policy's own affair.
        """
        return {k: v for k, v in self.to_dict().items() if k not in _LATE}

    def alike(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.bool_]:
        """Where two arrays of actions are the same, elementwise, but for rounding.

        Choices must be equal. Box actions may differ by 1e-5 of half their range, or by 1e-5 if
        that is more, and by two steps of float32 beside it; where an element has no range, or one
        beyond `VAST`, by 1e-5 and as much of its size.
        """
        if self.action_kind != "box":
            same: NDArray[np.bool_] = np.equal(first, second)
            return same
        rule = self.box_rule
        unbounded = ~(np.isfinite(rule.low) & np.isfinite(rule.high)) | (rule.half > VAST)
        allowed = 1e-5 * np.where(unbounded, 1, np.maximum(rule.half, 1))
        steps = np.where(unbounded, 1e-5, 2 * np.finfo(np.float32).eps)
        close: NDArray[np.bool_] = np.isclose(first, second, rtol=steps, atol=allowed)
        return close

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Interface:
        """Read `to_dict`'s form; raises `EnvVersionError` naming an unknown or missing key."""
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        if "layout" in known:
            known["layout"] = Layout.from_dict(known["layout"])
        try:
            return cls(**known)
        except TypeError as error:
            raise EnvVersionError(f"not an interface: {error}; got keys {sorted(data)}") from error


_FIELDS = tuple(field.name for field in fields(Interface))
#: Fields that a later release brought: left out where they are not set.
_LATE = ("layout", "observation_mean", "observation_deviation")


def at_most(values: NDArray[np.float64]) -> Float32:
    """The largest float32 that are not above; infinity where none is finite."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(np.isfinite(nearest) & (nearest > values), below, nearest)


def _expand(bounds: Bounds, size: int, unbounded: float) -> NDArray[np.float64]:
    values = np.array([unbounded if b is None else b for b in bounds], dtype=np.float64)
    return np.broadcast_to(values, (size,))
