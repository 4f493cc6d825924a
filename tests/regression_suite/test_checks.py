"""What binds a verdict, and the decisions that single bounds lead to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regression_suite import checks, gate
from regression_suite.bounds import Bound, mean_bound
from regression_suite.episodes import Played
from regression_suite.estimates import Arm, CellEstimate, alpha_of, estimate, scale_of
from regression_suite.report import plots, views
from regression_suite.suite import Cell, resolved, trial_of
from srghn.config import CanaryParams, GateParams, Returns, RunParams, parse_params
from srghn.envs import EnvVersion
from srghn.envs.perturb import Perturbation
from srghn.errors import ConfigError
from srghn.evaluation.base import Crash
from srghn.inference.spending import spent
from srghn.inference.verdict import Check, Outcome, Verdict, contradiction, decide, summarise

if TYPE_CHECKING:
    from regression_suite.evidence import Evidence

PARAMS = GateParams(return_low=0.0, return_high=500.0, failure_return=100.0)
ARM = Arm(mean=300, iqm=300, worst_tenth=100, failures=0.5, length=300, crashes=0)
FULL = Arm(mean=500, iqm=500, worst_tenth=500, failures=0, length=500, crashes=0)
OUTCOMES = st.sampled_from(["passed", "failed", "inconclusive", "error"])


def bound(low: float, high: float, n: int = 300) -> Bound:
    return Bound((low + high) / 2, low, high, n, 0.05)


def cell(
    gap: Bound,
    *,
    kind: str = "primary",
    champion: Arm | None = ARM,
    tail: Bound | None = None,
    failures: Bound | None = None,
    binding: bool = True,
) -> CellEstimate:
    return CellEstimate(
        Cell(kind, kind, "normal", 300, binding=binding),  # type: ignore[arg-type]
        None,
        used=300,
        planned=300,
        candidate=ARM,
        incumbent=champion,
        mean=gap,
        failures=failures or bound(0, 0.01),
        difference=gap,
        failure_gap=failures or bound(-0.01, 0.01),
        tail=tail,
        improvement=bound(0, 1),
    )


def found(
    estimated: CellEstimate, params: GateParams = PARAMS, gains: Sequence[Check] = ()
) -> dict[str, Check]:
    return {check.name: check for check in checks.cell_checks(estimated, params, gains)}


def played(returns: np.ndarray, theirs: np.ndarray | None = None, **more: object) -> Played:
    n = np.arange(len(returns))
    lengths = None if theirs is None else n
    where = Cell("primary", "primary", "normal", 300)
    return Played(where, n, returns, n, theirs, lengths, **more)  # type: ignore[arg-type]


@given(st.lists(st.tuples(OUTCOMES, st.booleans()), min_size=1))
def test_only_all_binding_passes_are_a_pass(kinds: list[tuple[Outcome, bool]]) -> None:
    made = [Check(str(i), o, "", binding=b) for i, (o, b) in enumerate(kinds)]
    outcome, bound_by = decide(made)
    binding = {o for o, b in kinds if b}
    assert (outcome == "passed") == (binding == {"passed"})
    assert bound_by.outcome == outcome


def test_nothing_checked_is_an_error() -> None:
    assert decide([])[0] == "error"
    assert decide([Check("seen", "passed", "", binding=False)])[0] == "error"


def test_the_first_of_the_worst_binds_and_of_passes_the_closest() -> None:
    failed = [Check("a", "passed", ""), Check("b", "failed", "x"), Check("c", "failed", "y")]
    outcome, bound_by = decide(failed)
    assert bound_by.name == "b"
    assert summarise(outcome, bound_by) == "FAILED by b: x"
    close = Check("close", "passed", "", low=2.0, threshold=0.0)
    wide = Check("wide", "passed", "", low=90.0, threshold=0.0)
    assert decide([Check("a", "passed", ""), wide, close])[1].name == "close"


def test_of_returns_and_failures_the_closest_has_the_least_share_of_its_own_range() -> None:
    """5.2 of 500 above a threshold of 5 is closer than 17 points of failures."""
    near = cell(bound(5.2, 20), failures=bound(-0.12, -0.05))
    outcome, closest = decide(checks.cell_checks(near, PARAMS))
    assert (outcome, closest.name) == ("passed", "primary")
    assert closest.slack == pytest.approx(0.2)
    assert closest.room == pytest.approx(0.2 / 500)
    tail = cell(bound(50, 60), tail=bound(-149.9, 0), failures=bound(-0.01, 0.04))
    assert decide(checks.cell_checks(tail, PARAMS))[1].name == "worst tenth"


def judged(*made: Check) -> dict[str, Any]:
    outcome, by = decide(made)
    told = (by.name, summarise(outcome, by), "c", "e", "normal", "3", "p", None, 1)
    return Verdict(outcome, made, *told).to_dict()


def test_a_verdict_of_an_earlier_version_is_compared_as_it_was() -> None:
    """Its checks have no widths, and the one that it names as the closest stays it."""
    made = checks.cell_checks(cell(bound(5.2, 20), failures=bound(-0.12, -0.05)), PARAMS)
    old = judged(*(replace(check, scale=1.0) for check in made))
    for check in old["checks"]:
        del check["scale"]
    assert old["bound_by"] == "primary failures"
    assert contradiction(old) is None
    assert Verdict.from_dict(old).bound_by == decide(Verdict.from_dict(old).checks)[1].name
    assert contradiction(judged(*made)) is None


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), None, "1", 10**400])
def test_a_range_without_a_width_is_refused(scale: Any) -> None:
    data = judged(*checks.cell_checks(cell(bound(50, 60)), PARAMS))
    data["checks"][0]["scale"] = scale
    assert "it is not a verdict with checks" in str(contradiction(data))


def test_a_verdict_reads_back_as_it_was_written() -> None:
    check = Check("primary", "passed", "why", value=1.0, low=0.5, high=1.5, threshold=0.0)
    verdict = Verdict(
        "passed", (check,), "primary", "s", "c", "e", "normal", "1", "p", None, 1, "r"
    )
    assert Verdict.from_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(
    ("gap", "champion", "outcome", "word"),
    [
        (bound(6, 20), ARM, "passed", "above the smallest gain"),
        (bound(0.001, 0.001), ARM, "failed", "no better"),  # 500 against 499.999 in all episodes
        (bound(1, 20), ARM, "inconclusive", "does not exclude"),
        (bound(-1, 20), ARM, "inconclusive", "does not exclude"),
        (bound(-20, -1), ARM, "failed", "worse"),
        (bound(-20, -1), FULL, "failed", "worse"),
        (bound(-5, 4), ARM, "failed", "no better"),
        (bound(-5, 20), FULL, "failed", "ceiling"),
        (bound(-5, 20, n=50), FULL, "inconclusive", "does not exclude"),
    ],
)
def test_superiority(gap: Bound, champion: Arm, outcome: Outcome, word: str) -> None:
    check = found(cell(gap, champion=champion))["primary"]
    assert check.outcome == outcome
    assert word in check.reason
    assert (check.remedy == "") == (outcome == "passed")
    assert check.cleared == (outcome == "passed")


def test_a_gain_that_is_sure_and_tiny_is_none() -> None:
    """Half a percent of the range in every episode: the smallest gain that counts is one."""
    once = PARAMS.model_copy(update={"attempts": 1})
    where = played(np.full(1200, 500.0), np.full(1200, 497.5))
    for gain, passed in ((None, False), (0.0, True)):
        rules = once if gain is None else once.model_copy(update={"min_gain": gain})
        estimated = estimate(where, rules, scale_of(rules), tail=False)
        assert (found(estimated, rules)["primary"].outcome == "passed") is passed


def test_a_return_above_the_ceiling_shows_that_there_is_none() -> None:
    """The default is CartPole's, and other worlds go on beyond it."""
    rules = GateParams(return_low=0.0, return_high=1000.0, failure_return=0.0)
    assert rules.ceiling == 500
    rng = np.random.default_rng(0)
    theirs = rng.normal(600, 50, 120)
    mine = theirs + rng.normal(37, 60, 120)
    estimated = estimate(played(mine, theirs), rules, scale_of(rules), tail=False)
    assert found(estimated, rules)["primary"].outcome == "inconclusive"
    # the champion's own mean may lie below it
    for best, outcome in ((500.0, "failed"), (500.5, "inconclusive")):
        for arms in ((FULL, replace(FULL, best=best)), (replace(FULL, best=best), FULL)):
            beside = replace(cell(bound(-5, 20), champion=arms[0]), candidate=arms[1])
            assert found(beside)["primary"].outcome == outcome


