"""Where the candidate comes from: its ancestors, its run, and the ledger's events about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from regression_suite import descent
from regression_suite.report import plots

if TYPE_CHECKING:
    from regression_suite.evidence import Evidence

#: Ancestors listed in full; of a longer chain the founder and the last ones.
ANCESTORS = 12


@dataclass(frozen=True)
class Ancestors:
    """The chain from the founder: `rows` are (generation, id, fitness, rate, mode).

    `length` says how long it is, in words.
    """

    length: str
    rows: list[tuple[str, ...]]
    left_out: int
    course: Markup | None


def ancestors(evidence: Evidence) -> Ancestors | None:
    """What the candidate descends from."""
    ancestry = descent.found(evidence.candidate)
    if ancestry is None or not ancestry.chain:
        return None
    chain = ancestry.chain
    shown = [*chain[:1], *chain[max(1, len(chain) - ANCESTORS + 1) :]]
    rows: list[tuple[str, ...]] = [
        (
            str(a.generation),
            str(a.id),
            "—" if a.fitness is None else f"{a.fitness:.4g}",
            f"{a.rate:.4f}",
            a.mode,
        )
        for a in shown
    ]
    course = None
    if len(chain) > 2:
        fitness = [np.nan if a.fitness is None else a.fitness for a in chain]
        births = [float(a.generation) for a in chain]
        modes = [a.mode for a in chain]
        course = plots.over_generations(
            plots.Series("fitness of each ancestor when born", births, fitness),
            _switches(births, modes),
        )
    return Ancestors(str(ancestry), rows, len(chain) - len(shown), course)


@dataclass(frozen=True)
class Evolution:
    """How the run went: `considered` individuals were born, `evaluations` episodes played.

    `training` is the candidate's fitness there, `validation` its mean return when it was chosen,
    `end` what ended the run before its last generation.
    """

    fitness: Markup
    rate: Markup
    diversity: Markup
    generations: int
    considered: int
    evaluations: int
    steps: int
    training: str
    validation: str
    switches: bool
    end: str


def evolution(evidence: Evidence) -> Evolution | None:
    """The run's generations in pictures."""
    if evidence.tables is None:
        return None
    manifest: Mapping[str, Any] = {} if evidence.candidate is None else evidence.candidate.manifest
    table = evidence.tables.generations
    column = {str(name): table[name].tolist() for name in table.columns}
    rates = evidence.tables.lineage.groupby("generation")["rate"]
    column["rate_q10"], column["rate_q90"] = (
        rates.quantile(0.1).tolist(),
        rates.quantile(0.9).tolist(),
    )
    xs = [float(g) for g in column["generation"]]
    marks = _switches(xs, column["mode"])

    def series(name: str, middle: str, low: str = "", high: str = "", best: str = "") -> Markup:
        parts = [column[c] if c else None for c in (low, high, best)]
        return plots.over_generations(plots.Series(name, xs, column[middle], *parts), marks)

    return Evolution(
        fitness=series("fitness: median, q10 to q90, best", "median", "q10", "q90", "best"),
        rate=series(
            "mutation rate: mean, q10 to q90 of individuals", "rate", "rate_q10", "rate_q90"
        ),
        diversity=series("diversity of policies", "diversity"),
        generations=len(xs),
        considered=evidence.tables.considered,
        evaluations=int(column["evaluations"][-1]),
        steps=int(column["steps"][-1]),
        training=_number(manifest.get("training_fitness")),
        switches=bool(marks),
        end=evidence.tables.end,
        validation=_number(manifest.get("validation", {}).get("mean")),
    )


def events(evidence: Evidence) -> list[tuple[str, str, str, str]]:
    """The ledger's events about the candidate: (number, step, by whom, why), in their order."""
    rows = []
    for event in evidence.history:
        before, after = event.get("from_state"), event.get("to_state", "")
        step = f"{before} → {after}" if before else str(after)
        rows.append((str(event["seq"]), step, str(event["actor"]), str(event.get("reason", ""))))
    return rows


def _switches(xs: Sequence[float], modes: Sequence[str]) -> list[tuple[float, str]]:
    """Where the mode changes, and to which."""
    return [
        (x, after)
        for x, before, after in zip(xs[1:], modes, modes[1:], strict=False)
        if before != after
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
