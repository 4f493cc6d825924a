"""Words that people write to the ledger, and those with which it refuses a promotion."""

from __future__ import annotations

from typing import Any

import pytest

from serving.registry.ledger import Ledger
from serving.registry.records import Who
from serving.registry.rules import DeploymentRules
from serving.registry.sinks import Sinks
from serving.registry.told import values
from serving.tokens import Tokens
from srghn.errors import ConfigError, TransitionRefused


@pytest.mark.parametrize("control", ["\x1b[31m", "\r", "\x07", "\x7f", "\x9b2J"])
def test_what_would_steer_a_terminal_is_refused_in_words(
    ledger: Ledger, steps: Any, control: str
) -> None:
    version = steps.approved()
    count, why = ledger.count(), f"it was{control} wrong"
    with pytest.raises(TransitionRefused, match=r"without control characters, got \\[xr]"):
        ledger.reject(version, who=Who("ann", why))
    with pytest.raises(TransitionRefused, match="set_mode needs a mode without"):
        ledger.set_mode("policy", f"flipped{control}", who=Who("ann", "rewired"))
    with pytest.raises(TransitionRefused, match="register needs a mode, a run and a submitter"):
        steps.register(submitter=f"bob{control}")
    with pytest.raises(ConfigError, match="owner has no control characters"):
        Tokens(ledger.database()).add(f"ann{control}", ["review"])
    with pytest.raises(ConfigError, match="a sink's name"):
        Sinks(ledger).add(f"chat{control}", "https://a.example/", (), Who("ann", "tell us"))
    assert ledger.count() == count
    ledger.note("run_failed", {}, who=Who("pipeline", why))  # a program's word must not get lost
    reason = ledger.events(newest=True, limit=1)[0].reason
    assert control not in reason
    assert reason == f"it was{repr(control)[1:-1]} wrong"
    ledger.reject(version, who=Who("ann", "two\n\tlines"))


def test_what_no_file_holds_is_refused_in_words(ledger: Ledger, steps: Any) -> None:
    """An argument's byte of Latin-1 is a surrogate in Python; a user's name may have one, too."""
    version, wrong = steps.approved(), "f\udcfcr alle"
    with pytest.raises(TransitionRefused, match=r"reject needs .* in UTF-8, got \\udcfc"):
        ledger.reject(version, who=Who("ann", wrong))
    with pytest.raises(TransitionRefused, match="set_mode needs a mode in UTF-8"):
        ledger.set_mode("policy", wrong, who=Who("ann", "rewired"))
    with pytest.raises(ConfigError, match="owner has no control characters and is UTF-8"):
        Tokens(ledger.database()).add(wrong, ["review"])
    with pytest.raises(ConfigError, match="a sink's name"):
        Sinks(ledger).add(wrong, "https://a.example/", (), Who("ann", "tell us"))
    ledger.note("run_failed", {}, who=Who("pipeline", wrong))  # a program's word must not get lost
    assert ledger.events(newest=True, limit=1)[0].reason == "f\\udcfcr alle"
    ledger.reject(version, who=Who("cli:j\udcf6rg", "wrong"))
    assert ledger.events(newest=True, limit=1)[0].actor == "cli:j\\udcf6rg"


def test_line_ends_of_windows_become_ours(ledger: Ledger, steps: Any) -> None:
    ledger.reject(steps.approved(), who=Who("ann", "two\r\nlines"))
    ledger.note("run_failed", {}, who=Who("pipeline", "two\r\nlines"))
    found = ledger.events(newest=True, limit=2)
    assert [event.reason for event in found] == ["two\nlines"] * 2


