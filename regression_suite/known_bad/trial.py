"""The gate's self-test: each known-bad candidate must be refused, and for its own reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from regression_suite.gate import judge
from regression_suite.known_bad.makers import KNOWN_BAD, SLOW_BUDGET, KnownBad, Work
from regression_suite.known_bad.marks import Marked
from regression_suite.suite import suite_of
from srghn.config import GateParams
from srghn.inference.verdict import Verdict
from srghn.suites import SuiteCell

#: The cell in which the candidate with one bad cell is bad.
MARKED = f"{Marked.__module__}:{Marked.__name__}"
CONTROL = "the version itself"
Say = Callable[[int, str], None]


@dataclass(frozen=True)
class Row:
    """One candidate: `right` if the gate did with it what it must; `why` is the gate's reason.

    `must` says what that is; `verdict` is 'left out' where there can be no such candidate.
    """

    name: str
    what: str
    must: str
    verdict: str
    right: bool
    why: str


def try_gate(
    work: Work, run_dir: Path, scratch: Path, say: Say = lambda done, text: None
) -> list[Row]:
    """Judge the version against itself, which must pass, and every known-bad candidate beside it.

    The rules are the version's own, but being no worse is enough: what is refused is refused for
    what is wrong with it. Cells other than the primary one are played where they matter, by the
    version itself and by the one with a bad cell. Files are written to `scratch` alone.
    """
    say(0, CONTROL)
    verdict = _judge(work, work.good.path, run_dir, scratch / "control", cells=True)
    right = verdict.passed
    rows = [Row(CONTROL, "judged against itself", "pass", verdict.verdict, right, verdict.summary)]
    for done, bad in enumerate(KNOWN_BAD, start=1):
        say(done, bad.name)
        rows.append(_try(bad, work, run_dir, scratch))
    return rows


def _try(bad: KnownBad, work: Work, run_dir: Path, scratch: Path) -> Row:
    must = f"be refused by {bad.refused_by[0].replace('MARKED', 'the marked cell')}"
    if reason := bad.needless(work):
        return Row(bad.name, bad.what, must, "left out", True, reason)
    folder, out = scratch / bad.name, scratch / f"{bad.name} report"
    bad.make(work, folder)
    verdict = _judge(work, folder, run_dir, out, cells=bad.cells)
    shutil.rmtree(out)
    own = {name.replace("MARKED", f"{MARKED}:1") for name in bad.refused_by}
    found = [c for c in verdict.checks if c.name in own and c.outcome == "failed" and c.binding]
    right = verdict.verdict == "failed" and bool(found)
    why = f"{found[0].name}: {found[0].reason}" if found else verdict.summary
    return Row(bad.name, bad.what, must, verdict.verdict, right, why)


def _judge(work: Work, folder: Path, run_dir: Path, out: Path, *, cells: bool) -> Verdict:
    return judge(
        folder,
        work.version,
        work.mode,
        rules(work, cells=cells),
        out,
        incumbent_dir=work.good.path,
        run_dir=run_dir,
    )


def rules(work: Work, *, cells: bool) -> GateParams:
    """The rules by which being no worse is enough, with the marked cell or with the primary alone.

    A latency budget that no known-bad candidate could break in time is lowered.
    """
    suite = suite_of(work.params, work.version)
    marked = SuiteCell(perturbation=MARKED, severities=(1.0,))
    chosen = suite.model_copy(update={"cells": (*suite.cells, marked) if cells else ()})
    return work.params.model_copy(
        update={
            "suite": chosen,
            "perturbations": None,
            "superiority": False,
            "secondary_gains": (),
            "max_latency_ms": min(work.params.max_latency_ms, SLOW_BUDGET),
        }
    )
