"""A trial is decided by its log in order of start, and drift, gaps and looks change nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.trial.decision import advance, decide, exposed, weight_now
from serving.trial.evidence import Log, TrialState, begin, effect_bounds
from serving.trial.rules import TrialRules, WeightStep
from srghn.inference.spending import spent

RULES = TrialRules(low=0, high=1, steps=(WeightStep(weight=0.5, outcomes=20),))


def log(n: int, canary: float, champion: float = 0.6, seed: int = 0, weight: float = 0.5) -> Log:
    rng = np.random.default_rng(seed)
    arms = (rng.random(n) < weight).astype(np.int8)
    values = np.where(arms == 1, canary, champion) + rng.uniform(-0.1, 0.1, n)
    return Log(arms, np.full(n, weight), np.clip(values, 0, 1))


def posted(log: Log, *posters: str | None) -> Log:
    """The same, posted by these in turn."""
    return replace(log, posters=tuple(posters[i % len(posters)] for i in range(len(log))))


def test_better_and_equal_canaries_are_promoted_and_a_worse_one_is_aborted() -> None:
    for canary, action in ((0.75, "promote"), (0.6, "promote"), (0.4, "abort")):
        state, decision = advance(begin(RULES), log(2000, canary), RULES)
        assert decision.action == action, decision.reason
        assert state.episodes == decision.episodes < 600


def test_a_share_of_alpha_is_of_promotions_alone() -> None:
    tenth = RULES.model_copy(update={"promote_share": 0.1})
    later, usual = (advance(begin(r), log(2000, 0.62), r)[1] for r in (tenth, RULES))
    assert later.episodes > usual.episodes
    assert later.promote >= later.promote_needed == pytest.approx(200)
    assert usual.promote_needed == usual.needed == later.needed == pytest.approx(20)
    harmed = [advance(begin(r), log(400, 0.5), r)[1] for r in (tenth, RULES)]
    assert [(one.action, one.episodes) for one in harmed] == [("abort", 64)] * 2


def test_spending_holds_over_a_stream_of_candidates_where_the_whole_alpha_does_not() -> None:
    """Ten candidates worse by the margin after each other: in how many streams any wins."""
    rng, streams, wins = np.random.default_rng(0), 30, {"none": 0, "candidates": 0}
    short = RULES.model_copy(update={"max_episodes": 300, "alpha": 0.2})
    for _ in range(streams):
        won = dict.fromkeys(wins, False)
        for tried in range(10):
            arms = (rng.random(300) < 0.5).astype(np.int8)
            values = 0.5 - 0.05 * arms + 0.1 * rng.choice([-1, 1], 300)
            for spending, share in (("none", 1.0), ("candidates", spent(tried))):
                rules = short.model_copy(update={"promote_share": share})
                full = Log(arms, np.full(300, 0.5), values)
                won[spending] |= advance(begin(rules), full, rules)[1].action == "promote"
        wins = {spending: wins[spending] + won[spending] for spending in wins}
    assert wins["candidates"] <= 0.2 * streams < 0.4 * streams < wins["none"]


def test_nothing_and_little_are_no_evidence() -> None:
    assert decide(begin(RULES), RULES).action == "wait"
    _, decision = advance(begin(RULES), log(15, 1.0, 0.0), RULES)
    assert decision.action == "wait"
    assert "20 are needed" in decision.reason


def test_harm_needs_no_minimum() -> None:
    _, decision = advance(begin(RULES), log(40, 0.0, 0.9), RULES)
    assert decision.action == "abort"
    assert decision.canary["episodes"] < 20


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=12),
    st.integers(0, 5),
    st.sampled_from([1.0, 0.3, 0.05]),
)
def test_how_the_log_is_cut_changes_no_byte(cuts: list[int], seed: int, share: float) -> None:
    rules = RULES.model_copy(update={"poster_share": share})
    full = posted(log(300, 0.55, seed=seed), *"aaaabc", None)
    whole, decision = advance(begin(rules), full, rules)
    state, found, at = begin(rules), None, 0
    for cut in [*cuts, 300]:
        state, found = advance(state, full[at : at + cut], rules)
        if found.action != "wait":
            break
        at += cut
    assert found == decision
    assert state.to_json() == whole.to_json()


def test_a_state_survives_the_ledger() -> None:
    state, _ = advance(begin(RULES), log(30, 0.6), RULES)
    back = TrialState.from_json(json.loads(json.dumps(state.to_json())))
    assert back.to_json() == state.to_json()
    assert advance(back, log(99, 0.6), RULES)[1] == advance(state, log(99, 0.6), RULES)[1]


def test_an_undecided_trial_expires_and_resumes_with_its_capital() -> None:
    short = RULES.model_copy(update={"max_episodes": 60})
    state, decision = advance(begin(short), log(60, 0.58, seed=3), short)
    assert decision.action == "expire"
    again = state.retry(short)
    assert decide(state, short).action == "expire"
    assert decide(again, short).action == "wait"
    resumed, decision = advance(again, log(60, 0.58, seed=4), short)
    assert resumed.episodes == 120
    assert decision.action == "expire"
    whole = short.model_copy(update={"max_episodes": 4000})
    once, _ = advance(state, log(60, 0.58, seed=4), whole)
    assert resumed.promote.tobytes() == once.promote.tobytes()


@pytest.mark.parametrize("guard", ["ratio", "missing"])
def test_a_guard_that_broke_once_stops_no_later_trial(guard: str) -> None:
    """Its capital may never fall again, so each later trial expired. The harm seen stays."""
    short = RULES.model_copy(update={"max_episodes": 60})
    good = log(60, 0.75)
    gone = replace(good, values=np.where(good.arms == 1, np.nan, good.values))
    skewed = replace(good, arms=np.ones_like(good.arms))
    broke, decision = advance(begin(short), gone if guard == "missing" else skewed, short)
    assert (decision.action, getattr(decision, guard) >= decision.guard_needed) == ("expire", True)
    again = broke.retry(short)
    assert decide(again, short).promote <= 1
    assert decide(again, short).harm == decision.harm
    longer = short.model_copy(update={"max_episodes": 1000})
    assert advance(again, log(1000, 0.65, seed=5), longer)[1].action == "promote"
    if guard == "missing":  # where none is missing any more, no episode moves it
        kept = replace(broke, since=broke.episodes)
        assert advance(kept, log(1000, 0.65, seed=5), longer)[1].action == "expire"
    poor, _ = advance(begin(short), replace(gone, arms=1 - good.arms), short)
    assert (poor.promote < 0).any()
    assert (poor.retry(short).promote <= np.minimum(poor.promote, 0)).all()  # no loss is forgiven


def test_what_is_decided_counts_no_further() -> None:
    """A trial that is held keeps its evidence up to the decision, whatever comes later."""
    decided, first = advance(begin(RULES), log(2000, 0.75), RULES)
    assert first.action == "promote"
    assert decided.episodes < 2000
    assert advance(decided, log(2000, 0.2, seed=5), RULES) == (decided, first)


def test_missing_outcomes_must_not_matter_either_way() -> None:
    """Half of the outcomes missing in both arms: far more episodes, and never a wrong promotion."""
    whole = log(6000, 0.6)
    values = np.where(np.random.default_rng(1).random(6000) < 0.2, np.nan, whole.values)
    gaps = replace(whole, values=values)
    rules = RULES.model_copy(update={"max_episodes": 10_000, "missing": 0.2})
    with_gaps, without = (
        advance(begin(rules), gaps, rules)[1],
        advance(begin(rules), whole, rules)[1],
    )
    assert without.action == with_gaps.action == "promote"
    assert with_gaps.episodes > without.episodes


@pytest.mark.parametrize("canary", [0.4, 0.2])
def test_a_burst_of_starts_by_one_token_decides_no_trial(canary: float) -> None:
    """It begins its episodes in a row, and posts when many outcomes of others have arrived."""
    rules = RULES.model_copy(update={"poster_share": 0.05})
    full = posted(log(1400, canary), *(f"client {n}" for n in range(50)))
    burst = slice(5, 65)
    values, posters = full.values.copy(), list(full.posters)
    values[burst] = full.arms[burst]  # the best return for the canary, the worst for the champion
    posters[burst] = ["liar"] * 60
    state, decision = advance(
        begin(rules), replace(full, values=values, posters=tuple(posters)), rules
    )
    assert decision.action == "abort", decision.reason
    assert state.posted["liar"] <= 0.05 * state.outcomes + 1
    uncapped = replace(full, values=values, posters=())
    assert advance(begin(rules), uncapped, rules)[1].action == "promote"


def test_one_token_alone_ends_no_trial() -> None:
    """Neither by harm, which needs no minimum where tokens have no cap, nor as the first."""
    lies = log(500, 0.6)
    lies = posted(replace(lies, values=1.0 - lies.arms), "liar")
    assert advance(begin(RULES), lies, RULES)[1].episodes < 20
    rules = RULES.model_copy(update={"poster_share": 0.3})
    state, decision = advance(begin(rules), lies, rules)
    assert (decision.action, state.outcomes) == ("wait", 6)
    assert "no token may give more than 30% of them" in decision.reason


def test_tokens_at_their_cap_go_on_in_turn() -> None:
    rules = RULES.model_copy(update={"poster_share": 0.25, "margin": 0.001})
    state, _ = advance(begin(rules), posted(log(400, 0.6), *"abcd"), rules)
    assert state.posted == dict.fromkeys("abcd", 100)


@pytest.mark.parametrize(("effect", "missing"), [(-0.12, 0.7), (-0.3, 0.9)])
def test_episodes_that_nobody_ends_do_not_widen_the_accepted_loss(
    effect: float, missing: float
) -> None:
    rules = RULES.model_copy(update={"margin": 0.1, "max_episodes": 6000, "missing": missing})
    found = []
    for seed in range(20):
        full = log(6000, 0.6 + effect, seed=seed)
        gone = np.random.default_rng(seed + 100).random(6000) < missing
        values = np.where(gone, np.nan, full.values)
        found.append(advance(begin(rules), replace(full, values=values), rules)[1].action)
    assert found.count("promote") <= 2, found


def test_outcomes_that_go_missing_in_one_arm_stop_a_promotion() -> None:
    """The canary's bad episodes are never reported: by what is left it looks equal."""
    whole = log(3000, 0.6)
    hidden = (whole.arms == 1) & (np.random.default_rng(2).random(3000) < 0.1)
    gaps = replace(whole, values=np.where(hidden, np.nan, whole.values))
    rules = RULES.model_copy(update={"max_episodes": 3000})
    _, decision = advance(begin(rules), gaps, rules)
    assert decision.action == "expire"
    assert "missing more often in one arm" in decision.reason


