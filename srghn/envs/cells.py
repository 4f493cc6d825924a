"""The perturbations under which a gate plays a pinned world."""

from __future__ import annotations

from srghn.envs.perturb import Perturbation, kinds, parse
from srghn.envs.registry import find
from srghn.envs.version import EnvVersion


def default_cells(version: EnvVersion) -> tuple[Perturbation, ...]:
    """The perturbations that a gate uses where none were chosen, mild severities first."""
    spec = find(version.id)
    cells = [parse(text) for text in spec.cells]
    return tuple(cell for cell in cells if cell.name in kinds(spec, version.backend))
