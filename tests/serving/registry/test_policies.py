"""Several policies in one ledger, the events that belong to a policy, and deployment rules."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from typing import Any

import pytest

from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Who
from serving.registry.rules import DeploymentRules, parse_rules
from serving.trial.compared import Compared
from srghn.errors import ConfigError, LedgerError, TransitionRefused

ANN = Who("ann", "because")
LOADED = {"golden": 8}

BOTH_DATABASES = True


def other(ledger: Ledger, steps: Any, digest: str = "d" * 64) -> int:
    """A version of the policy `other`, approved."""
    ledger.add_policy("other", who=ANN)
    version = ledger.register(
        digest,
        env_fingerprint="e" * 64,
        mode="normal",
        run_id="run",
        manifest={},
        who=Who("pipeline", "frozen"),
        policy="other",
    )
    champion = ledger.champion("other")
    steps.begin(version, incumbent_digest=champion.digest if champion else None)
    steps.judge(version)
    steps.approve(version)
    return version


def test_each_policy_has_a_champion_and_a_trial_of_its_own(ledger: Ledger, steps: Any) -> None:
    first = steps.first()
    version = other(ledger, steps)
    ledger.promote(version, expected_generation=0, who=ANN)
    champions = ledger.champion(), ledger.champion("other")
    assert [c and (c.policy, c.version, c.generation) for c in champions] == [
        (POLICY, first, 1),
        ("other", version, 1),
    ]
    mine, theirs = steps.approved(), other(ledger, steps, "f" * 64)
    for number in (mine, theirs):
        steps.canary(number)
    assert [c and c.version for c in (ledger.canary(), ledger.canary("other"))] == [mine, theirs]
    ledger.set_canary_weight(0.4, who=ANN, policy="other")
    assert ledger.abort_canary(who=ANN, policy="other") == theirs
    assert ledger.canary().weight == 0.05  # type: ignore[union-attr]
    assert ledger.verify() == ledger.count()


def test_a_promotion_makes_passes_of_its_own_policy_stale_alone(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = other(ledger, steps)
    steps.second()
    assert ledger.version(version).state == "APPROVED"


def test_a_rollback_stays_within_its_policy(ledger: Ledger, steps: Any) -> None:
    steps.first()
    ledger.promote(other(ledger, steps), expected_generation=0, who=ANN)
    with pytest.raises(TransitionRefused, match="no retired champion"):
        ledger.rollback(who=ANN, policy="other")
    steps.second()
    with pytest.raises(TransitionRefused, match="version 1 is of policy 'policy'"):
        ledger.rollback(who=ANN, policy="other", to_version=1)


def test_one_digest_is_a_version_in_each_policy_world_and_mode(ledger: Ledger) -> None:
    ledger.add_policy("other", who=ANN)
    rest: Any = {"run_id": "run", "manifest": {}, "who": ANN}

    def register(policy: str, fingerprint: str, mode: str) -> int:
        return ledger.register(
            "a" * 64, env_fingerprint=fingerprint, mode=mode, policy=policy, **rest
        )

    tuples = [
        (POLICY, "e" * 64, "normal"),
        (POLICY, "e" * 64, "flipped"),
        (POLICY, "f" * 64, "normal"),
        ("other", "e" * 64, "normal"),
    ]
    assert [register(*each) for each in tuples] == [1, 2, 3, 4]
    assert [register(*each) for each in tuples] == [1, 2, 3, 4]


def test_an_unknown_policy_is_named_with_those_there_are(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no policy 'arm'; the ledger holds policy"):
        ledger.set_mode("arm", "normal", who=ANN)
    with pytest.raises(TransitionRefused, match="a policy's name"):
        ledger.add_policy("../arm", who=ANN)


def test_another_interface_needs_another_policy(ledger: Ledger, steps: Any) -> None:
    steps.first(manifest={"interface": {"observation_size": 4}})
    assert ledger.policy().interface == {"observation_size": 4}
    with pytest.raises(TransitionRefused, match="srghn run --policy NAME"):
        steps.register(manifest={"interface": {"observation_size": 5}})
    steps.register(manifest={"interface": {"observation_size": 4}})


def test_the_service_mode_is_set_by_an_event(ledger: Ledger, steps: Any) -> None:
    assert ledger.service_mode() is None
    steps.first()
    assert ledger.service_mode() == "normal"  # its champion's
    ledger.set_mode(POLICY, "flipped", who=Who("ann", "they rewired it"))
    assert ledger.service_mode() == "flipped"
    event = ledger.events(newest=True, limit=1)[0]
    assert (event.action, event.version, event.reason) == ("set_mode", None, "they rewired it")
    assert ledger.evidence(str(event.evidence_sha256)) == {"mode": "flipped"}
    assert ledger.verify() == ledger.count()


def test_secrets_differ_between_policies_and_last(ledger: Ledger) -> None:
    ledger.add_policy("other", who=ANN)
    secrets = [ledger.secret(POLICY), ledger.secret("other")]
    assert [len(secret) for secret in secrets] == [32, 32]
    assert secrets[0] != secrets[1]
    ledger.add_policy("other", who=ANN)
    assert ledger.secret("other") == secrets[1]


# --------------------------------------------------------------------------------- rules


def test_deployment_rules_are_events_with_actor_and_reason(ledger: Ledger) -> None:
    assert ledger.deployment_rules() == DeploymentRules()
    rules = DeploymentRules(two_persons=True, poster_share=0.2)
    ledger.set_deployment_rules(rules, who=Who("ann", "audit"))
    assert ledger.deployment_rules() == rules
    event = ledger.events()[-1]
    assert (event.action, event.actor, event.reason) == ("set_deployment_rules", "ann", "audit")
    ledger.verify()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"approver": "nobody"}, "approver: expected 'anyone' or 'person', got 'nobody'"),
        ({"poster_share": 0.0}, "poster_share: expected more than 0, got 0.0"),
        ({"speed": 1}, "unknown deployment rule 'speed'; known: approver, two_persons"),
        ({"holdback": {"share": 0.00004}}, "holdback.share: expected at least 0.0001, got 4e-05"),
        ({"trial": {"margn": 1}}, "unknown deployment rule 'trial.margn'; did you mean 'margin'?"),
        ({"adapt": {"x": 1}}, "unknown deployment rule 'adapt.x'; known: act, set_mode, approve"),
    ],
)
def test_a_rule_that_is_none_is_named(data: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=f"deployment rules: {re.escape(said)}"):
        parse_rules(data)


def test_a_person_approves_where_the_rules_say_so(ledger: Ledger, steps: Any) -> None:
    ledger.set_deployment_rules(DeploymentRules(approver="person"), who=ANN)
    version = steps.register()
    steps.begin(version)
    steps.judge(version)
    with pytest.raises(TransitionRefused, match="a person to approve"):
        steps.approve(version, who=Who("policy:auto", "passed"))
    steps.approve(version)


def test_who_submitted_does_not_approve_where_the_rules_want_two(
    ledger: Ledger, steps: Any
) -> None:
    ledger.set_deployment_rules(DeploymentRules(two_persons=True), who=ANN)
    version = steps.register()
    steps.begin(version)
    steps.judge(version)
    with pytest.raises(TransitionRefused, match="two persons: pipeline submitted"):
        steps.approve(version, who=Who("pipeline", "mine"))
    steps.approve(version)


def test_a_shadow_comes_first_where_the_rules_say_so(ledger: Ledger, steps: Any) -> None:
    ledger.set_deployment_rules(DeploymentRules(shadow_first=True), who=ANN)
    steps.first()
    version = steps.approved()
    with pytest.raises(TransitionRefused, match=f"srghn canary shadow {version}"):
        steps.canary(version)
    ledger.start_shadow(version, loaded=loaded(ledger, version), who=ANN)
    assert ledger.shadow().version == version  # type: ignore[union-attr]
    another = steps.approved()
    with pytest.raises(TransitionRefused, match="is the shadow; end it first"):
        ledger.start_shadow(another, loaded=loaded(ledger, another), who=ANN)
    epoch, seen = ledger.compared(POLICY, version)
    assert (epoch, seen.copies) == (ledger.events(version)[-1].seq, 0)
    ledger.add_compared(POLICY, epoch, Compared(copies=150, timed=150, differed=15))
    with pytest.raises(TransitionRefused, match=r"want 200 copies .* it answered 150"):
        steps.canary(version)
    ledger.add_compared(POLICY, epoch, Compared(copies=50, timed=50))
    ledger.stop_shadow(version, who=ANN)
    assert ledger.shadow() is None
    said = ledger.evidence(str(ledger.events()[-1].evidence_sha256))
    assert (said["copies"]["copies"], said["copies"]["disagreement"]) == (200, 0.075)
    steps.canary(version)
    ledger.verify()


def test_a_shadow_that_broke_a_guard_goes_on_no_trial_where_it_comes_first(
    ledger: Ledger, steps: Any
) -> None:
    ledger.set_deployment_rules(DeploymentRules(shadow_first=True, shadow_copies=10), who=ANN)
    steps.first()
    version = steps.approved()
    ledger.start_shadow(version, loaded=loaded(ledger, version), who=ANN)
    with pytest.raises(TransitionRefused, match=r"it answered 0: .*srghn_shadow_outside_total"):
        steps.canary(version)
    epoch, _ = ledger.compared(POLICY, version)
    ledger.add_compared(POLICY, epoch, Compared(copies=40, timed=10, errors=30))
    with pytest.raises(TransitionRefused, match=r"broke the guard of errors: it failed on 30"):
        steps.canary(version)
    ledger.set_deployment_rules(DeploymentRules(), who=ANN)
    steps.canary(version)


def test_whoever_the_run_was_for_does_not_approve_by_any_way(ledger: Ledger, steps: Any) -> None:
    ledger.set_deployment_rules(DeploymentRules(two_persons=True), who=ANN)
    version = steps.register(submitter="cli:ann")
    steps.begin(version)
    steps.judge(version)
    for actor in ("cli:ann", "ann"):
        with pytest.raises(TransitionRefused, match=f"two persons: {actor} submitted"):
            steps.approve(version, who=Who(actor, "mine"))
    steps.approve(version, who=Who("bob", "read it"))


def test_a_shadow_becomes_stale_with_its_incumbent(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = steps.approved()
    ledger.start_shadow(version, loaded=loaded(ledger, version), who=ANN)
    steps.second()
    assert ledger.version(version).state == "STALE"


def loaded(ledger: Ledger, version: int) -> dict[str, Any]:
    return {"digest": ledger.version(version).digest, **LOADED}


# --------------------------------------------------------------------------------- trial


def test_a_trial_is_paused_held_and_goes_on(ledger: Ledger, steps: Any) -> None:
    steps.first()
    steps.canary(steps.approved())
    for status in ("paused", "held", "running"):
        ledger.set_trial_status(status, who=ANN)
        assert ledger.canary().status == status  # type: ignore[union-attr]
    with pytest.raises(TransitionRefused, match="is running already"):
        ledger.set_trial_status("running", who=ANN)
    assert [event.action for event in ledger.events()][-3:] == ["set_trial_status"] * 3
    ledger.verify()


# -------------------------------------------------------------------------------- genome


def manifest(salt: int) -> dict[str, Any]:
    return {"genome_digest": "9" * 64, "salt": salt}


def test_attempts_belong_to_a_genome_whatever_its_manifest_says(steps: Any) -> None:
    for salt in range(3):
        version = steps.register(manifest=manifest(salt))
        steps.begin(version)
        steps.judge(version, "inconclusive")
    with pytest.raises(TransitionRefused, match="evaluated 3 times"):
        steps.begin(steps.register(manifest=manifest(4)))


def test_attempts_by_changing_rules_share_one_alpha(steps: Any) -> None:
    """An attempt takes 1 / gate.attempts of alpha: ten, each by one more, took .146 of .05."""
    version = steps.register(manifest=manifest(0))
    steps.begin(version, max_attempts=1)
    steps.judge(version, "inconclusive")
    said = r"attempts 1, and attempts share one alpha: one by gate.attempts 2 would .* left; evolve"
    for another in (version, steps.register(manifest=manifest(1))):
        with pytest.raises(TransitionRefused, match=said):
            steps.begin(another, max_attempts=2)
    for rules in [(2, 3, 4, 5, 6, 7, 8, 9, 10), (3, 2, 4, 10), (10, 2, 2, 3), (4, 2, 10, 8, 8)]:
        version, taken = steps.register(), 0.0
        for most in rules:
            with contextlib.suppress(TransitionRefused):
                steps.begin(version, max_attempts=most)
                steps.judge(version, "inconclusive")
                taken += 1 / most
        assert 0.75 <= taken <= 1
    version = steps.register()
    for most in (2, 3):
        steps.begin(version, max_attempts=most)
        steps.judge(version, "inconclusive")
    with pytest.raises(TransitionRefused, match=r"gate.attempts 2, 3, and .* set it to 6, or"):
        steps.begin(version, max_attempts=4)


def test_an_attempt_that_is_resumed_by_another_rule_takes_no_more_alpha(steps: Any) -> None:
    version = steps.register()
    steps.begin(version, max_attempts=2)
    steps.judge(version, "inconclusive")
    steps.begin(version, max_attempts=2)
    with pytest.raises(TransitionRefused, match="evaluated 1 times, 1 are allowed"):
        steps.resume(version, max_attempts=1, policy_digest="q" * 64)
    assert steps.resume(version, max_attempts=3, policy_digest="q" * 64).attempt == 2
    steps.judge(version, "inconclusive")
    with pytest.raises(TransitionRefused, match="share one alpha"):
        steps.begin(version, max_attempts=3)  # it was begun by the first rule, and may be seen


def in_mode(ledger: Ledger, salt: int, mode: str) -> int:
    """The same genome under a manifest that says it was evolved in that mode."""
    return ledger.register(
        str(salt) * 64,
        env_fingerprint="e" * 64,
        mode=mode,
        run_id="run",
        manifest=manifest(salt),
        who=ANN,
    )


def test_a_manifest_that_names_another_mode_gives_no_new_attempts(
    ledger: Ledger, steps: Any
) -> None:
    """What counts is the mode in which a genome is judged: the one that is served."""
    steps.first()
    for salt, mode in enumerate(("normal", "flipped", "normal")):
        version = in_mode(ledger, salt, mode)
        steps.begin(version)
        steps.judge(version, "inconclusive")
    with pytest.raises(TransitionRefused, match="evaluated 3 times"):
        steps.begin(in_mode(ledger, 3, "icy"))
    ledger.set_mode(POLICY, "icy", who=ANN)
    another = in_mode(ledger, 4, "normal")
    steps.begin(another)  # another served mode is another question
    steps.judge(another, "failed")
    with pytest.raises(TransitionRefused, match=f"the genome of version {another}, which is FAIL"):
        steps.begin(in_mode(ledger, 5, "flipped"))


def test_a_pass_in_another_mode_gives_no_new_attempts(ledger: Ledger, steps: Any) -> None:
    """It goes stale whenever the mode changes, and each time three attempts had a whole alpha."""
    steps.first()
    version = in_mode(ledger, 1, "normal")
    for _ in range(3):
        steps.begin(version)
        steps.judge(version, "inconclusive")
    ledger.set_mode(POLICY, "icy", who=ANN)
    steps.begin(version)
    steps.judge(version)
    ledger.set_mode(POLICY, "normal", who=ANN)
    assert ledger.version(version).state == "STALE"
    with pytest.raises(TransitionRefused, match="evaluated 3 times"):
        steps.begin(version)
    ledger.set_mode(POLICY, "icy", who=ANN)
    steps.begin(version)  # there its pass went stale


@pytest.mark.parametrize("end", ["failed", "rejected", "aborted"])
def test_a_genome_that_was_turned_down_stays_so(ledger: Ledger, steps: Any, end: str) -> None:
    steps.first()
    version = steps.register(manifest=manifest(1))
    steps.begin(version)
    steps.judge(version, "failed" if end == "failed" else "passed")
    if end == "rejected":
        ledger.reject(version, who=ANN)
    if end == "aborted":
        steps.approve(version)
        steps.canary(version)
        ledger.abort_canary(who=ANN)
    with pytest.raises(TransitionRefused, match=f"the genome of version {version}"):
        steps.begin(steps.register(manifest=manifest(2)))
    elsewhere = steps.register(manifest=manifest(3), fingerprint="f" * 64)
    steps.begin(elsewhere)  # another world is another question


# -------------------------------------------------------------------------------- recall


def test_a_former_champion_is_recalled_as_a_new_version(ledger: Ledger, steps: Any) -> None:
    first = steps.first()
    steps.second()
    world: Any = {"env_fingerprint": "e" * 64, "mode": "flipped", "who": ANN}
    recalled = ledger.recall(first, **world)
    found = ledger.version(recalled)
    assert found == replace(
        ledger.version(first), version=recalled, mode="flipped", recall_of=first,
        state=found.state, attempt=0, incumbent_generation=0, suite_version=None,
        policy_digest=None, report_path=None, report_digest=None,
        registered_at=found.registered_at,
    )  # fmt: skip
    assert ledger.recall(first, **world) == recalled
    steps.begin(recalled)
    assert steps.judge(recalled) == "PASSED"
    ledger.verify()


def test_what_was_withdrawn_is_not_recalled(ledger: Ledger, steps: Any) -> None:
    steps.first()
    gone = steps.second()
    ledger.rollback(who=ANN)
    world: Any = {"env_fingerprint": "e" * 64, "mode": "flipped", "who": ANN}
    with pytest.raises(TransitionRefused, match="RETIRED and quarantined"):
        ledger.recall(gone, **world)
    ledger.revoke(gone, who=ANN)
    with pytest.raises(TransitionRefused, match="REVOKED"):
        ledger.recall(gone, **world)
    with pytest.raises(TransitionRefused, match="only a retired champion"):
        ledger.recall(1, **world)


@pytest.mark.parametrize("end", ["aborted", "revoked"])
def test_a_genome_that_was_withdrawn_is_not_recalled_by_another_version(
    ledger: Ledger, steps: Any, end: str
) -> None:
    """Its recall was harmful; the former champion itself is as it was."""
    first = steps.first()
    steps.second()
    world: Any = {"env_fingerprint": "e" * 64, "mode": "flipped", "who": ANN}
    again = ledger.recall(first, **world)
    steps.begin(again)
    steps.judge(again)
    steps.approve(again)
    trial = steps.canary(again)
    if end == "aborted":
        ledger.abort_canary(who=ANN)
    else:
        steps.play(trial, 10.0, 490.0, 12)
        ledger.promote(again, expected_generation=2, who=ANN)
        ledger.revoke(again, who=ANN)
    found = ledger.version(first)
    assert (found.state, found.quarantined) == ("RETIRED", False)
    with pytest.raises(TransitionRefused, match=f"version {again}, which is {end.upper()}"):
        ledger.recall(first, env_fingerprint="e" * 64, mode="sideways", who=ANN)


def test_a_lease_is_named_by_the_event_that_began_it(ledger: Ledger, steps: Any) -> None:
    version = steps.register()
    lease = steps.begin(version).lease
    assert lease == ledger.events(version)[-1].hash
    assert steps.resume(version).lease == lease
    assert steps.resume(version, policy_digest="q" * 64).lease == lease  # the same attempt


def test_rollback_from_a_successor_leads_back_to_what_it_replaced(
    ledger: Ledger, steps: Any
) -> None:
    """The two saw other environments: that is no reason to have no way back."""
    steps.first(manifest={"interface": {"observation_size": 4}})
    manifest = {"interface": {"observation_size": 5}, "successor": True}
    second = steps.register(manifest=manifest, fingerprint="f" * 64)
    with pytest.raises(TransitionRefused, match="to be judged against"):
        steps.begin(second)  # against the champion, which sees other things
    assert steps.begin(second, incumbent_digest=None).incumbent_digest is None
    steps.judge(second)
    steps.approve(second)
    steps.play(steps.canary(second), 10.0, 490.0, 12)
    ledger.promote(second, expected_generation=1, who=ANN)
    assert ledger.interface() == {"observation_size": 5}
    assert ledger.former() == [1]
    back = ledger.rollback(who=Who("ann", "clients were not ready"))
    assert back.version == 1
    assert ledger.interface() == {"observation_size": 4}