def test_a_world_without_a_ceiling_has_no_such_fail() -> None:
    endless = PARAMS.model_copy(update={"ceiling": None})
    assert found(cell(bound(-5, 20), champion=FULL), endless)["primary"].outcome == "inconclusive"


@pytest.mark.parametrize(
    ("gap", "outcome"),
    [(bound(-24, 5), "passed"), (bound(-26, 5), "inconclusive"), (bound(-60, -26), "failed")],
)
def test_non_inferiority_where_the_rules_ask_no_more(gap: Bound, outcome: Outcome) -> None:
    params = PARAMS.model_copy(update={"superiority": False})  # margin 25
    assert found(cell(gap), params)["primary"].outcome == outcome


@pytest.mark.parametrize(
    ("gap", "outcome"),
    [
        (bound(-0.05, 0.09), "passed"),
        (bound(-0.05, 0.1), "inconclusive"),
        (bound(0.1, 0.3), "failed"),
    ],
)
def test_every_cell_has_a_failure_check(gap: Bound, outcome: Outcome) -> None:
    result = found(cell(bound(-5, 5), kind="perturbed", failures=gap))
    assert list(result) == ["perturbed", "perturbed failures"]
    assert result["perturbed failures"].outcome == outcome
    assert result["perturbed failures"].cleared == (outcome == "passed")


