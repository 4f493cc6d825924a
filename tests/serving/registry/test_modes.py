"""A verdict holds for the mode in which it was judged: another served mode makes it stale."""

from __future__ import annotations

from typing import Any

import pytest

from serving.registry.ledger import Ledger
from serving.registry.records import Who
from serving.registry.schema import POLICY
from srghn.errors import TransitionRefused

ANN = Who("ann", "the motors were rewired")


def passed(steps: Any, word: str = "passed") -> int:
    version: int = steps.register()
    steps.begin(version)
    steps.judge(version, word)
    return version


def said(ledger: Ledger, version: int) -> tuple[str, str, str]:
    event = ledger.events(version, newest=True, limit=1)[0]
    return event.action, event.actor, event.reason


def test_what_passed_in_another_mode_is_stale_whatever_became_of_it(
    ledger: Ledger, steps: Any
) -> None:
    steps.first()
    waiting, approved, tried = passed(steps), steps.approved(), steps.approved()
    failed = passed(steps, "failed")
    steps.canary(tried)
    ledger.set_mode(POLICY, "flipped", who=ANN)
    assert {str(ledger.version(v).state) for v in (waiting, approved, tried)} == {"STALE"}
    assert ledger.version(failed).state == "FAILED"
    assert ledger.canary() is None
    why = "the served mode changed from normal and is now flipped, it passed in mode normal"
    assert said(ledger, waiting) == ("outdate", "ledger", why)
    with pytest.raises(TransitionRefused, match="is STALE and cannot become APPROVED"):
        steps.approve(waiting)
    steps.begin(waiting)
    assert steps.verdict(waiting)["mode"] == "flipped"
    assert steps.judge(waiting) == "PASSED"
    assert ledger.verify() == ledger.count()


def test_the_same_mode_once_more_changes_nothing(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = passed(steps)
    ledger.set_mode(POLICY, "normal", who=ANN)
    assert ledger.version(version).state == "PASSED"


def test_another_policys_mode_is_none_of_this_ones(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = passed(steps)
    ledger.add_policy("other", who=ANN)
    ledger.set_mode("other", "flipped", who=ANN)
    assert ledger.version(version).state == "PASSED"


def test_an_evaluation_in_the_former_mode_is_cut_off_and_its_verdict_refused_in_words(
    ledger: Ledger, steps: Any
) -> None:
    steps.first()
    version = steps.register()
    lease = steps.begin(version).lease
    verdict = steps.verdict(version)
    ledger.set_mode(POLICY, "flipped", who=ANN)
    assert ledger.version(version).state == "ERROR"
    page = steps.report(version, verdict)
    with pytest.raises(TransitionRefused) as refused:
        ledger.record_verdict(
            version, verdict, report_path=page, report_digest=page.parent.name, who=ANN
        )
    assert str(refused.value) == (
        f"version {version} is ERROR: the served mode changed from normal and is now flipped, its "
        f"evaluation was in mode normal, so this verdict no longer holds; judge it again: srghn "
        f"gate {version}"
    )
    again = steps.resume(version)  # nobody has seen its results: the same attempt, the new mode
    assert (again.attempt, again.lease) == (1, lease)
    assert ledger.leased_mode(version) == "flipped"
    assert steps.judge(version) == "PASSED"
    assert ledger.verify() == ledger.count()


def test_a_recall_holds_for_its_own_mode(ledger: Ledger, steps: Any) -> None:
    """It is made for the mode that comes; promoted, it says that the mode has come."""
    first = steps.first()
    steps.second()
    ledger.set_mode(POLICY, "flipped", who=ANN)
    recalled = ledger.recall(first, env_fingerprint="e" * 64, mode="normal", who=ANN)
    steps.begin(recalled)
    assert steps.judge(recalled) == "PASSED"
    steps.approve(recalled)
    steps.canary(recalled)
    steps.play(ledger.canary(), 10.0, 490.0, 12)
    champion = ledger.champion()
    assert champion is not None
    ledger.promote(recalled, expected_generation=champion.generation, who=ANN)
    assert ledger.service_mode() == "normal"
    assert ledger.verify() == ledger.count()


def test_a_recall_for_another_mode_than_the_one_that_came_is_stale(
    ledger: Ledger, steps: Any
) -> None:
    first = steps.first()
    steps.second()
    recalled = ledger.recall(first, env_fingerprint="e" * 64, mode="flipped", who=ANN)
    steps.begin(recalled)
    steps.judge(recalled)
    ledger.set_mode(POLICY, "flipped", who=ANN)
    assert ledger.version(recalled).state == "PASSED"
    ledger.set_mode(POLICY, "icy", who=ANN)
    assert ledger.version(recalled).state == "STALE"


def test_a_first_candidate_is_judged_in_the_mode_that_was_set(ledger: Ledger, steps: Any) -> None:
    version = passed(steps)
    assert ledger.leased_mode(version) == "normal"
    ledger.set_mode(POLICY, "flipped", who=ANN)
    assert said(ledger, version)[2] == "the served mode is now flipped, it passed in mode normal"
    steps.begin(version)
    assert ledger.leased_mode(version) == "flipped"


def test_a_successor_with_other_observations_is_judged_in_its_own_mode(
    ledger: Ledger, steps: Any
) -> None:
    steps.first(manifest={"interface": {"observation_size": 4}})
    version = steps.register(manifest={"interface": {"observation_size": 5}, "successor": True})
    steps.begin(version, incumbent_digest=None)
    steps.judge(version)
    ledger.set_mode(POLICY, "flipped", who=ANN)
    assert ledger.version(version).state == "PASSED"
