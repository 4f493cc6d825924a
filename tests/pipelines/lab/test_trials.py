"""Drift, order of arrival and gaps, through the code that decides real trials; small numbers."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.lab.trials.scenarios import HONEST, SCENARIOS
from pipelines.lab.trials.simulate import rules_for, summary
from serving.trial.plan import plan

TRIALS = 30


@pytest.mark.parametrize("scenario", [s for s in HONEST if s != "missing-bad"])
def test_equal_arms_are_promoted_whatever_drifts(scenario: str) -> None:
    """Of 30 trials at alpha .05 five or more aborted ones have a probability below .02."""
    found = summary(scenario, weight=0.5, trials=TRIALS, max_episodes=3000)
    assert found["aborted"] <= 4 / TRIALS
    assert found["promoted"] >= 26 / TRIALS


@pytest.mark.parametrize("scenario", ["common-drop", "common-rise", "long-bad", "short-bad"])
def test_a_canary_worse_by_the_margin_is_not_promoted(scenario: str) -> None:
    found = summary(scenario, weight=0.5, trials=TRIALS, effect=-0.05, max_episodes=1500)
    assert found["promoted"] <= 4 / TRIALS


def test_a_canary_whose_bad_episodes_are_long_is_not_promoted_by_arrival() -> None:
    """Worse by 11% with 200 clients: counted by arrival it was promoted every time."""
    found = summary("long-bad", weight=0.5, trials=20, effect=-0.11, clients=200)
    assert found["promoted"] == 0
    assert found["aborted"] == 1


def test_the_plan_is_kept() -> None:
    rules = rules_for(SCENARIOS["steady"], 0.5, 0.1)
    longest = plan(rules).equal.nine_in_ten
    found = summary("steady", weight=0.5, trials=TRIALS, max_episodes=longest)
    assert found["promoted"] >= 25 / TRIALS


def test_the_command_prints_one_object_and_the_same_one_twice() -> None:
    call = ["canary", "simulate", "--trials", "3", "--weight", "0.3", "--json"]
    first, second = (CliRunner().invoke(app, call) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.output == second.output
    found = json.loads(first.output)
    assert found["promoted"] + found["aborted"] + found["expired"] == 1
    assert found["median_episodes"] > 0


def test_liars_who_cannot_tell_the_arm_push_nothing() -> None:
    found = summary("liars-blind", weight=0.5, trials=20, effect=-0.15, max_episodes=3000)
    assert (found["promoted"], found["aborted"]) == (0, 1)


def test_liars_who_can_tell_it_push_by_their_share() -> None:
    """.8 of a loss of 10% of the range and .2 of its gain: what a fifth can do is said."""
    found = summary("liars-for", weight=0.5, trials=10, effect=-0.1, max_episodes=3000)
    assert found["promoted"] == 1
    beyond = summary("liars-for", weight=0.5, trials=10, effect=-0.4, max_episodes=3000)
    assert beyond["promoted"] == 0


def test_liars_by_one_token_push_by_its_share_alone() -> None:
    """.8 of the loss, and 5% of gain at most: what is beyond the token's share is missing."""
    found = summary("liars-capped", weight=0.5, trials=5, effect=-0.2, max_episodes=1500)
    assert found["promoted"] == 0
    free = summary("liars-for", weight=0.5, trials=5, effect=-0.2, max_episodes=1500)
    assert free["promoted"] == 1