def test_an_owner_of_before_the_check_still_works(
    ledger: Ledger, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.first()
    second, tokens, owner = steps.second(), Tokens(ledger.database()), "ann\x1b[31m"
    with monkeypatch.context() as before:
        before.setattr("serving.tokens.control_in", lambda *texts: None)
        tokens.add(owner, ["admin"])
    found = tokens.find(tokens.rotate(owner))
    assert found is not None
    assert found.owner == owner
    ledger.rollback(who=Who(owner, "it drifts"))
    assert ledger.events(newest=True, limit=1)[0].actor == "ann\\x1b[31m"
    ledger.revoke(second, who=Who(owner, "it is wrong"))
    assert ledger.version(second).state == "REVOKED"
    assert ledger.verify()


def test_two_persons_are_told_apart_by_names_written_out(
    ledger: Ledger, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.first()
    ledger.set_deployment_rules(DeploymentRules(two_persons=True), who=Who("ann", "careful"))
    owner = "bob\x07"
    with monkeypatch.context() as before:
        before.setattr("serving.registry.ledger.control_in", lambda *texts: None)
        version = steps.register(submitter=owner)
    steps.begin(version)
    steps.judge(version)
    digest = ledger.version(version).report_digest
    with pytest.raises(TransitionRefused, match=r"two persons: bob\\x07 submitted"):
        ledger.approve(version, report_digest=str(digest), who=Who(owner, "mine"))


def test_a_history_with_control_characters_is_still_read(
    ledger: Ledger, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = steps.approved()
    with monkeypatch.context() as before:
        before.setattr("serving.registry.ledger.control_in", lambda *texts: None)
        ledger.reject(version, who=Who("ann", "an old \x1b[31m reason"))
    assert ledger.events(newest=True, limit=1)[0].reason == "an old \x1b[31m reason"
    assert ledger.verify()


@pytest.mark.parametrize(
    ("state", "says", "not_this"),
    [
        ("PASSED", r"srghn approve 2 --reason", "canary start"),
        ("APPROVED", r"srghn canary start 2 --reason", "approve it"),
        ("FAILED", r"evolve another candidate: srghn run", "srghn canary start"),
        ("REGISTERED", r"srghn gate 2", "srghn canary start"),
        ("CHAMPION", r"version 2 is CHAMPION already", "canary"),
        ("RETIRED", r"srghn rollback --to 2", "canary start"),
    ],
)
def test_a_refused_promotion_advises_what_is_possible(
    ledger: Ledger, steps: Any, state: str, says: str, not_this: str
) -> None:
    steps.first()
    if state in ("CHAMPION", "RETIRED"):
        steps.second()
        if state == "RETIRED":
            steps.second()
    elif state == "APPROVED":
        steps.approved()
    else:
        version = steps.register()
        if state != "REGISTERED":
            steps.begin(version)
            steps.judge(version, state.lower())
    assert ledger.version(2).state == state
    with pytest.raises(TransitionRefused, match=says) as told:
        ledger.promote(2, expected_generation=ledger.champion().generation, who=Who("ann", "now"))  # type: ignore[union-attr]
    assert not_this not in str(told.value)


@pytest.mark.parametrize(("state", "how"), [("PASSED", "approve"), ("APPROVED", "promote")])
def test_a_trial_without_a_champion_advises_what_is_possible(
    steps: Any, state: str, how: str
) -> None:
    version = steps.register()
    steps.begin(version)
    steps.judge(version)
    if state == "APPROVED":
        steps.approve(version)
    with pytest.raises(TransitionRefused, match=f"{how} it .srghn {how} {version} --reason"):
        steps.canary(version)


def test_only_the_evidence_of_steps_that_are_told_is_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        ledger.note("drift", {"number": number}, who=Who("watch", "it drifts"))
    ledger.set_mode("policy", "flipped", who=Who("ann", "rewired"))
    read, asked = ledger.evidence, list[str]()

    def counted(digest: str) -> Any:
        asked.append(digest)
        return read(digest)

    monkeypatch.setattr(ledger, "evidence", counted)
    told = values(ledger, ledger.events())
    assert [said for said in told.values() if said] == ["flipped"]
    assert len(asked) == 1