def test_three_catastrophes_in_thirty_no_longer_pass_a_cell() -> None:
    """They left the interquartile mean where it was; true rates of 5, 10, 13% passed .93 to .45."""
    mine = np.where(np.arange(30) < 3, 0.0, 500.0)
    both = replace(played(mine, np.full(30, 500.0)), cell=Cell("c", "perturbed", "normal", 30))
    estimated = estimate(both, PARAMS, scale_of(PARAMS), tail=False)
    outcomes = [check.outcome for check in checks.cell_checks(estimated, PARAMS)]
    assert "passed" not in outcomes


@pytest.mark.parametrize("metric", ["returns", "failures"])
def test_catastrophes_are_seen_by_the_mean_and_by_the_failures_alone(metric: str) -> None:
    """39 in 300 episodes, each metric by itself: the interquartile mean is the champion's."""
    mine = np.where(np.arange(300) < 39, 0.0, 500.0)
    where = Cell("c", "perturbed", "normal", 300, metrics=(metric,))  # type: ignore[arg-type]
    both = replace(played(mine, np.full(300, 500.0)), cell=where)
    estimated = estimate(both, PARAMS, scale_of(PARAMS), tail=False)
    assert estimated.candidate is not None
    assert estimated.candidate.iqm == 500
    (check,) = checks.cell_checks(estimated, PARAMS)
    assert check.outcome != "passed"
    assert check.value == pytest.approx(-65 if metric == "returns" else 0.13)


def test_an_episode_fails_at_the_bar_that_the_rules_name() -> None:
    mine = np.array([100.0] * 3 + [100.5] * 2 + [500.0] * 55)
    found_in = estimate(played(mine, mine), PARAMS, scale_of(PARAMS), tail=False)
    assert found_in.failures is not None
    assert found_in.incumbent is not None
    assert found_in.failures.value == found_in.incumbent.failures == pytest.approx(3 / 60)


def test_a_better_middle_does_not_hide_a_worse_tail() -> None:
    result = found(cell(bound(50, 100), tail=bound(-300, -151)))
    assert result["primary"].outcome == "passed"
    assert result["worst tenth"].outcome == "failed"