def test_arms_that_do_not_follow_their_weights_stop_a_promotion() -> None:
    chosen = log(3000, 0.6, weight=0.3)
    claimed = Log(chosen.arms, np.full(3000, 0.5), chosen.values)
    rules = RULES.model_copy(update={"max_episodes": 3000})
    _, decision = advance(begin(rules), claimed, rules)
    assert decision.action == "expire"
    assert "as their weights say" in decision.reason


def test_strict_missing_never_promotes_where_gaps_could_hide_harm() -> None:
    whole = log(3000, 0.6)
    gaps = replace(
        whole,
        values=np.where(np.random.default_rng(1).random(3000) < 0.1, np.nan, whole.values),
    )
    strict = RULES.model_copy(update={"strict_missing": True, "max_episodes": 3000})
    assert advance(begin(strict), gaps, strict)[1].action == "expire"
    assert advance(begin(RULES), gaps, RULES)[1].action == "promote"


def test_weights_rise_by_the_outcomes_of_the_canary() -> None:
    steps = (WeightStep(weight=0.05, outcomes=2), WeightStep(weight=0.5, outcomes=20))
    rules = RULES.model_copy(update={"steps": steps})
    state = begin(rules)
    assert weight_now(state, rules) == 0.05
    state, _ = advance(state, log(8, 0.6), rules)
    assert state.canary.outcomes >= 2
    assert weight_now(state, rules) == 0.5
    assert not exposed(state, rules)


def test_bounds_hold_the_effect_and_close_in() -> None:
    few, many = effect_bounds(log(50, 0.7), RULES), effect_bounds(log(2000, 0.7), RULES)
    assert few[0] < many[0] < 0.1 < many[1] < few[1]
    assert effect_bounds(log(0, 0.7), RULES) == (-1.0, 1.0)
    shared = RULES.model_copy(update={"promote_share": 0.1})
    sure = effect_bounds(log(50, 0.7), shared)
    assert (sure[0] < few[0], sure[1]) == (True, few[1])  # as a promotion, not as an abort


@pytest.mark.parametrize(
    "bad", [{"values": np.array([1.2])}, {"weights": np.array([1.0])}, {"arms": np.zeros(2)}]
)
def test_a_log_that_is_none_is_refused(bad: dict[str, np.ndarray]) -> None:
    good = {"arms": np.zeros(1, np.int8), "weights": np.array([0.5]), "values": np.array([0.5])}
    Log(**good)
    with pytest.raises(ValueError, match="must"):
        Log(**{**good, **bad})
