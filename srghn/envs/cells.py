"""The perturbations under which a gate evaluates in a pinned environment."""

from __future__ import annotations

from srghn.envs.perturb import BIAS, GENERIC, NOISE, OF_ACTIONS, OF_SPREAD, Perturbation, kinds
from srghn.envs.perturb import parse as parse_cell
from srghn.envs.registry import find
from srghn.envs.version import EnvVersion


def default_cells(version: EnvVersion) -> tuple[Perturbation, ...]:
    """The perturbations that a gate uses where none were chosen, mild severities first.

    Those that would change nothing there are left out: see `idle`.
    """
    return tuple(cell for cell in _listed(version) if not idle(cell, version))


def idle_cells(version: EnvVersion) -> tuple[tuple[Perturbation, str], ...]:
    """The world's listed perturbations that do nothing in it, each with the reason."""
    found = ((cell, idle(cell, version)) for cell in _listed(version))
    return tuple((cell, reason) for cell, reason in found if reason)


def idle(cell: Perturbation, version: EnvVersion) -> str:
    """Why a perturbation does nothing in this world; '' where it may do something."""
    kind = GENERIC.get(cell.name)
    if kind is None:
        return ""
    if cell.severity == kind.neutral:
        return f"severity {cell.severity:g} changes nothing"
    if cell.name in OF_SPREAD and not any(version.observation_scale):
        leaves = "noise leaves" if cell.name in (NOISE, BIAS) else "scaling leaves"
        return f"its observations are flags or never change, and {leaves} those as they are"
    choices = version.interface.choices
    if cell.name in OF_ACTIONS and choices and max(choices) == 1:
        return "there is only one action to choose"
    return ""


def _listed(version: EnvVersion) -> list[Perturbation]:
    spec = find(version.id)
    cells = [parse_cell(text) for text in spec.cells]
    return [cell for cell in cells if cell.name in kinds(spec, version.backend)]