def test_cells_stand_worst_first_and_other_modes_do_not_bind() -> None:
    mild, harsh = (
        checks.cell_checks(cell(gap, kind="perturbed"), PARAMS)
        for gap in (bound(10, 20), bound(-80, -60))
    )
    failing = checks.cell_checks(
        cell(bound(10, 20), kind="perturbed", failures=bound(0.3, 0.4)), PARAMS
    )  # 30 points of failures above the margin are more than 30 of 500
    assert checks.worst_first([harsh, failing]) == [*failing, *harsh]
    other = checks.cell_checks(cell(bound(-400, -300), kind="mode", binding=False), PARAMS)
    ordered = checks.worst_first([other, mild, harsh])
    assert ordered == [*harsh, *mild, *other]
    assert not any(check.binding for check in other)


def test_the_heat_map_compares_failures_with_returns() -> None:
    """Most of the failures' range is clearer, and worse, than a fiftieth of the returns'."""
    noise = Cell("noise", "perturbed", "normal", 300, Perturbation("observation_noise", 0.1))
    lost = Perturbation("sensor_dropout", 0.1)
    fail = replace(noise, name="lost", perturbation=lost, metrics=("failures",))
    cells = (
        cell(bound(5, 15)),
        replace(cell(bound(-60, -55)), cell=noise),
        replace(cell(bound(0, 0), failures=bound(0.5, 0.7)), cell=fail),
    )
    found_in = tuple(check for each in cells for check in checks.cell_checks(each, PARAMS))
    evidence = SimpleNamespace(cells=cells, checks=found_in, mode="normal", params=PARAMS)
    rows = views.heat(cast("Evidence", evidence))
    assert rows is not None
    told = [(row.name, row.tiles[0].style, row.tiles[0].shade) for row in rows]
    assert told == [("sensor dropout", "fail", 3), ("observation noise", "fail", 1)]


@pytest.mark.parametrize("name", ["mode sensor failures", "gain:2"])
def test_a_cell_s_name_does_not_decide_what_its_checks_measure(name: str) -> None:
    """A mode and a perturbation of one's own may be called like a check."""
    named = replace(cell(bound(5, 15), kind="mode"), cell=Cell(name, "mode", "normal", 300))
    made = checks.cell_checks(named, PARAMS)
    assert [check.scale for check in made] == [500.0, 1.0]
    own = replace(named, cell=replace(named.cell, metrics=("returns",)))
    assert [check.name for check in checks.cell_checks(own, PARAMS)] == [name]
    gain = Check("gain: tail", "passed", "", low=1.0, high=2.0)
    evidence = SimpleNamespace(cells=(named,), checks=(*made, gain))
    assert views.bounded(cast("Evidence", evidence)) == ([made[0]], [made[1]])


@pytest.mark.parametrize(
    ("outcomes", "over"),
    [
        (["passed", "passed"], True),
        (["passed", "inconclusive"], False),
        (["failed", "inconclusive"], True),
        (["error"], True),
    ],
)
def test_a_cell_is_played_until_nothing_in_it_can_change(outcomes: list[str], over: bool) -> None:
    made = [Check(str(i), o, "") for i, o in enumerate(outcomes)]  # type: ignore[arg-type]
    assert checks.decided(made) is over


@pytest.mark.parametrize(
    ("mean", "outcome"),
    [
        (bound(475, 500), "passed"),
        (bound(474, 500), "inconclusive"),
        (bound(300, 474), "failed"),
    ],
)
def test_a_first_champion_has_an_absolute_bar(mean: Bound, outcome: Outcome) -> None:
    assert found(cell(mean, champion=None))["primary"].outcome == outcome


@pytest.mark.parametrize(
    ("rate", "kind", "outcome"),
    [
        (bound(0, 0.05), "primary", "passed"),
        (bound(0.01, 0.06), "primary", "inconclusive"),
        (bound(0.06, 0.2), "primary", "failed"),
        (bound(0.06, 0.2), "perturbed", "passed"),
        (bound(0.3, 0.4), "perturbed", "failed"),
    ],
)
def test_a_first_champion_may_fail_so_often(rate: Bound, kind: str, outcome: Outcome) -> None:
    check = found(cell(bound(490, 500), champion=None, kind=kind, failures=rate))
    assert check[f"{kind} failures"].outcome == outcome


