"""What the regression suite plays: one primary cell, the world's other modes, and harder worlds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from srghn.config import GateParams
from srghn.envs import EnvVersion
from srghn.envs.cells import default_cells
from srghn.envs.perturb import Perturbation, parse
from srghn.errors import ConfigError

#: Part of every verdict. Raised when a check, an estimand or a threshold's meaning changes: a pass
#: under one suite is not a pass under another.
SUITE_VERSION = "2"
#: Most episodes of a cell that is reported and decides nothing.
REPORTED = 100

Kind = Literal["primary", "mode", "perturbed"]
PRIMARY = "primary"


@dataclass(frozen=True)
class Cell:
    """A world in one mode, perturbed or not, and how many paired episodes are planned in it."""

    name: str
    kind: Kind
    mode: str
    episodes: int
    perturbation: Perturbation | None = None
    binding: bool = True


def resolved(params: GateParams, version: EnvVersion) -> GateParams:
    """The rules with the world's range of returns and failure where they name none.

    Raises `ConfigError` where neither says what they are, or a bar lies beyond the range.
    """
    known = version.returns
    given = {
        "return_low": known.low if known else None,
        "return_high": known.high if known else None,
        "failure_return": version.failure_return,
    }
    named = {k: v for k in given if (v := getattr(params, k)) is not None}
    rules = params.model_copy(update={**given, **named})
    for name in given:
        if getattr(rules, name) is None:
            where = "env.failure_return" if name == "failure_return" else "env.returns"
            raise ConfigError(
                f"gate.{name}: nothing says what it is for {version.id}; set {where}, which gate, "
                "trial and watch share (srghn check proposes one)"
            )
    low, high = range_of(rules)
    if not low < high:
        raise ConfigError(f"gate.return_low must be below gate.return_high, got {low} and {high}")
    for name in ("min_return", "min_cell_return", "failure_return"):
        bar = getattr(rules, name)
        if not low <= bar <= high:
            raise ConfigError(
                f"gate.{name}: {bar:g} lies beyond the range of returns [{low:g}, {high:g}], where "
                "nothing can be told apart; set env.returns or another bar"
            )
    return rules


def range_of(rules: GateParams) -> tuple[float, float]:
    """The range of resolved rules."""
    assert rules.return_low is not None
    assert rules.return_high is not None
    return rules.return_low, rules.return_high


def width_of(rules: GateParams) -> float:
    """What margins and gains of resolved rules are a share of."""
    low, high = range_of(rules)
    return high - low


def failure_of(rules: GateParams) -> float:
    """The highest return of a failed episode, of resolved rules."""
    assert rules.failure_return is not None
    return rules.failure_return


def plan(version: EnvVersion, mode: str, params: GateParams) -> tuple[Cell, ...]:
    """Every cell, the primary one first: the nominal world in `mode`, the mode it is in now.

    Raises `ConfigError` for a mode that the world does not have or a badly written perturbation.
    """
    version.check_mode(mode)
    texts = params.perturbations
    harder = default_cells(version) if texts is None else tuple(parse(text) for text in texts)
    others = [m for m in version.modes if m != mode]
    n, bind = params.cell_episodes, params.modes_bind
    seen = n if bind else min(n, REPORTED)
    return (
        Cell(PRIMARY, "primary", mode, params.episodes),
        *(Cell(str(p), "perturbed", mode, n, perturbation=p) for p in harder),
        *(Cell(f"mode {m}", "mode", m, seen, binding=bind) for m in others),
    )


def cell_named(name: str, mode: str) -> Cell:
    """The cell that a recorded episode was played in, by its name and the verdict's mode."""
    if name == PRIMARY:
        return Cell(PRIMARY, "primary", mode, 0)
    if name.startswith("mode "):
        return Cell(name, "mode", name.removeprefix("mode "), 0)
    return Cell(name, "perturbed", mode, 0, perturbation=parse(name))
