"""What the regression suite plays: one primary cell, the world's other modes, and harder worlds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from srghn.config import GateParams
from srghn.envs import EnvVersion
from srghn.envs.cells import default_cells
from srghn.envs.perturb import Perturbation, parse

#: Part of every verdict. Raised when a check, an estimand or a threshold's meaning changes: a pass
#: under one suite is not a pass under another.
SUITE_VERSION = "1"

Kind = Literal["primary", "mode", "perturbed"]
PRIMARY = "primary"


@dataclass(frozen=True)
class Cell:
    """A world in one mode, perturbed or not, and how many paired episodes are played in it."""

    name: str
    kind: Kind
    mode: str
    episodes: int
    perturbation: Perturbation | None = None
    binding: bool = True


def plan(version: EnvVersion, mode: str, params: GateParams) -> tuple[Cell, ...]:
    """Every cell, the primary one first: the nominal world in `mode`, the mode it is in now.

    Raises `ConfigError` for a mode that the world does not have or a badly written perturbation.
    """
    version.check_mode(mode)
    texts = params.perturbations
    harder = default_cells(version) if texts is None else tuple(parse(text) for text in texts)
    others = [m for m in version.modes if m != mode]
    n = params.cell_episodes
    return (
        Cell(PRIMARY, "primary", mode, params.episodes),
        *(Cell(str(p), "perturbed", mode, n, perturbation=p) for p in harder),
        *(Cell(f"mode {m}", "mode", m, n, binding=params.modes_bind) for m in others),
    )
