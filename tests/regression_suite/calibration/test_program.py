"""The simulated gates decide as the real one does, and the committed table holds what it claims."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regression_suite import checks
from regression_suite.calibration.gates import Rules, decide, pairs
from regression_suite.calibration.program import (
    PREFACE,
    TITLES,
    candidates,
    rules_of,
    to_markdown,
)
from regression_suite.calibration.worlds import DISTRIBUTIONS, FAILURE, Draw, lowered, truth
from regression_suite.episodes import Played
from regression_suite.estimates import estimate, scale_of
from regression_suite.suite import Cell
from srghn.config import GateParams

PARAMS = GateParams(
    return_low=0.0,
    return_high=1.0,
    failure_return=FAILURE,
    min_return=0.5,
    min_cell_return=0.2,
    ceiling=None,
)


def real(kind: str, mine: np.ndarray, theirs: np.ndarray, planned: int) -> tuple[str, int]:
    """The verdict of one cell by the gate's own checks, batch by batch, and what it took."""
    cell = Cell(kind, kind, "normal", planned)  # type: ignore[arg-type]
    for n in [*range(50, planned, 50), planned]:
        steps = np.arange(n)
        played = Played(cell, steps, mine[:n], steps, theirs[:n], steps)
        found = checks.cell_checks(estimate(played, PARAMS, scale_of(PARAMS), tail=False), PARAMS)
        if checks.decided(found) or n == planned:
            outcomes = {check.outcome for check in found}
            return next(o for o in ("failed", "inconclusive", "passed") if o in outcomes), n
    raise AssertionError


@pytest.mark.parametrize(("kind", "cell"), [("primary", "primary"), ("perturbed", "other")])
def test_simulated_gates_decide_as_the_real_checks_do(kind: str, cell: str) -> None:
    rules = rules_of(PARAMS)[cell]
    rng = np.random.default_rng(0)
    for name, mine, theirs in candidates(DISTRIBUTIONS["Gaussian, sd .2"], 0.1):
        a, b = mine(rng, (4, rules.planned)), theirs(rng, (4, rules.planned))
        failures = (a <= FAILURE).astype(float) - (b <= FAILURE)
        fast = decide(a - b, failures, rules, 0.0)
        for row in range(4):
            outcome, used = real(kind, a[row], b[row], rules.planned)
            assert (outcome == "passed", outcome == "failed", used) == (
                bool(fast.passed[row]),
                bool(fast.failed[row]),
                int(fast.used[row]),
            ), (name, row)


def test_candidates_are_worse_by_just_what_they_say() -> None:
    for draw in DISTRIBUTIONS.values():
        assert truth(draw)[0] - truth(lowered(draw, 0.05))[0] == pytest.approx(0.05, abs=5e-4)


def test_a_gate_that_looks_without_paying_for_it_would_be_caught() -> None:
    """A candidate at the margin passes far too often where each look has the whole alpha."""
    draw = DISTRIBUTIONS["Gaussian, sd .2"]
    rules, rng = Rules(-0.1, 0.9, 300, 0.05), np.random.default_rng(1)
    gaps = lowered(draw, 0.1)(rng, (300, 300)) - draw(rng, (300, 300))
    sound = decide(gaps, np.zeros_like(gaps), rules, -0.1)
    assert sound.passed.mean() <= rules.alpha
    n = np.arange(50, 301, 50)
    means = np.cumsum(gaps, axis=1)[:, n - 1] / n
    naive = (means - 1.64 * gaps.std() / np.sqrt(n) > -0.1).any(axis=1)
    assert naive.mean() > 2 * rules.alpha


def test_default_budgets_decide_what_a_hundred_and_thirty_episodes_could_not() -> None:
    """Equals whose returns spread over a fifth of the range; better by a tenth, 5% fall in both."""

    def falling(gain: float) -> Draw:
        def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
            x = np.clip(rng.normal(0.5 + gain, 0.1, shape), 0, 1)
            return np.where(rng.random(shape) < 0.05, 0.0, x)

        return draw

    equal, found = DISTRIBUTIONS["Gaussian, sd .2"], {}
    for name, mine, theirs in (("other", equal, equal), ("primary", falling(0.1), falling(0.0))):
        planned = rules_of(GateParams())[name]
        for n in (planned.planned, {"other": 30, "primary": 100}[name]):
            rules, rng = replace(planned, planned=n), np.random.default_rng(0)
            shares = decide(*pairs(mine, theirs, 100, n, rng), rules, 0.0).passed
            found[name, n] = float(shares.mean())
    assert found["other", 300] >= 0.95
    assert found["primary", 600] >= 0.5
    assert found["other", 30] == 0
    assert found["primary", 100] < 0.1


DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_shows_the_committed_figures() -> None:
    tables = [
        to_markdown(title, (DOCS / f"calibration-{name}.csv").read_text(encoding="utf-8"))
        for name, title in TITLES.items()
    ]
    page = (DOCS / "calibration.md").read_text(encoding="utf-8")
    assert page == PREFACE + "\n".join(tables)


def rows(name: str) -> list[dict[str, str]]:
    path = DOCS / f"calibration-{name}.csv"
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_committed_table_holds_what_it_promises() -> None:
    gates = rows("gates")
    assert len(gates) == 2 * 5 * 8
    for row in gates:
        assert int(row["gates"]) >= 1000
        alpha = float(row["alpha"])
        if row["null"] == "True":
            assert float(row["passed"]) <= alpha, row
        assert float(row["coverage_low"]) >= 1 - alpha, row
        assert float(row["coverage_high"]) >= 1 - alpha, row
    for row in rows("coverage"):
        assert int(row["samples"]) >= 1000
        assert min(float(row["low"]), float(row["high"])) >= float(row["nominal"]), row
    equal = next(
        r for r in gates
        if (r["cell"], r["distribution"], r["candidate"]) == ("other", "Gaussian, sd .2", "equal")
    )  # fmt: skip
    assert float(equal["passed"]) >= 0.8
    year = {(r["spending"], r["candidates"]): float(r["false_pass_a_year"]) for r in rows("year")}
    assert year["candidates", "at the smallest gain"] <= 0.05
    assert year["candidates", "equal"] <= 0.05
