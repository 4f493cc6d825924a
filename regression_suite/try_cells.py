"""Does each cell of a suite do what its author thinks? Found out by playing a little of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regression_suite.suite import Cell, left_out, plan
from srghn import seeding
from srghn.config import GateParams
from srghn.envs import EnvVersion
from srghn.envs.perturb import GENERIC
from srghn.errors import FAILURES, SrghnError
from srghn.interrupt import raise_interrupt

#: Episodes played of each cell, and steps of each.
SEEDS, STEPS = 3, 100


@dataclass(frozen=True)
class Tried:
    """One cell: `verdict` is 'acts', 'does nothing', 'left out' or 'broken', `why` says more."""

    name: str
    planned: int
    binding: bool
    verdict: str
    why: str = ""


def try_cells(params: GateParams, version: EnvVersion, mode: str) -> list[Tried]:
    """Play a few steps of every cell of the suite, with random actions.

    A cell is broken if it cannot be built or played, or is not the same when played again: then it
    draws from elsewhere than its seed. One that was never seen to do anything may act rarely.
    """
    found = [_try(cell, version) for cell in plan(version, mode, params)]
    return found + [
        Tried(n, 0, False, "left out", why) for n, why in left_out(version, mode, params)
    ]


def _try(cell: Cell, version: EnvVersion) -> Tried:
    told = Tried(cell.name, cell.episodes, cell.binding, "acts")
    try:
        first, again = _play(cell, version), _play(cell, version)
        plain = _play(replace(cell, perturbation=None), version) if cell.perturbation else None
    except FAILURES as error:
        raise_interrupt(error)
        said = str(error) if isinstance(error, SrghnError) else f"{type(error).__name__}: {error}"
        return replace(told, verdict="broken", why=" ".join(said.split()))
    if not _same(first, again):
        why = "played again, it differs: it must draw from the seed given to reset alone"
        return replace(told, verdict="broken", why=why)
    if plain is None or not _same(first, plain):
        return told
    why = f"no difference in {SEEDS} episodes of {STEPS} steps with random actions"
    assert cell.perturbation is not None
    rare = cell.perturbation.name in GENERIC  # what does nothing of these is left out
    return replace(told, verdict="acts" if rare else "does nothing", why=why)


def _play(cell: Cell, version: EnvVersion) -> list[NDArray[np.float64]]:
    """Observations and rewards, a row a step, of a few episodes."""
    rows: list[NDArray[np.float64]] = []
    with version.make(cell.mode, cell.perturbation) as env:
        for seed in range(SEEDS):
            rows.append(np.append(env.reset(seed=seed)[0], 0.0))
            for action in _actions(version, seed):
                observation, reward, terminated, truncated, _ = env.step(action)
                rows.append(np.append(observation, float(reward)))
                if terminated or truncated:
                    break
    return rows


def _actions(version: EnvVersion, seed: int) -> Any:
    draws = seeding.stream(seed, "suite check")
    size = version.interface.action_size
    return version.interface.decode(draws.standard_normal((STEPS, size), dtype=np.float32))


def _same(first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)
    )
