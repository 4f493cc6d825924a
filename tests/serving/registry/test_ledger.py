"""The state machine's guards: each allowed step works, each forbidden one is refused."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from serving.registry.ledger import Ledger
from serving.registry.records import Who
from serving.registry.rules import DeploymentRules
from serving.registry.states import State
from srghn.errors import LedgerError, StaleGeneration, TransitionRefused

BOTH_DATABASES = True
WHO = Who("pipeline", "at work")


def test_a_version_goes_from_registration_to_champion(ledger: Ledger, steps: Any) -> None:
    assert ledger.champion() is None
    version = steps.first()
    champion = ledger.champion()
    assert champion is not None
    assert (champion.version, champion.generation, champion.by) == (version, 1, "ann")
    path = [event.to_state for event in ledger.events(version)]
    assert path == ["REGISTERED", "EVALUATING", "PASSED", "APPROVED", "CHAMPION"]
    assert ledger.verify() == 5


def test_registering_a_digest_again_keeps_its_version(ledger: Ledger, steps: Any) -> None:
    assert steps.register("a" * 64) == steps.register("a" * 64) == 1
    assert len(ledger.versions()) == 1


def test_a_version_that_did_not_pass_cannot_be_promoted(ledger: Ledger, steps: Any) -> None:
    version = steps.register()
    with pytest.raises(TransitionRefused, match="REGISTERED and cannot become CHAMPION"):
        ledger.promote(version, expected_generation=0, who=Who("ann", "no"))
    steps.begin(version)
    assert steps.judge(version, "failed") is State.FAILED
    with pytest.raises(TransitionRefused, match="FAILED"):
        steps.approve(version)
    with pytest.raises(TransitionRefused, match="FAILED"):
        steps.begin(version)
    assert ledger.champion() is None
    assert ledger.verify() == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("candidate_digest", "0" * 64),
        ("env_fingerprint", "0" * 64),
        ("mode", "flipped"),
        ("suite_version", "2"),
        ("policy_digest", "0" * 64),
        ("incumbent_digest", "0" * 64),
        ("attempt", 2),
    ],
)
def test_a_pass_holds_only_for_its_tuple(steps: Any, key: str, value: Any) -> None:
    version = steps.register()
    steps.begin(version)
    with pytest.raises(TransitionRefused, match=key):
        steps.judge(version, **{key: value})


def test_a_pass_must_show_something(steps: Any) -> None:
    version = steps.register()
    steps.begin(version)
    with pytest.raises(TransitionRefused, match="contradicts itself"):
        steps.judge(version, checks=[])
    with pytest.raises(TransitionRefused, match="a verdict is one of"):
        steps.judge(version, "excellent")
    with pytest.raises(ValueError, match="not JSON compliant"):
        steps.judge(version, checks=[{"value": float("nan")}])


def test_a_verdict_names_the_report_that_lies_there(steps: Any, tmp_path: Path) -> None:
    version = steps.register()
    steps.begin(version)
    with pytest.raises(TransitionRefused, match="the verdict names report 0000"):
        steps.judge(version, report_digest="0" * 64)
    with pytest.raises(TransitionRefused, match="cannot be read"):
        steps.judge(version, report=tmp_path / "none.html")
    (tmp_path / "other.html").write_text("<p>bad</p>")
    with pytest.raises(TransitionRefused, match="judge the version again"):
        steps.judge(version, report=tmp_path / "other.html")


def test_attempts_are_bounded(steps: Any) -> None:
    version = steps.register()
    for attempt in (1, 2, 3):
        assert steps.begin(version).attempt == attempt
        steps.judge(version, "inconclusive")
    with pytest.raises(TransitionRefused, match="evaluated 3 times"):
        steps.begin(version)


def test_only_one_evaluation_holds_the_lease(steps: Any) -> None:
    version = steps.register()
    steps.begin(version)
    with pytest.raises(TransitionRefused, match=r"holds the lease.*--resume run resumes it"):
        steps.begin(version)


def test_a_cut_off_evaluation_goes_on_as_the_same_attempt(ledger: Ledger, steps: Any) -> None:
    version = steps.register()
    steps.begin(version)
    events = ledger.events()
    assert steps.resume(version).attempt == 1
    assert ledger.events() == events  # its lease is longer, and nothing else happened
    assert steps.judge(version) is State.PASSED
    with pytest.raises(TransitionRefused, match="attempt 1 of version 1 is over"):
        steps.resume(version)


def test_after_a_cut_the_verdict_is_against_the_champion_of_now(ledger: Ledger, steps: Any) -> None:
    version = steps.register()
    steps.begin(version)
    old = steps.verdict(version)
    champion = steps.first()
    with pytest.raises(TransitionRefused, match="judge it against that one"):
        steps.resume(version, incumbent_digest=None)
    evaluation = steps.resume(version)
    assert (evaluation.attempt, evaluation.incumbent_generation) == (1, 1)
    assert evaluation.incumbent_digest == ledger.version(champion).digest
    with pytest.raises(TransitionRefused, match="incumbent_digest should be"):
        steps.judge(version, incumbent_digest=old["incumbent_digest"])
    assert steps.judge(version) is State.PASSED
    path = [event.to_state for event in ledger.events(version)]
    assert path == ["REGISTERED", "EVALUATING", "ERROR", "EVALUATING", "PASSED"]
    ledger.verify()


def test_the_same_champion_of_a_later_generation_is_another_one(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = steps.register()
    steps.begin(version)
    steps.second()
    ledger.rollback(who=Who("ann", "back to the first"))
    assert steps.resume(version).incumbent_generation == 3
    assert steps.judge(version) is State.PASSED


@pytest.mark.parametrize("changed", [{"suite_version": "2"}, {"policy_digest": "q" * 64}])
def test_after_a_cut_the_verdict_is_by_the_rules_of_now(
    ledger: Ledger, steps: Any, changed: dict[str, str]
) -> None:
    version = steps.register()
    steps.begin(version)
    steps.resume(version, **changed)
    assert vars(ledger.version(version)).items() >= changed.items()
    assert [event.action for event in ledger.events(version)][-2:] == [
        "cut_off",
        "resume_evaluation",
    ]


def test_being_cut_off_uses_no_attempt_up_and_an_old_attempt_never_goes_on(steps: Any) -> None:
    version = steps.register()
    steps.begin(version)
    for rules in "abcd":
        steps.resume(version, policy_digest=rules * 64)
    steps.judge(version, "inconclusive")
    steps.begin(version)
    with pytest.raises(TransitionRefused, match="EVALUATING after attempt 2"):
        steps.resume(version, attempt=1)
    steps.judge(version, "error")
    with pytest.raises(TransitionRefused, match="ERROR after attempt 2"):
        steps.resume(version)


def test_an_expired_lease_is_an_error(tmp_path: Any, steps: Any) -> None:
    now = [1000.0]
    ledger = Ledger(f"sqlite:///{tmp_path / 'l.db'}", clock=lambda: now[0])
    steps = type(steps)(ledger)
    version = steps.register()
    steps.begin(version, lease_seconds=10)
    now[0] = 1009
    steps.resume(version, lease_seconds=10)
    now[0] = 1018
    assert ledger.expire() == []
    now[0] = 1020
    assert ledger.expire() == [version]
    assert ledger.version(version).state is State.ERROR
    assert steps.resume(version, lease_seconds=10).attempt == 1
    now[0] = 1031
    assert steps.begin(version).attempt == 2
    assert steps.judge(version) is State.PASSED
    now[0] += 31 * 24 * 3600
    with pytest.raises(TransitionRefused, match="STALE"):
        steps.approve(version)
    ledger.close()


def test_a_verdict_after_its_lease_ran_out_is_recorded_if_nothing_changed(
    ledger: Ledger, steps: Any
) -> None:
    """The host slept, or another host's clock is an hour ahead."""
    version, ahead = steps.register(), ahead_of(ledger)
    steps.begin(version)
    assert ahead.expire() == [version]
    assert steps.judge(version) is State.PASSED
    moves = [(event.action, event.to_state) for event in ledger.events(version)]
    assert moves[2:] == [
        ("expire", "ERROR"), ("resume_evaluation", "EVALUATING"), ("record_verdict", "PASSED")
    ]  # fmt: skip
    ledger.verify()


