"""What binds a verdict, and the decisions that single estimates lead to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regression_suite import checks
from regression_suite.estimates import Arm, CellEstimate, confidence
from regression_suite.stats import Interval
from regression_suite.suite import Cell
from srghn.config import GateParams
from srghn.inference.verdict import Check, Outcome, Verdict, decide, summarise

PARAMS = GateParams()
ARM = Arm(mean=300, iqm=300, worst_tenth=100, failures=0.5, length=300)
FULL = Arm(mean=500, iqm=500, worst_tenth=500, failures=0, length=500)
OUTCOMES = st.sampled_from(["passed", "failed", "inconclusive", "error"])


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, (high - low) / 4, 100, 0.95)


def cell(
    gap: Interval,
    *,
    kind: str = "primary",
    champion: Arm = ARM,
    tail: Interval | None = None,
    name: str | None = None,
) -> CellEstimate:
    return CellEstimate(
        Cell(name or kind, kind, "normal", 100),  # type: ignore[arg-type]
        None,
        candidate=ARM,
        incumbent=champion,
        mean=gap,
        difference=gap,
        mean_difference=gap,
        tail=tail or interval(0, 1),
        improvement=interval(0, 1),
    )


def found(
    cells: Sequence[CellEstimate], params: GateParams = PARAMS, gains: Sequence[Check] = ()
) -> dict[str, Check]:
    return {check.name: check for check in checks.against_champion(cells, params, gains)}


@given(st.lists(st.tuples(OUTCOMES, st.booleans()), min_size=1))
def test_only_all_binding_passes_are_a_pass(kinds: list[tuple[Outcome, bool]]) -> None:
    made = [Check(str(i), o, "", binding=b) for i, (o, b) in enumerate(kinds)]
    outcome, bound = decide(made)
    binding = {o for o, b in kinds if b}
    assert (outcome == "passed") == (binding == {"passed"})
    assert bound.outcome == outcome


def test_nothing_checked_is_an_error() -> None:
    assert decide([])[0] == "error"
    assert decide([Check("seen", "passed", "", binding=False)])[0] == "error"


def test_the_first_of_the_worst_binds_and_of_passes_the_closest() -> None:
    failed = [Check("a", "passed", ""), Check("b", "failed", "x"), Check("c", "failed", "y")]
    outcome, bound = decide(failed)
    assert bound.name == "b"
    assert summarise(outcome, bound) == "FAILED by b: x"
    close = Check("close", "passed", "", low=2.0, threshold=0.0)
    wide = Check("wide", "passed", "", low=90.0, threshold=0.0)
    assert decide([Check("a", "passed", ""), wide, close])[1].name == "close"


def test_a_verdict_reads_back_as_it_was_written() -> None:
    check = Check("primary", "passed", "why", value=1.0, low=0.5, high=1.5, threshold=0.0)
    verdict = Verdict(
        "passed", (check,), "primary", "s", "c", "e", "normal", "1", "p", None, 1, "r"
    )
    assert Verdict.from_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(
    ("gap", "champion", "outcome", "word"),
    [
        (interval(1, 20), ARM, "passed", "above 0"),
        (interval(-5, 20), ARM, "inconclusive", "does not exclude 0"),
        (interval(-20, -1), ARM, "failed", "worse"),
        (interval(-20, -1), FULL, "failed", "worse"),
        (interval(0, 0), ARM, "failed", "no better"),
        (interval(0, 0), FULL, "failed", "ceiling"),
        (interval(-5, 1), FULL, "failed", "ceiling"),
    ],
)
def test_superiority(gap: Interval, champion: Arm, outcome: Outcome, word: str) -> None:
    check = found([cell(gap, champion=champion)])["primary"]
    assert check.outcome == outcome
    assert word in check.reason
    assert (check.remedy == "") == (outcome == "passed")


def test_a_world_without_a_ceiling_has_no_such_fail() -> None:
    endless = PARAMS.model_copy(update={"ceiling": None})
    check = found([cell(interval(-5, 1), champion=FULL)], endless)["primary"]
    assert check.outcome == "inconclusive"


@pytest.mark.parametrize(
    ("gap", "outcome"),
    [
        (interval(-24, 5), "passed"),
        (interval(-26, 5), "inconclusive"),
        (interval(-60, -26), "failed"),
    ],
)
def test_non_inferiority_where_the_policy_asks_no_more(gap: Interval, outcome: Outcome) -> None:
    params = PARAMS.model_copy(update={"superiority": False})  # margin 25
    assert found([cell(gap)], params)["primary"].outcome == outcome


def test_a_better_middle_does_not_hide_a_worse_tail() -> None:
    risky = cell(interval(50, 100), tail=interval(-300, -150))
    result = found([risky])
    assert result["primary"].outcome == "passed"
    assert result["worst tenth"].outcome == "failed"


def test_cells_stand_worst_first_and_other_modes_do_not_bind() -> None:
    harder = [
        cell(interval(10, 20), kind="perturbed", name="mild"),
        cell(interval(-80, -60), kind="perturbed", name="harsh"),
    ]
    result = found([cell(interval(1, 9)), *harder])
    assert list(result) == ["primary", "worst tenth", "harsh", "mild"]
    assert result["harsh"].outcome == "failed"


def test_missing_episodes_are_an_error_of_their_cell() -> None:
    broken = CellEstimate(Cell("force:2", "perturbed", "normal", 30), "2 of 30 episodes crashed")
    result = found([cell(interval(1, 9)), broken])
    assert result["force:2"].outcome == "error"
    assert "2 of 30" in result["force:2"].reason
    primary = CellEstimate(Cell("primary", "primary", "normal", 30), "0 episodes were played")
    assert decide(list(found([primary]).values()))[0] == "error"


@pytest.mark.parametrize(
    ("mean", "outcome"),
    [
        (interval(475, 500), "passed"),
        (interval(474, 500), "inconclusive"),
        (interval(300, 474), "failed"),
    ],
)
def test_a_first_champion_has_an_absolute_bar(mean: Interval, outcome: Outcome) -> None:
    assert checks.first_champion([cell(mean)], PARAMS)[0].outcome == outcome


def test_a_first_champion_has_a_floor_in_every_cell() -> None:
    cells = [cell(interval(490, 500)), cell(interval(20, 90), kind="perturbed", name="harsh")]
    assert [c.outcome for c in checks.first_champion(cells, PARAMS)] == ["passed", "failed"]


def test_gains_carry_only_what_is_no_worse() -> None:
    gain = Check("gain: size", "passed", "", binding=False)
    assert found([cell(interval(-5, 5))], gains=[gain])["primary"].outcome == "passed"
    assert found([cell(interval(-50, 5))], gains=[gain])["primary"].outcome == "inconclusive"


def test_gains_are_measured_as_named() -> None:
    params = PARAMS.model_copy(update={"secondary_gains": ("worst_tenth", "cells", "size")})
    made = checks.secondary_gains(
        [cell(interval(0, 0), tail=interval(1, 5))], params, interval(-1, 5), (80, 100)
    )
    assert {c.name: c.outcome for c in made} == {
        "gain: worst_tenth": "passed",
        "gain: cells": "failed",
        "gain: size": "passed",
    }
    assert not any(check.binding for check in made)
    assert (
        checks.secondary_gains([cell(interval(0, 0))], params, None, (95, 100))[-1].outcome
        == "failed"
    )


def test_alpha_is_shared_by_attempts_and_gains() -> None:
    once = PARAMS.model_copy(update={"attempts": 1})
    gains = once.model_copy(update={"secondary_gains": ("size",)})
    assert confidence(once) == pytest.approx(0.95)
    assert confidence(PARAMS) == pytest.approx(1 - 0.05 / 3)
    assert confidence(gains) == pytest.approx(0.975)