def test_a_crash_of_the_champion_is_its_own_failure_and_the_candidate_s_an_error() -> None:
    good, broken = np.full(60, 400.0), np.full(60, 400.0)
    broken[7] = -np.inf
    theirs = estimate(played(good, broken), PARAMS, scale_of(PARAMS), tail=False)
    assert theirs.problem is None
    assert theirs.incumbent is not None
    assert (theirs.incumbent.crashes, theirs.incumbent.failures) == (1, pytest.approx(1 / 60))
    lost = replace(played(good, broken), incumbent_returns=np.where(broken < 0, np.nan, 1.0))
    missing = estimate(lost, PARAMS, scale_of(PARAMS), tail=False)
    assert checks.cell_checks(missing, PARAMS)[0].outcome == "error"
    crash = Crash(0, 7, 3, "ValueError: nan")
    mine = played(broken, good, crashes=(crash,))
    estimated = estimate(mine, PARAMS, scale_of(PARAMS), tail=False)
    (check,) = checks.cell_checks(estimated, PARAMS)
    assert check.outcome == "error"
    assert "1 of the candidate's 60 episodes crashed: ValueError: nan" in check.reason


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        (bound(-30.0, 12.0), "-9.0 [-30.0, +12.0] does not exclude the margin of -25"),
        (
            bound(-0.0032, 0.0012),
            "-0.0010 [-0.0032, +0.0012] does not exclude the margin of -0.002",
        ),
        (bound(0.0, 0.0), "+0.0 [+0.0, +0.0] stays above the margin of -0.002"),
    ],
)
def test_returns_are_told_as_finely_as_their_interval(gap: Bound, said: str) -> None:
    high = 500.0 if gap.width > 1 else 0.04
    params = PARAMS.model_copy(update={"return_high": high, "superiority": False})
    check = found(cell(gap), params)["primary"]
    assert said in check.reason
    shown = said[: said.index("]") + 1]
    assert shown in plots.forest([check], "difference", paired=True)


def test_too_few_episodes_are_an_error() -> None:
    few = estimate(played(np.full(19, 500.0)), PARAMS, scale_of(PARAMS), tail=False)
    assert checks.cell_checks(few, PARAMS)[0].outcome == "error"


def test_gains_carry_only_what_is_no_worse() -> None:
    gain = Check("gain: size", "passed", "", binding=False)
    assert found(cell(bound(-5, 15)), gains=[gain])["primary"].outcome == "passed"
    assert found(cell(bound(-50, 15)), gains=[gain])["primary"].outcome == "inconclusive"


def test_gains_are_measured_as_named() -> None:
    params = PARAMS.model_copy(update={"secondary_gains": ("worst_tenth", "cells", "size")})
    primary = cell(bound(0, 0), tail=bound(1, 5))
    made = checks.secondary_gains(primary, params, bound(-1, 5), (80, 100))
    assert {c.name: c.outcome for c in made} == {
        "gain: worst_tenth": "passed",
        "gain: cells": "failed",
        "gain: size": "passed",
    }
    assert not any(check.binding for check in made)
    size = checks.secondary_gains(primary, params, None, (95, 100))[-1]
    assert size.outcome == "failed"
    assert size.reason.endswith("at least 10% less is needed")


def test_alpha_is_shared_by_attempts_gains_and_candidates() -> None:
    once = PARAMS.model_copy(update={"attempts": 1})
    gains = once.model_copy(update={"secondary_gains": ("size",)})
    assert alpha_of(once) == pytest.approx(0.05)
    assert alpha_of(PARAMS) == pytest.approx(0.05 / 3)
    assert alpha_of(gains) == pytest.approx(0.025)
    assert alpha_of(once, tried=400) == alpha_of(once)
    spending = once.model_copy(update={"spending": "candidates"})
    assert alpha_of(spending, tried=0) > alpha_of(spending, tried=1)
    assert sum(spent(tried) for tried in range(100_000)) < 1