def test_a_lease_that_ran_out_is_renewed_for_its_own_attempt_alone(
    ledger: Ledger, steps: Any
) -> None:
    version, ahead = steps.register(), ahead_of(ledger)
    steps.begin(version)
    ahead.expire()
    ledger.renew_evaluation(version, attempt=1, who=WHO, lease_seconds=9000)
    assert ledger.version(version).state is State.EVALUATING
    assert ahead.expire() == []
    ledger.renew_evaluation(version, attempt=1, who=WHO)
    assert ahead.expire() == [version]
    steps.begin(version)
    ahead.expire()
    ledger.renew_evaluation(version, attempt=1, who=WHO)
    assert ledger.version(version).state is State.ERROR


@pytest.mark.parametrize("changed", ["champion", "mode", "judged"])
def test_a_lease_that_ran_out_is_not_taken_again_for_another_tuple(
    ledger: Ledger, steps: Any, changed: str
) -> None:
    version = steps.register()
    steps.begin(version)
    if changed == "judged":
        steps.judge(version, "error")
    else:
        ahead_of(ledger).expire()
    if changed == "champion":
        steps.first()
    if changed == "mode":
        ledger.set_mode("policy", "flipped", who=WHO)
    ledger.renew_evaluation(version, attempt=1, who=WHO)
    with pytest.raises(TransitionRefused, match="no evaluation holds its lease"):
        steps.judge(version)
    assert ledger.version(version).state is State.ERROR


