"""Whatever is changed in the database by hand: found, named, and never served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from serving.registry import schema
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Who
from serving.registry.rules import DeploymentRules
from srghn.errors import LedgerError

ANN = Who("ann", "because")

BOTH_DATABASES = True


def tamper(ledger: Ledger, *statements: str) -> None:
    """As somebody with the database's password would: triggers dropped first."""
    with ledger._database.write() as connection:
        schema.unguard(connection)
        if connection.dialect.name == "sqlite":
            connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        for statement in statements:
            connection.execute(text(statement))
        schema.guard(connection)


def on_trial(ledger: Ledger, steps: Any) -> int:
    steps.first()
    version: int = steps.approved()
    steps.canary(version)
    ledger.set_canary_weight(0.3, who=ANN)
    return version


SERVED = [
    ("UPDATE champion SET generation = 7", r"pointer .* is \(1, 7\)"),
    ("UPDATE champion SET version = 2", r"pointer .* is \(2, 1\)"),
    ("UPDATE champion SET by = 'mallory'", "pointer"),
    ("UPDATE trial SET weight = 0.9", "trial's row .* has weight 0.9, the events say 0.3"),
    ("UPDATE trial SET version = 1", "names version 1, which is no canary"),
    ("UPDATE trial SET epoch = 1", "is not what an event began"),
    ("UPDATE trial SET status = 'held'", "has status 'held', the events say 'running'"),
    ("UPDATE trial SET params = replace(params, '0', '1')", "has params"),
    ("DELETE FROM trial", "trial's row of 'policy' is missing"),
    ("UPDATE versions SET state = 'CANARY' WHERE version = 1", "no canary|CANARY"),
]


@pytest.mark.parametrize(("statement", "words"), SERVED)
def test_a_row_that_decides_what_is_served_follows_from_the_events(
    ledger: Ledger, steps: Any, statement: str, words: str
) -> None:
    on_trial(ledger, steps)
    ledger.served()
    ledger.verify_served()
    tamper(ledger, statement)
    for look in (ledger.served, ledger.verify_served):
        with pytest.raises(LedgerError, match=words):
            look()
    with pytest.raises(LedgerError):
        ledger.verify()


def test_a_trial_that_was_added_by_hand_is_not_served(ledger: Ledger, steps: Any) -> None:
    steps.first()
    version = steps.register()
    tamper(
        ledger,
        f"INSERT INTO trial VALUES ('policy', {version}, 6, 0.5, 'running', '{{}}', '2027')",
        f"UPDATE versions SET state = 'CANARY' WHERE version = {version}",
    )
    with pytest.raises(LedgerError, match=r"trial's row .* is not what an event began"):
        ledger.served()


VERSION = [
    ("UPDATE versions SET digest = '{0}' WHERE version = 1", "recorded with"),
    ("UPDATE versions SET env_fingerprint = '{0}' WHERE version = 1", "env_fingerprint"),
    ("UPDATE versions SET mode = 'flipped' WHERE version = 1", "mode 'flipped'"),
    ("UPDATE versions SET genome = '{0}' WHERE version = 1", "genome"),
    ("UPDATE versions SET suite_version = '9' WHERE version = 1", "suite_version '9'"),
    ("UPDATE versions SET policy_digest = '{0}' WHERE version = 1", "policy_digest"),
    ("UPDATE versions SET report_digest = '{0}' WHERE version = 1", "report_digest"),
    ("UPDATE versions SET manifest = '{{}} ' WHERE version = 1", "manifest of version 1"),
    ("UPDATE versions SET quarantined = true WHERE version = 1", "quarantined"),
    ("UPDATE versions SET policy = 'other' WHERE version = 1", "policy 'other'"),
    ("UPDATE versions SET recall_of = 1 WHERE version = 1", "recall_of 1"),
]


@pytest.mark.parametrize(("statement", "words"), VERSION)
def test_the_columns_of_a_version_are_what_its_evidence_says(
    ledger: Ledger, steps: Any, statement: str, words: str
) -> None:
    steps.first()
    tamper(ledger, statement.format("0" * 64))
    for look in (lambda: ledger.passed(1), ledger.verify, ledger.verify_served):
        with pytest.raises(LedgerError, match=words):
            look()


@pytest.mark.parametrize("seq", [1, 3, 4])
def test_evidence_that_is_gone_is_named_by_its_event(ledger: Ledger, steps: Any, seq: int) -> None:
    steps.first()
    tamper(
        ledger,
        "DELETE FROM evidence WHERE sha256 = "
        f"(SELECT evidence_sha256 FROM events WHERE seq = {seq})",
    )
    looks: list[Callable[[], object]] = [
        lambda: ledger.passed(1), ledger.verify, ledger.verify_served
    ]  # fmt: skip
    for look in looks:
        with pytest.raises(LedgerError, match=f"event {seq}: its evidence .* missing"):
            look()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE policies SET service_mode = 'normal'", "service mode 'normal'"),
        ("UPDATE policies SET rules_sha256 = NULL", "deployment rules"),
    ],
)
def test_mode_and_rules_of_a_policy_follow_from_the_events(
    ledger: Ledger, steps: Any, statement: str, words: str
) -> None:
    ledger.set_mode(POLICY, "flipped", who=ANN)
    ledger.set_deployment_rules(DeploymentRules(two_persons=True), who=ANN)
    ledger.verify_served()
    tamper(ledger, statement)
    for look in (ledger.verify, ledger.verify_served):
        with pytest.raises(LedgerError, match=words):
            look()


def test_a_history_of_everything_verifies(ledger: Ledger, steps: Any) -> None:
    """The companion of all above: no check refuses what the ledger itself wrote."""
    version = on_trial(ledger, steps)
    ledger.set_trial_status("paused", who=ANN)
    ledger.set_trial_status("running", who=ANN)
    ledger.expire_canary(who=ANN, evidence={"why": "undecided"})
    steps.canary(version)
    ledger.abort_canary(who=ANN)
    steps.second()
    ledger.rollback(who=ANN)
    last = steps.second()
    recalled = ledger.recall(1, env_fingerprint="f" * 64, mode="x", who=ANN)
    steps.begin(recalled)
    steps.judge(recalled, "inconclusive")
    steps.begin(recalled)
    ledger.rollback(who=ANN)
    ledger.rollback(who=ANN, to_version=last)
    failed = steps.register()
    steps.begin(failed)
    steps.judge(failed, "failed")
    ledger.reject(steps.approved(), who=ANN)
    assert ledger.verify() == ledger.count()
    ledger.verify_served()
    ledger.served()
