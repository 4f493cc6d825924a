"""Compares actual observations with the declared space, and with what float32 and a server take."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces.utils import flatten
from numpy.typing import NDArray

from srghn.envs.layout import Layout
from srghn.errors import FAILURES, ObservationError

#: Steps of float32 that an element must span to be told apart; fewer, and rounding hides it.
LEAST_STEPS = 100


class Probe(gym.Wrapper[Any, Any, Any, Any]):
    """Passes everything through and counts observations that violate the declared space.

    By `layout`, if there is one, a server reads observations in the environment's own form. The
    first, and those outside the space, are read so here.
    """

    def __init__(self, env: gym.Env[Any, Any], layout: Layout | None = None) -> None:
        super().__init__(env)
        self.seen = self.outside = 0
        self.example = self.refused = ""
        self._layout = layout
        self._rows: list[NDArray[Any]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = self.env.reset(seed=seed, options=options)
        self._look(observation)
        return observation, info

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        self._look(observation)
        return observation, *rest

    def _look(self, observation: Any) -> None:
        self.seen += 1
        space = self.env.observation_space
        try:
            inside = space.contains(observation)
            if self.seen == 1 or not inside:
                self._serve(observation)
            flat = np.asarray(flatten(space, observation)).ravel()
        except FAILURES:  # the error is reported where the space is used
            return
        if not inside:
            self.outside += 1
            self.example = self.example or _why_outside(space, observation)
        if flat.dtype.kind in "fiu" and flat.dtype.itemsize > 4:
            self._rows.append(flat)

    def _serve(self, observation: Any) -> None:
        if self._layout is None or self.refused:
            return
        try:
            self._layout.flatten(observation)
        except ObservationError as error:
            self.refused = str(error)

    def notes(self) -> list[str]:
        """One sentence for each kind of trouble, with how many."""
        found = []
        if self.outside:
            found.append(
                f"{self.outside} of {self.seen} observations lie outside the declared observation "
                f"space ({self.example}); correct the space, or clip or change them with a "
                "wrapper"
            )
        if self.refused:
            found.append(
                f"a server would refuse such observations in their own form: {self.refused}; make "
                "space and observations agree, in the environment or with a wrapper, before "
                "anything is served"
            )
        if blurred := self._blurred():
            listed = ", ".join(map(str, blurred[:5])) + (", ..." if len(blurred) > 5 else "")
            found.append(
                f"{len(blurred)} of {self._rows[0].size} observation elements change by less than "
                f"float32 resolves ({listed}): subtract an offset or rescale them with a "
                "wrapper"
            )
        return found

    def _blurred(self) -> list[int]:
        """Elements whose whole range is a few steps of float32 at their magnitude."""
        if not self._rows or len({row.size for row in self._rows}) != 1:
            return []
        rows = np.stack(self._rows).astype(np.float64)
        spread = rows.max(axis=0) - rows.min(axis=0)
        with np.errstate(over="ignore"):
            steps = np.spacing(np.abs(rows).max(axis=0).astype(np.float32)).astype(np.float64)
        return np.flatnonzero((spread > 0) & (spread < LEAST_STEPS * steps)).tolist()


def _why_outside(space: gym.Space[Any], observation: Any) -> str:
    """The first fault of an observation, in a few words."""
    if isinstance(space, gym.spaces.Dict) and isinstance(observation, dict):
        for name, part in space.spaces.items():
            if name not in observation:
                return f"{name} is missing"
            if not part.contains(observation[name]):
                return f"{name}: {_why_outside(part, observation[name])}"
        if surplus := sorted(str(name) for name in observation if name not in space.spaces):
            return f"{surplus[0]!r} is not declared"
    if isinstance(space, gym.spaces.Tuple) and isinstance(observation, tuple | list):
        if len(observation) != len(space.spaces):
            return f"{len(observation)} parts, declared {len(space.spaces)}"
        for place, (part, value) in enumerate(zip(space.spaces, observation, strict=True)):
            if not part.contains(value):
                return f"{place}: {_why_outside(part, value)}"
    if isinstance(space, gym.spaces.Discrete) and np.shape(observation):
        return f"shape {np.shape(observation)}, declared one whole number"
    if not isinstance(space, gym.spaces.Box):
        return f"{type(observation).__name__} in a {type(space).__name__}"
    values = np.asarray(observation)
    if values.shape != space.shape:
        return f"shape {values.shape}, declared {space.shape}"
    beyond = (values < space.low) | (values > space.high)
    if beyond.any():
        at = tuple(int(i) for i in np.argwhere(beyond)[0])
        return f"element {at[0] if len(at) == 1 else at} is {values[at]:g}, declared " + (
            f"{space.low[at]:g} to {space.high[at]:g}"
        )
    return f"{values.dtype}, declared {space.dtype}"