@pytest.mark.parametrize("way", ["resume", "verdict"])
@pytest.mark.parametrize("late", [True, False])
def test_an_evaluation_does_not_pass_after_a_copy_of_its_genome_failed(
    ledger: Ledger, steps: Any, way: str, late: bool
) -> None:
    genome = {"genome_digest": "a" * 64}
    version, copy = (steps.register(manifest=genome | {"n": n}) for n in (1, 2))
    steps.begin(version)
    steps.begin(copy)
    steps.judge(copy, "failed")
    if late:
        assert ahead_of(ledger).expire() == [version]
    with pytest.raises(TransitionRefused, match=f"has the genome of version {copy}"):
        steps.resume(version) if way == "resume" else steps.judge(version)
    assert ledger.version(version).state is (State.ERROR if late else State.EVALUATING)


def ahead_of(ledger: Ledger) -> Ledger:
    """The same ledger on a host whose clock is 61 minutes ahead."""
    return Ledger(ledger.database(), clock=lambda: time.time() + 3660)


def test_an_approval_names_the_report_that_was_read(steps: Any) -> None:
    version = steps.register()
    steps.begin(version)
    steps.judge(version)
    with pytest.raises(TransitionRefused, match="read the current report"):
        steps.approve(version, report_digest="0" * 64)
    with pytest.raises(TransitionRefused, match="one is empty"):
        steps.approve(version, who=Who("ann", " "))


def test_a_changed_champion_makes_passes_stale(ledger: Ledger, steps: Any) -> None:
    steps.first()
    passed, approved, late = steps.register(), steps.approved(), steps.register()
    steps.begin(passed)
    steps.judge(passed)
    steps.begin(late)
    steps.second()
    assert ledger.version(passed).state is State.STALE
    assert ledger.version(approved).state is State.STALE
    assert steps.judge(late) is State.STALE
    with pytest.raises(TransitionRefused, match="STALE"):
        steps.approve(passed)
    with pytest.raises(TransitionRefused, match="STALE"):
        steps.canary(approved)
    assert steps.begin(passed).incumbent_generation == 2
    ledger.verify()


def test_an_evaluation_is_against_the_champion_of_now(steps: Any) -> None:
    steps.first()
    version = steps.register()
    with pytest.raises(TransitionRefused, match="judge it against that one"):
        steps.begin(version, incumbent_digest=None)


