"""A version in memory, ready to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn.candidates.candidate import OnnxPolicy
from srghn.errors import SrghnError


class PredictionError(SrghnError):
    """A loaded policy answered with something that is no action."""


@dataclass(frozen=True)
class Predictor:
    """One verified version, ready to answer. Immutable, so that a request can hold on to it."""

    version: int
    digest: str
    env_fingerprint: str
    mode: str
    observation_size: int
    action_shape: tuple[int, ...]  # of one action: () for a discrete one, else (k,)
    action_kind: str  # "i" integers, "f" numbers
    policy: OnnxPolicy

    def act(self, observations: NDArray[np.float32]) -> list[Any]:
        """Actions for observations (n, d): n integers, or n lists of numbers.

        Raises `PredictionError` if the policy fails or an action is not finite.
        """
        try:
            actions = self.policy(observations)
        except Exception as error:  # onnxruntime's own types derive from Exception alone
            raise PredictionError(f"version {self.version} failed: {error}") from error
        if actions.dtype.kind == "f" and not np.isfinite(actions).all():
            raise PredictionError(f"version {self.version} answered with an action not finite")
        listed: list[Any] = actions.tolist()
        return listed
