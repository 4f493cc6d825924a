"""What the regression suite plays: one primary cell, the world's other modes, and harder worlds."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from srghn.config import CanaryParams, GateParams, RunParams
from srghn.envs import EnvVersion
from srghn.envs.cells import idle
from srghn.envs.perturb import Perturbation, check, kinds, parse
from srghn.envs.registry import find, load_object
from srghn.errors import ConfigError
from srghn.files import canonical_json, sha256_bytes, sha256_file
from srghn.suites import RULES, Metric, Suite, SuiteCell, shipped

#: Part of every verdict. Raised when a check, an estimand or a threshold's meaning changes: a pass
#: under one suite is not a pass under another.
SUITE_VERSION = "3"
#: Most episodes of a cell that is reported and decides nothing.
REPORTED = 100

Kind = Literal["primary", "mode", "perturbed"]
PRIMARY = "primary"
#: Between a cell's perturbation and its mode, where that is not the one that is served.
IN_MODE = " in mode "
#: What a cell of a suite may say for itself -> the rule that it replaces there.
OWN = {
    "margin": "cell_margin",
    "failure_margin": "cell_failure_margin",
    "min_return": "min_cell_return",
    "max_failure_rate": "max_cell_failure_rate",
}


@dataclass(frozen=True)
class Cell:
    """A world in one mode, perturbed or not, and how many paired episodes are planned in it.

    `metrics` are looked at there; `own` are the rules that hold in this cell alone.
    """

    name: str
    kind: Kind
    mode: str
    episodes: int
    perturbation: Perturbation | None = None
    binding: bool = True
    metrics: tuple[Metric, ...] = ("returns", "failures")
    own: tuple[tuple[str, float], ...] = ()

    def rules(self, params: GateParams) -> GateParams:
        """The rules as they hold in this cell."""
        return params.model_copy(update=dict(self.own)) if self.own else params


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
                f"gate.{name}: no value is known for {version.id}; set {where}, which gate, trial "
                "and watch share (srghn check proposes one)"
            )
    low, high = range_of(rules)
    if not 0 < high - low < math.inf:
        raise ConfigError(
            "gate.return_low must be below gate.return_high, by less than the largest number, got "
            f"{low:g} and {high:g}"
        )
    for name in ("min_return", "min_cell_return", "failure_return"):
        bar = getattr(rules, name)
        if not low <= bar <= high:
            raise ConfigError(
                f"gate.{name}: {bar:g} lies outside the range of returns [{low:g}, {high:g}], to "
                "which returns are clipped; set env.returns or another bar"
            )
    return rules


def trial_of(params: RunParams, version: EnvVersion) -> CanaryParams:
    """The canary section with the range that the gate judges in: a trial and the watch scale by it.

    A promise is a share of that range. So raises `ConfigError` where the section names another one.
    """
    low, high = range_of(resolved(params.gate, version))
    for name, value in (("return_low", low), ("return_high", high)):
        named = getattr(params.canary, name)
        if named is not None and named != value:
            raise ConfigError(
                f"canary.{name} is {named:g}, but the gate judges in a range of [{low:g}, "
                f"{high:g}]; leave it out, and set env.returns if that range is wrong"
            )
    return params.canary.model_copy(update={"return_low": low, "return_high": high})


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


def suite_of(params: GateParams, version: EnvVersion) -> Suite:
    """The whole suite by which these rules judge in this world: every rule of it filled in.

    It is the file that the rules name, else the cells that they list, else the world's own. Raises
    `ConfigError` for a suite of another world, or one whose cells this world does not know.
    """
    chosen = params.suite or _listed(params)
    suite = chosen or shipped(find(version.id).suite)
    if suite.worlds and version.id not in suite.worlds:
        raise ConfigError(
            f"suite {suite.name} is for {', '.join(suite.worlds)}, not for {version.id}; add it to "
            "worlds, or take another suite"
        )
    for cell, mode in _pairs(suite):
        if mode is not None:
            version.check_mode(mode)
        if cell is not None and chosen is not None:
            check(cell, find(version.id), version.backend)
    rules = resolved(params, version)
    return suite.model_copy(update={"rules": {name: getattr(rules, name) for name in RULES}})


def suite_digest(suite: Suite) -> str:
    """SHA-256 of a whole suite, and of the source of the perturbations that it imports."""
    own = {cell.name for cell, _ in _pairs(suite) if cell is not None and cell.own}
    code = {name: _source(name) for name in sorted(own)}
    return sha256_bytes(canonical_json({**suite.model_dump(mode="json"), "code": code}))


def policy_digest(params: GateParams) -> str:
    """SHA-256 of the rules: whom they are applied against is not one of them."""
    return sha256_bytes(canonical_json(params.model_dump(mode="json")))


def suite_version(params: GateParams, version: EnvVersion) -> str:
    """What a verdict says of its suite: the version of the checks, and the suite's digest."""
    return f"{SUITE_VERSION}:{suite_digest(suite_of(params, version))}"


