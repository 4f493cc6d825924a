"""The planned bet decides soonest, and the formula says how soon: held against simulations."""

from __future__ import annotations

import numpy as np
import pytest

from serving.trial.bets import LARGEST, NINE_IN_TEN, Expected, bets_of, episodes, planned_bet
from serving.trial.decision import advance
from serving.trial.evidence import Log, begin
from serving.trial.rules import TrialRules, WeightStep

WIDE = TrialRules(low=0, high=1, deviation=0.2, steps=(WeightStep(weight=0.5, outcomes=20),))


def test_no_other_bet_decides_nine_of_ten_sooner() -> None:
    expected = Expected(WIDE.weight, WIDE.deviation, WIDE.missing)
    bets = np.array([planned_bet(WIDE), 0.2, 0.3, 0.6, 0.8])
    taken = episodes(expected, bets, WIDE.margin, WIDE.alpha, z=NINE_IN_TEN)
    assert taken.argmin() == 0


def test_a_bet_that_loses_never_decides() -> None:
    wild = Expected(weight=0.5, deviation=0.5, missing=0.3)
    assert np.isinf(episodes(wild, np.array([LARGEST]), 0.05, 0.05, z=0.0)[0])


@pytest.mark.parametrize("missing", [0.0, 0.05])
def test_the_formula_is_what_trials_take(missing: float) -> None:
    """120 trials of equal arms: the formula's ninth decile lies within a fourth of theirs."""
    rules = WIDE.model_copy(update={"missing": missing, "max_episodes": 6000})
    rng, taken = np.random.default_rng(0), []
    for _ in range(120):
        values = np.clip(rng.normal(0.5, 0.2, 3000), 0, 1)
        values[rng.random(3000) < missing] = np.nan
        log = Log((rng.random(3000) < 0.5).astype(np.int8), np.full(3000, 0.5), values)
        taken.append(advance(begin(rules), log, rules)[1].episodes)
    expected = Expected(0.5, 0.2, missing)
    bet = np.array([planned_bet(rules)])
    said = episodes(expected, bet, rules.margin, rules.alpha, z=NINE_IN_TEN)[0]
    assert 0.75 < np.quantile(taken, 0.9) / said < 1.25


def test_every_bet_leaves_something_and_the_shares_are_all_of_the_capital() -> None:
    for rules in (WIDE, TrialRules(), TrialRules(missing=0.3, deviation=0.5)):
        for mixture in (bets_of(rules).promote, bets_of(rules).harm):
            assert 0 < mixture.bets.min() <= mixture.bets.max() <= LARGEST
            assert mixture.shares.sum() == pytest.approx(1)
