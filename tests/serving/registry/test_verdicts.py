"""The ledger decides again from the checks it is given, and holds reports against their verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.registry import guards, reports
from serving.registry.ledger import Ledger
from serving.registry.records import Who
from serving.registry.schema import POLICY
from srghn.errors import LedgerError, TransitionRefused
from srghn.files import sha256_bytes
from tests.serving.conftest import numbers

BOTH_DATABASES = True

CLEAR = {"name": "primary", "outcome": "passed", "reason": "r"}
BOUND = {**CLEAR, "low": 1.0, "high": 3.0, "value": 2.0, "threshold": 0.0, "sense": "low >="}


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ([{**CLEAR, "outcome": "failed"}], "its checks give 'failed'"),
        ([CLEAR, {**CLEAR, "name": "tail", "outcome": "error"}], "its checks give 'error'"),
        ([{**CLEAR, "binding": False}], "its checks give 'error'"),
        ([{**BOUND, "threshold": 1.5}], "does not clear 1.5"),
        ([{**BOUND, "low": 4.0}], "which is empty"),
        ([CLEAR, CLEAR], "appears twice"),
        ([{**CLEAR, "name": "other"}], "'other' did"),
        ([{"outcome": "passed"}], "not a verdict with checks"),
        ("passed", "not a verdict with checks"),
    ],
)
def test_a_verdict_that_contradicts_itself_is_refused(
    ledger: Ledger, steps: Any, checks: Any, words: str
) -> None:
    version = steps.register()
    steps.begin(version)
    with pytest.raises(TransitionRefused, match=words):
        steps.judge(version, checks=checks)
    assert ledger.version(version).state == "EVALUATING"
    assert steps.judge(version, checks=[BOUND]) == "PASSED"


def test_a_failure_that_says_passed_below_is_refused(steps: Any) -> None:
    version = steps.register()
    steps.begin(version)
    with pytest.raises(TransitionRefused, match="its checks give 'passed'"):
        steps.judge(version, "failed", checks=[CLEAR])


def test_episodes_are_drawn_from_this_attempts_lease(steps: Any) -> None:
    version = steps.register()
    old = steps.begin(version).lease
    steps.judge(version, "inconclusive", lease=old)
    lease = steps.begin(version).lease
    assert lease != old
    with pytest.raises(TransitionRefused, match="drawn from lease"):
        steps.judge(version, lease=old)
    with pytest.raises(TransitionRefused, match="drawn from none"):
        steps.judge(version, lease=None)
    assert steps.judge(version, lease=lease) == "PASSED"


# ------------------------------------------------------------------------------- reports


def passed(ledger: Ledger, steps: Any) -> tuple[int, Path]:
    """A version that passed with a table as evidence, and the folder of its report."""
    version: int = steps.register()
    steps.begin(version)
    verdict = steps.verdict(version, evidence={"episodes.parquet": sha256_bytes(b"table")})
    folder = steps.report(version, verdict).parent
    (folder / "episodes.parquet").write_bytes(b"table")
    steps.judge(version, evidence=verdict["evidence"])
    return version, folder


def change(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"exchanged")


def lose(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


HARM = [
    *(change(name) for name in ("report.html", "verdict.json", "report.json", "episodes.parquet")),
    *(lose(name) for name in ("report.html", "verdict.json", "report.json", "episodes.parquet")),
]


FAILED = {**CLEAR, "name": "tail", "outcome": "failed"}


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"verdict": "failed", "checks": [CLEAR, FAILED]}, "in checks, verdict;"),
        ({"checks": [{**CLEAR, "reason": "another"}]}, "in checks;"),
        ({"summary": "by a hair"}, "in summary;"),
        ("[]", "holds no verdict"),
    ],
)
def test_a_verdict_is_the_one_in_its_report(
    ledger: Ledger, steps: Any, held: Any, words: str
) -> None:
    """A check that failed is left out: what is left does not contradict itself."""
    version: int = steps.register()
    steps.begin(version)
    verdict = steps.verdict(version, checks=[CLEAR])
    content = held.encode() if isinstance(held, str) else numbers({**verdict, **held})
    forged = {**verdict, "evidence": {"report.json": sha256_bytes(content)}}
    page = steps.report(version, forged)
    (page.parent / "report.json").write_bytes(content)
    said: Any = {"report_path": page, "report_digest": page.parent.name, "who": Who("gate", "r")}
    with pytest.raises(TransitionRefused, match=words):
        ledger.record_verdict(version, forged, **said)
    for evidence in ({}, None, ["report.json"], "report.json"):
        bare = {**verdict, "evidence": evidence}
        steps.report(version, bare)
        with pytest.raises(TransitionRefused, match=r"names no report\.json"):
            ledger.record_verdict(version, bare, **said)
    steps.report(version, verdict)
    assert ledger.record_verdict(version, verdict, **said) == "PASSED"


def test_a_verdict_of_an_evaluation_that_0_2_began_is_taken_with_its_page_alone(
    steps: Any,
) -> None:
    version = steps.register()
    lease = steps.begin(version).lease
    old = {k: v for k, v in steps.verdict(version).items() if k not in ("lease", "evidence")}
    page = steps.report(version, old)
    where: Any = (page.parent, page.parent.name, old)
    guards.check_lease(lease, 1, old)
    guards.check_report(*where, 1)
    with pytest.raises(TransitionRefused, match="drawn from none"):
        guards.check_lease(lease, 2, old)
    with pytest.raises(TransitionRefused, match=r"names no report\.json"):
        guards.check_report(*where, 2)
    page.write_text("another")
    with pytest.raises(TransitionRefused, match="put the report back"):
        guards.check_report(*where, 1)


@pytest.mark.parametrize("harm", HARM)
def test_a_report_is_held_against_its_verdict_when_recorded(
    ledger: Ledger, steps: Any, harm: Callable[[Path], object]
) -> None:
    version: int = steps.register()
    steps.begin(version)
    verdict = steps.verdict(version, evidence={"episodes.parquet": sha256_bytes(b"table")})
    page = steps.report(version, verdict)
    (page.parent / "episodes.parquet").write_bytes(b"table")
    harm(page.parent)
    with pytest.raises(TransitionRefused, match=r"names|cannot be read"):
        ledger.record_verdict(
            version,
            verdict,
            report_path=page,
            report_digest=page.parent.name,
            who=steps.rules()["who"],
        )


@pytest.mark.parametrize("harm", HARM)
def test_a_report_is_held_against_its_verdict_when_approved_and_by_the_doctor(
    ledger: Ledger, steps: Any, harm: Callable[[Path], object]
) -> None:
    version, folder = passed(ledger, steps)
    assert ledger.report_problems() == []
    harm(folder)
    with pytest.raises(TransitionRefused, match="put the report back"):
        steps.approve(version)
    [problem] = ledger.report_problems()
    assert f"the report of version {version}" in problem


def test_a_served_version_whose_report_was_exchanged_is_named_at_the_start(
    ledger: Ledger, steps: Any
) -> None:
    version, folder = passed(ledger, steps)
    steps.approve(version)
    ledger.promote(version, expected_generation=0, who=steps.rules()["who"])
    ledger.verify_served()
    (folder / "report.html").write_bytes(b"exchanged")
    with pytest.raises(LedgerError, match="the report of version 1"):
        ledger.verify_served()


def test_a_file_that_the_verdict_does_not_name_is_no_evidence(ledger: Ledger, steps: Any) -> None:
    version, folder = passed(ledger, steps)
    _, verdict = ledger.passed(version)
    (folder / "more.json").write_bytes(b"{}")
    assert reports.problem(folder, verdict, "report.html") is None
    assert reports.problem(folder, verdict, "more.json") == "the verdict names no 'more.json'"
    assert reports.problem(folder, {**verdict, "evidence": {"../x": "0" * 64}}) is not None


def test_the_served_mode_binds(ledger: Ledger, steps: Any) -> None:
    """A champion serves in mode normal; once the world has switched, no pass elsewhere is taken."""
    first = steps.first()
    assert ledger.service_mode() == ledger.version(first).mode == "normal"
    ledger.set_mode(POLICY, "flipped", who=Who("ann", "the motors were rewired"))
    version = steps.register()
    steps.begin(version)
    with pytest.raises(TransitionRefused, match="mode should be 'flipped', got 'normal'"):
        steps.judge(version, mode="normal")
    assert steps.judge(version, mode="flipped") == "PASSED"