def plan(version: EnvVersion, mode: str, params: GateParams) -> tuple[Cell, ...]:
    """Every cell, the primary one first: the nominal world in `mode`, the mode it is in now.

    Cells that would change nothing in this world are left out (`left_out`); what a suite says twice
    of one cell holds both times (`_both`). Raises `ConfigError` for a mode that the world does not
    have or a badly written perturbation.
    """
    version.check_mode(mode)
    suite = suite_of(params, version)
    cells = {PRIMARY: Cell(PRIMARY, "primary", mode, params.episodes)}
    for group in suite.cells:
        for cell in _cells(group, mode, params):
            if not _useless(cell, version):
                known = cells.setdefault(cell.name, cell)
                cells[cell.name] = _both(known, cell, params)
    n, bind = params.cell_episodes, params.modes_bind
    seen = n if bind else min(n, REPORTED)
    for m in (m for m in version.modes if m != mode):
        cells.setdefault(f"mode {m}", Cell(f"mode {m}", "mode", m, seen, binding=bind))
    return tuple(cells.values())


def chosen_cells(version: EnvVersion, mode: str, params: GateParams) -> tuple[Cell, ...] | None:
    """The binding cells beside the primary one of a suite that the rules name, or list themselves.

    Finalists are chosen by them. None where the rules name none: the world's own cells then.
    """
    if params.suite is None and params.perturbations is None:
        return None
    return tuple(c for c in plan(version, mode, params) if c.binding and c.kind != "primary")


def left_out(version: EnvVersion, mode: str, params: GateParams) -> tuple[tuple[str, str], ...]:
    """The suite's cells that are not played, each with the reason."""
    cells = [
        cell for group in suite_of(params, version).cells for cell in _cells(group, mode, params)
    ]
    reasons = {cell.name: _useless(cell, version) for cell in cells}
    return tuple((name, reason) for name, reason in reasons.items() if reason)


def cell_named(name: str, mode: str) -> Cell:
    """The cell that a recorded episode was played in, by its name and the verdict's mode."""
    if name == PRIMARY:
        return Cell(PRIMARY, "primary", mode, 0)
    if name.startswith("mode "):
        return Cell(name, "mode", name.removeprefix("mode "), 0)
    text, sign, other = name.partition(IN_MODE)
    return Cell(name, "perturbed", other if sign else mode, 0, perturbation=parse(text))


def _listed(params: GateParams) -> Suite | None:
    """The cells that the rules list themselves, as until 0.2; None where they list none."""
    if params.perturbations is None:
        return None
    places = [parse(text) for text in params.perturbations]
    cells = [SuiteCell(perturbation=p.name, severities=(p.severity,)) for p in places]
    return Suite(name="gate.perturbations", cells=tuple(cells))


def _pairs(suite: Suite) -> Iterator[tuple[Perturbation | None, str | None]]:
    for group in suite.cells:
        for mode in group.modes or (None,):
            yield from ((place, mode) for place in _places(group))


def _places(group: SuiteCell) -> list[Perturbation | None]:
    if group.perturbation is None:
        return [None]
    return [Perturbation(group.perturbation, severity) for severity in group.severities]


def _cells(group: SuiteCell, mode: str, params: GateParams) -> Iterator[Cell]:
    """A group's cells; the nominal world in the mode that is served is the primary one."""
    own = tuple((OWN[k], v) for k in OWN if (v := getattr(group, k)) is not None)
    planned = group.episodes or params.cell_episodes
    for where in group.modes or (mode,):
        for place in _places(group):
            if place is None and where == mode:
                continue
            name = f"mode {where}" if place is None else str(place)
            yield Cell(
                name if where == mode or place is None else f"{name}{IN_MODE}{where}",
                "mode" if place is None else "perturbed",
                where,
                planned if group.binding else min(planned, REPORTED),
                place,
                group.binding,
                group.metrics,
                own,
            )


def _both(first: Cell, second: Cell, params: GateParams) -> Cell:
    """One cell of two of one name, which must meet what either asks: no less is ever asked of it.

    Beside one that binds, one that is only reported says nothing more. Of two bars of a metric the
    stricter holds.
    """
    if first == second:
        return first
    if first.binding != second.binding:
        return first if first.binding else second
    own = {}
    for rule in OWN.values():
        metric = "failures" if "failure" in rule else "returns"
        bars = [getattr(c.rules(params), rule) for c in (first, second) if metric in c.metrics]
        stricter = max if rule == "min_cell_return" else min
        if bars and (bar := stricter(bars)) != getattr(params, rule):
            own[rule] = bar
    return replace(
        first,
        episodes=max(first.episodes, second.episodes),
        metrics=tuple(dict.fromkeys(first.metrics + second.metrics)),
        own=tuple(own.items()),
    )


def _useless(cell: Cell, version: EnvVersion) -> str:
    """Why playing a cell would say nothing; '' where it would."""
    place = cell.perturbation
    if place is None:
        return ""
    if not place.own and place.name not in kinds(find(version.id), version.backend):
        return f"{version.backend} hides the dynamics of {version.id}"
    return idle(place, version)


def _source(path: str) -> str:
    """SHA-256 of the file in which an own perturbation stands."""
    target: Any = load_object(path, "perturbation")
    try:
        return sha256_file(Path(str(inspect.getsourcefile(target))))
    except (TypeError, OSError):
        return "no source"
