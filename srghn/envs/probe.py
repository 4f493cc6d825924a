"""Compares actual observations with the declared space and with what float32 can hold."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces.utils import flatten
from numpy.typing import NDArray

from srghn.errors import FAILURES

#: Steps of float32 that an element must span to be told apart; fewer, and rounding hides it.
LEAST_STEPS = 100


class Probe(gym.Wrapper[Any, Any, Any, Any]):
    """Passes everything through and counts observations that violate the declared space."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.seen = self.outside = 0
        self.example = ""
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
            flat = np.asarray(flatten(space, observation)).ravel()
        except FAILURES:  # the error is reported where the space is used
            return
        if not inside:
            self.outside += 1
            self.example = self.example or _why_outside(space, observation)
        if flat.dtype.kind in "fiu" and flat.dtype.itemsize > 4:
            self._rows.append(flat)

    def notes(self) -> list[str]:
        """One sentence for each kind of trouble, with how many."""
        found = []
        if self.outside:
            found.append(
                f"{self.outside} of {self.seen} observations lie outside the declared observation "
                f"space ({self.example}); correct the space, or clip them with a wrapper"
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