def test_only_the_first_champion_skips_the_trial(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = steps.approved()
    with pytest.raises(TransitionRefused, match="skips the trial"):
        ledger.promote(version, expected_generation=1, who=Who("ann", "hurry"))


def test_a_trial_without_evidence_promotes_nobody(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = steps.approved()
    canary = steps.canary(version)
    for _ in range(2):
        with pytest.raises(TransitionRefused, match="does not speak for its promotion"):
            ledger.promote(version, expected_generation=1, who=Who("server", "hurry"))
        steps.play(canary, 300.0, 310.0, 10)
    assert ledger.champion().version == 1  # type: ignore[union-attr]


def test_a_won_trial_promotes_by_compare_and_set(ledger: Ledger, steps: Any) -> None:
    first = steps.first()
    version = steps.approved()
    steps.play(steps.canary(version), 10.0, 490.0, 20)
    for wrong in (0, 2):
        with pytest.raises(StaleGeneration, match=f"meant for generation {wrong}"):
            ledger.promote(version, expected_generation=wrong, who=Who("server", "better"))
    champion = ledger.promote(version, expected_generation=1, who=Who("server", "better"))
    assert (champion.version, champion.generation) == (version, 2)
    assert ledger.version(first).state is State.RETIRED
    assert ledger.canary() is None
    event = ledger.events(version)[-1]
    assert event.evidence_sha256 is not None
    evidence = ledger.evidence(event.evidence_sha256)
    assert evidence["action"] == "promote"
    assert evidence["canary"]["episodes"] >= 5  # up to the episode at which it was decided
    ledger.verify()


def test_a_canary_must_be_shown_to_load(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = steps.approved()
    for loaded in ({}, {"digest": "0" * 64, "golden": 8}, {"digest": "x", "golden": 0}):
        with pytest.raises(TransitionRefused, match="not shown to load"):
            steps.canary(version, loaded=loaded)
    with pytest.raises(TransitionRefused, match=r"lies in \[0, 1\)"):
        steps.canary(version, weight=1.0)
    steps.canary(version)
    with pytest.raises(TransitionRefused, match="one canary at a time"):
        steps.canary(steps.approved())


def test_a_canary_without_a_champion_is_refused(steps: Any) -> None:
    with pytest.raises(TransitionRefused, match="no champion to try"):
        steps.canary(steps.approved())


def test_an_aborted_digest_is_quarantined(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = steps.approved("b" * 64)
    steps.canary(version)
    ledger.set_canary_weight(0.5, who=Who("ann", "more"))
    assert ledger.canary().weight == 0.5  # type: ignore[union-attr]
    ledger.abort_canary(who=Who("server", "worse"))
    assert ledger.canary() is None
    assert ledger.version(version).quarantined
    assert steps.register("b" * 64) == version
    with pytest.raises(TransitionRefused, match="ABORTED"):
        steps.begin(version)
    with pytest.raises(TransitionRefused, match="no canary"):
        ledger.abort_canary(who=Who("server", "worse"))


def test_rollback_brings_back_the_previous_by_order_of_events(ledger: Ledger, steps: Any) -> None:
    first = steps.first()
    second, third = steps.second(), steps.second()
    trial = steps.approved()
    steps.canary(trial)
    champion = ledger.rollback(who=Who("ann", "it fell"))
    assert (champion.version, champion.generation) == (second, 4)
    assert ledger.version(trial).state is State.STALE
    assert ledger.version(third).quarantined
    # the one that was rolled back is not the previous one of the next rollback
    assert ledger.rollback(who=Who("ann", "again")).version == first
    with pytest.raises(TransitionRefused, match="no retired champion is left"):
        ledger.rollback(who=Who("ann", "again"))
    assert ledger.rollback(who=Who("ann", "mine"), to_version=third).version == third
    ledger.verify()


def test_rollback_stays_in_its_world_and_generation(ledger: Ledger, steps: Any) -> None:
    steps.first()
    steps.second(fingerprint="f" * 64)
    with pytest.raises(TransitionRefused, match="current environment"):
        ledger.rollback(who=Who("ann", "back"))
    with pytest.raises(LedgerError, match="no version 9; the ledger holds versions 1 to 2"):
        ledger.rollback(who=Who("ann", "back"), to_version=9)
    steps.second(fingerprint="f" * 64)
    with pytest.raises(StaleGeneration):
        ledger.rollback(who=Who("ann", "back"), expected_generation=2)


@pytest.mark.parametrize("step", ["rollback", "revoke"])
def test_the_previous_champion_is_the_last_one_that_may_come_back(
    ledger: Ledger, steps: Any, step: str
) -> None:
    first, other = steps.first(), steps.second(fingerprint="f" * 64)
    third = steps.second()
    assert ledger.former() == [first]
    if step == "rollback":
        ledger.rollback(who=Who("ann", "it fell"))
    else:
        ledger.revoke(third, who=Who("ann", "leak"))
    assert ledger.champion().version == first  # type: ignore[union-attr]
    with pytest.raises(TransitionRefused, match=f"version {other} passed in environment f"):
        ledger.rollback(who=Who("ann", "back"), to_version=other)
    ledger.verify()


@pytest.mark.parametrize("who", [Who("ann", "a\0b"), Who("a\0b", "because")])
def test_a_reason_that_postgresql_cannot_hold_is_refused_on_both(ledger: Ledger, who: Who) -> None:
    with pytest.raises(TransitionRefused, match="without NUL characters"):
        ledger.note("drift", {}, who=who)
    assert ledger.count() == 0


def test_only_a_pass_is_approved_and_a_shadow_stays_one(ledger: Ledger, steps: Any) -> None:
    """Unchecked, the step would end the shadow and throw its counts away."""
    ledger.set_deployment_rules(DeploymentRules(two_persons=True), who=Who("ann", "careful"))
    steps.first()
    version = steps.register(submitter="bob")
    steps.begin(version)
    steps.judge(version)
    steps.approve(version)
    loaded = {"digest": ledger.version(version).digest, "golden": 8}
    for state in (State.APPROVED, State.SHADOW):
        said = f"version {version} is {state} and cannot become APPROVED; only a version that is"
        for digest, name in (("0" * 64, "ann"), (ledger.version(version).report_digest, "bob")):
            with pytest.raises(TransitionRefused, match=said):
                ledger.approve(version, report_digest=str(digest), who=Who(name, "mine"))
        assert ledger.version(version).state is state
        if state is State.APPROVED:
            ledger.start_shadow(version, loaded=loaded, who=Who("ann", "try it"))
    ledger.stop_shadow(version, who=Who("ann", "seen enough"))
    assert ledger.version(version).state is State.APPROVED


def test_a_revoked_champion_gives_way_and_never_returns(ledger: Ledger, steps: Any) -> None:
    first = steps.first()
    with pytest.raises(TransitionRefused, match="no retired champion is left"):
        ledger.revoke(first, who=Who("ann", "leak"))
    second = steps.second()
    ledger.revoke(second, who=Who("ann", "leak"))
    assert ledger.champion().version == first  # type: ignore[union-attr]
    with pytest.raises(TransitionRefused, match="REVOKED"):
        ledger.rollback(who=Who("ann", "back"), to_version=second)
    ledger.verify()


def test_the_same_key_answers_the_same_and_does_nothing(ledger: Ledger, steps: Any) -> None:
    version = steps.approved()
    request: Any = {"expected_generation": 0, "who": Who("ann", "first", "k")}
    one = ledger.promote(version, **request)
    steps.second()
    events = len(ledger.events())
    assert ledger.promote(version, **request) == one
    assert len(ledger.events()) == events
    with pytest.raises(TransitionRefused, match="another request"):
        ledger.rollback(who=Who("ann", "x", "k"))


def test_of_many_promoters_one_wins(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = steps.approved()
    steps.play(steps.canary(version), 10.0, 490.0, 20)
    won: list[int] = []

    def promote(n: int) -> None:
        try:
            ledger.promote(version, expected_generation=1, who=Who(f"worker {n}", "better"))
            won.append(n)
        except TransitionRefused:
            pass

    threads = [threading.Thread(target=promote, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert ledger.champion().generation == 2  # type: ignore[union-attr]
    ledger.verify()


def test_the_outbox_holds_every_event_until_delivered(ledger: Ledger, steps: Any) -> None:
    steps.first()
    pending = ledger.pending()
    assert [event.seq for event in pending] == [1, 2, 3, 4, 5]
    ledger.ack(3)
    assert [event.seq for event in ledger.pending()] == [4, 5]


def test_an_unknown_version_is_named(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no version 4; the ledger holds no version yet"):
        ledger.version(4)


def test_a_trial_whose_world_moved_is_over(steps: Any) -> None:
    steps.first()
    version = steps.approved("c" * 64)
    steps.canary(version)
    steps.ledger.mark_stale(version, who=Who("ann", "the world moved"))
    assert steps.ledger.version(version).state is State.STALE
    assert steps.ledger.canary() is None
