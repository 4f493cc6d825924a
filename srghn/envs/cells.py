"""The perturbations under which a gate plays a pinned world."""

from __future__ import annotations

from srghn.envs.perturb import NOISE, Perturbation, kinds, parse
from srghn.envs.registry import find
from srghn.envs.version import EnvVersion


def default_cells(version: EnvVersion) -> tuple[Perturbation, ...]:
    """The perturbations that a gate uses where none were chosen, mild severities first.

    Those that would change nothing there are left out: see `idle_cells`.
    """
    idle = {cell for cell, _ in idle_cells(version)}
    return tuple(cell for cell in _listed(version) if cell not in idle)


def idle_cells(version: EnvVersion) -> tuple[tuple[Perturbation, str], ...]:
    """The world's listed perturbations that do nothing in it, each with the reason."""
    reason = "its observations are flags or never change, and noise leaves those as they are"
    still = not any(version.observation_scale)
    return tuple((cell, reason) for cell in _listed(version) if still and cell.name == NOISE)


def _listed(version: EnvVersion) -> list[Perturbation]:
    spec = find(version.id)
    cells = [parse(text) for text in spec.cells]
    return [cell for cell in cells if cell.name in kinds(spec, version.backend)]
