"""A fresh champion's window: by the history alone, ended by harm, by time or by a person, once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from serving.control.window import Window
from serving.registry import schema
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import CHAMPION_ARM, HELD_ARM, Start, Who
from serving.registry.rules import DeploymentRules, HoldbackTerms, WatchTerms
from serving.registry.states import State
from srghn.errors import LedgerError, TransitionRefused

BOTH_DATABASES = True
ANN = Who("ann", "because")


def fresh(ledger: Ledger, steps: Any, **terms: Any) -> int:
    """A second champion, in its window."""
    rules = DeploymentRules(holdback=HoldbackTerms(**terms))
    ledger.set_deployment_rules(rules, who=ANN)
    steps.first()
    version: int = steps.second()
    return version


def play(ledger: Ledger, count: int, champion: float, predecessor: float, seed: int = 0) -> None:
    """Episodes of a window with their outcomes, a share held back."""
    window = ledger.holdback()
    assert window is not None
    rng, now = np.random.default_rng(seed), time.time()
    starts, values = [], []
    for n in range(count):
        held = rng.random() < window.share
        arm, version = (HELD_ARM, window.predecessor) if held else (CHAMPION_ARM, window.version)
        name = f"held-{seed}-{n}"
        starts.append(
            Start(name, version, arm, window.share, window.epoch, 2, now, now + 9, POLICY)
        )
        values.append((predecessor if held else champion) + float(rng.uniform(-25, 25)))
    ledger.start_episodes(starts)
    for start, value in zip(starts, values, strict=True):
        ledger.record_outcome(POLICY, start.episode, value, 10, True)


def test_a_promotion_begins_a_window_where_the_rules_say_so(ledger: Ledger, steps: Any) -> None:
    version = fresh(ledger, steps, share=0.2, hours=2)
    window = ledger.holdback()
    assert window is not None
    assert (window.version, window.predecessor, window.share) == (version, 1, 0.2)
    assert window.rules.margin == 0.05
    assert window.rules.steps[0].weight == pytest.approx(0.8)
    assert 7100 < window.until - time.time() < 7300
    assert ledger.events()[-2].seq == window.epoch or ledger.events()[-1].seq == window.epoch
    ledger.verify()
    ledger.verify_served()


def test_without_the_rule_and_for_the_first_champion_there_is_none(
    ledger: Ledger, steps: Any
) -> None:
    ledger.set_deployment_rules(DeploymentRules(holdback=HoldbackTerms()), who=ANN)
    steps.first()
    assert ledger.holdback() is None
    ledger.set_deployment_rules(DeploymentRules(watch=WatchTerms(margin=0.1)), who=ANN)
    steps.second()
    assert ledger.holdback() is None


def test_harm_brings_the_predecessor_back_once(ledger: Ledger, steps: Any) -> None:
    version = fresh(ledger, steps, share=0.3)
    with pytest.raises(TransitionRefused, match="does not show that version 2 is worse"):
        ledger.rollback_held(who=ANN)
    play(ledger, 200, champion=100.0, predecessor=400.0)
    back = ledger.rollback_held(who=Who("holdback", "it is worse"))
    assert (back.version, back.generation) == (1, 3)
    gone = ledger.version(version)
    assert (gone.state, gone.quarantined) == (State.RETIRED, True)
    events = [event for event in ledger.events() if event.action == "rollback_by_holdback"]
    assert [event.to_state for event in events] == ["RETIRED", "CHAMPION"]
    said = ledger.evidence(str(events[-1].evidence_sha256))
    assert (said["from"], said["to"], said["decision"]["action"]) == (version, 1, "abort")
    assert ledger.holdback() is None
    with pytest.raises(TransitionRefused, match="no champion is in its window"):
        ledger.rollback_held(who=ANN)
    ledger.verify()
    ledger.verify_served()


def test_harm_brings_the_predecessor_back_from_another_environment(
    ledger: Ledger, steps: Any
) -> None:
    """It answers its share in the present one; for a person it stays refused."""
    rules = DeploymentRules(holdback=HoldbackTerms(share=0.3))
    ledger.set_deployment_rules(rules, who=ANN)
    first, second = steps.first(), steps.second(fingerprint="f" * 64)
    play(ledger, 200, champion=100.0, predecessor=400.0)
    with pytest.raises(TransitionRefused, match="in the current environment"):
        ledger.rollback(who=ANN)
    assert Window(ledger).judge()
    assert ledger.champion().version == first  # type: ignore[union-attr]
    assert ledger.version(second).quarantined
    assert ledger.holdback() is None
    ledger.verify()
    ledger.verify_served()


def test_a_window_whose_rollback_is_refused_ends_by_its_time(
    ledger: Ledger, steps: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fresh(ledger, steps, share=0.3)
    play(ledger, 200, champion=100.0, predecessor=400.0)

    def refused(**_: Any) -> None:
        raise TransitionRefused("it cannot come back")

    monkeypatch.setattr(ledger, "rollback_held", refused)
    window = ledger.holdback()
    assert window is not None
    clock = [window.until - 1]
    judges = Window(ledger, clock=lambda: clock[0])
    assert not judges.judge()
    assert ledger.holdback() is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the holdback did not roll back: it cannot come back" in caplog.text
    clock[0] = window.until
    assert judges.judge()
    assert ledger.holdback() is None
    assert "harm was shown, but the rollback was refused" in ledger.events()[-1].reason


def test_a_common_fall_is_no_harm(ledger: Ledger, steps: Any) -> None:
    fresh(ledger, steps, share=0.3)
    play(ledger, 150, champion=400.0, predecessor=400.0)
    play(ledger, 150, champion=50.0, predecessor=50.0, seed=1)
    with pytest.raises(TransitionRefused, match="does not show"):
        ledger.rollback_held(who=ANN)


def test_a_person_ends_the_window_and_a_trial_waits_for_its_end(ledger: Ledger, steps: Any) -> None:
    fresh(ledger, steps)
    version = steps.approved()
    with pytest.raises(TransitionRefused, match="version 2 is in its window: 10% of episodes"):
        steps.canary(version)
    ledger.end_holdback(who=Who("ann", "seen enough"))
    assert ledger.holdback() is None
    with pytest.raises(TransitionRefused, match="nothing to end"):
        ledger.end_holdback(who=ANN)
    steps.canary(version)
    ledger.verify()


def test_a_rollback_by_hand_and_a_revoked_predecessor_end_it(ledger: Ledger, steps: Any) -> None:
    fresh(ledger, steps)
    ledger.rollback(who=ANN)
    assert ledger.holdback() is None
    steps.second()
    assert ledger.holdback() is not None
    ledger.revoke(1, who=ANN)
    assert ledger.holdback() is None


def test_a_window_is_not_made_by_hand(ledger: Ledger, steps: Any) -> None:
    """Its rules are evidence of a hash-chained event: a changed one is refused."""
    fresh(ledger, steps)
    window = ledger.holdback()
    assert window is not None
    with ledger._database.write() as connection:
        schema.unguard(connection)
        connection.exec_driver_sql(
            "UPDATE evidence SET body = replace(body, '\"share\":0.1', '\"share\":0.9') WHERE "
            f"sha256 = (SELECT evidence_sha256 FROM events WHERE seq = {window.epoch})"
        )
        schema.guard(connection)
    for look in (ledger.holdback, ledger.verify, ledger.verify_served):
        with pytest.raises(LedgerError, match="evidence"):
            look()