def test_attempts_and_candidates_do_not_loosen_the_promise() -> None:
    """Divided by attempts and candidates, alpha made the watch blind to falls of a tenth."""
    spending = PARAMS.model_copy(update={"spending": "candidates"})
    shown = played(np.random.default_rng(0).uniform(250, 450, 100))

    def promise(params: GateParams, tried: int) -> float | None:
        seen = SimpleNamespace(played=(shown,), params=params, tried=tried)
        return gate._in_service(cast("Evidence", seen))[1]

    once = PARAMS.model_copy(update={"attempts": 1})
    low = mean_bound(shown.returns, scale_of(once)).low
    assert promise(once, 0) == pytest.approx(low / 500)
    assert promise(spending, 100) == promise(PARAMS, 0) == promise(once, 0)


def test_rules_written_by_earlier_versions_are_read() -> None:
    old = {"episodes": 100, "cell_episodes": 30, "bootstrap": 2000, "scale": 500.0}
    assert GateParams.model_validate(old) == GateParams()
    assert GateParams.model_validate({**old, "episodes": 250}).episodes == 250
    crane = {"env": {"id": "mine:Crane"}, "gate": old}
    canary = {"return_low": -1.0, "return_high": 9.0}
    read = parse_params({**crane, "canary": canary}, "old.yaml")
    assert read.env.returns == Returns(low=-1.0, high=9.0)


def test_a_trial_scales_by_the_range_of_the_gate(version: EnvVersion) -> None:
    """A promise is a share of that range: two ranges gave false alarms, and clipped returns."""
    own = replace(version, named_returns=Returns(low=-200, high=300), named_failure=-100.0)
    rules = GateParams(min_return=200.0)
    for params in (
        RunParams(gate=rules),
        parse_params({"canary": {"return_low": 0.0, "return_high": 500.0}}, "of 0.2"),
        RunParams(gate=rules, canary=CanaryParams(return_low=-200)),
    ):
        found = trial_of(params.model_copy(update={"gate": rules}), own)
        assert (found.return_low, found.return_high) == (-200, 300)
    named = RunParams(gate=GateParams(return_high=400.0, min_return=200.0))
    assert trial_of(named, own).return_high == 400
    with pytest.raises(ConfigError, match=r"canary.return_high is 250, but the gate judges in"):
        trial_of(RunParams(gate=rules, canary=CanaryParams(return_high=250)), own)


def test_range_and_failure_are_the_world_s_unless_the_rules_name_them(version: EnvVersion) -> None:
    rules = resolved(GateParams(), version)
    assert (rules.return_low, rules.return_high, rules.failure_return) == (0.0, 500.0, 100.0)
    assert resolved(GateParams(failure_return=9.0), version).failure_return == 9.0


@pytest.mark.parametrize("bar", ["min_return", "min_cell_return", "failure_return"])
def test_bars_beyond_the_range_are_refused(version: EnvVersion, bar: str) -> None:
    with pytest.raises(ConfigError, match=f"gate.{bar}: 501 lies outside"):
        resolved(GateParams.model_validate({bar: 501.0}), version)


def test_a_range_whose_width_is_no_number_is_refused(version: EnvVersion) -> None:
    """Every bound would be NaN, and the verdict could not be written."""
    with pytest.raises(ConfigError, match="by less than the largest number"):
        resolved(GateParams(return_low=-1e308, return_high=1e308), version)


def test_a_world_of_which_nobody_knows_the_range_is_refused(version: EnvVersion) -> None:
    unknown = replace(version, id="mine:Crane")
    with pytest.raises(ConfigError, match=r"env\.returns"):
        resolved(GateParams(), unknown)
    named = replace(unknown, named_returns=Returns(low=0, high=500))
    with pytest.raises(ConfigError, match=r"env\.failure_return"):
        resolved(GateParams(), named)
