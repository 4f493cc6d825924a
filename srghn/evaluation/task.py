"""One evaluation task: the environment and the episodes, without the policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srghn.envs.perturb import Perturbation, check
from srghn.envs.registry import find
from srghn.envs.version import EnvVersion
from srghn.errors import EvaluationError, expect

if TYPE_CHECKING:
    import gymnasium as gym


@dataclass(frozen=True, eq=False)
class Task:
    """Play a pinned version in one mode, each policy once on each of `seeds` int64 (episodes,).

    `order` int64 (individuals * episodes,), a permutation, says in which order the general backend
    starts them, episode i being individual i // episodes on seed i % episodes: no result may depend
    on it, and in an environment that wears out no individual then gains by it.

    Raises `ConfigError` for a mode or a perturbation that the version does not have,
    `EvaluationError` for seeds of another shape or below 0, and for none.
    """

    version: EnvVersion
    mode: str
    seeds: NDArray[np.int64]
    perturbation: Perturbation | None = None
    order: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        expect(self.version, EnvVersion, "version", "srghn.pin makes one")
        if self.perturbation is not None:
            expect(self.perturbation, Perturbation, "perturbation", "give its kind and severity")
            check(self.perturbation, find(self.version.id), self.version.params.backend)
        seeds = np.asarray(self.seeds)
        if seeds.ndim != 1 or not np.issubdtype(seeds.dtype, np.integer):
            raise EvaluationError(
                f"seeds must be int64 (episodes,), got {seeds.dtype} {seeds.shape}"
            )
        if not len(seeds):
            raise EvaluationError("seeds must name one episode or more, got none")
        if (seeds < 0).any():
            raise EvaluationError(f"seeds must be 0 or more, got {seeds.min()}")
        object.__setattr__(self, "seeds", seeds)
        self.version.check_mode(self.mode)

    @property
    def world(self) -> tuple[str, str, Perturbation | None]:
        """Identifies the environment: tasks with the same one can share its instances."""
        return self.version.fingerprint, self.mode, self.perturbation

    def make(self) -> gym.Env[Any, Any]:
        """One environment in this mode, perturbed or not; see `EnvVersion.make`."""
        return self.version.make(self.mode, self.perturbation)

    def __repr__(self) -> str:
        cell = "" if self.perturbation is None else f", {self.perturbation}"
        return f"Task({self.version.id}, {self.mode!r}, {len(self.seeds)} seeds{cell})"
