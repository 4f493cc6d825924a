"""A lease outlasts the gate stage that works under it, however long that takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs.runner import judge_again
from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import Workspace
from pipelines.versions import judge
from serving.registry.ledger import Ledger
from serving.registry.records import Who
from serving.registry.schema import POLICY
from serving.registry.states import State
from serving.settings import Settings
from tests.pipelines.conftest import Home
from tests.serving.conftest import Steps
from tests.serving.test_serving_process import wait_for

ANN = Who("ann", "the suite changed")


def test_a_gate_that_takes_longer_than_a_lease_keeps_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every server ends leases that ran out, again and again. The ledger's time is the test's."""
    release = home.release
    release.ledger.mark_stale(1, who=ANN)
    monkeypatch.setattr(judge, "LEASE_SECONDS", 1.0)
    begun, passed, ended = time.time(), 0.0, list[int]()
    ledger = Ledger(release.ledger.database(), clock=lambda: begun + passed)
    vars(release)["ledger"] = ledger
    renew, renewed = Ledger.renew_evaluation, list[float]()

    def renewing(*given: Any, **more: Any) -> None:
        at = passed
        renew(*given, **more)
        renewed.append(at)

    def fresh() -> bool:
        return renewed[-1:] == [passed]

    def slow(workspace: Workspace, settings: Settings) -> None:
        nonlocal passed
        for _ in range(4):
            wait_for(fresh)
            passed += 0.9
            ended.extend(ledger.expire())
        STAGES["gate"](workspace, settings)

    monkeypatch.setattr(Ledger, "renew_evaluation", renewing)

    verdict = judge.judge_version(release, 1, home.workspace, "slow", sit=slow)
    assert (verdict.passed, verdict.attempt, ended) == (True, 2, [])
    assert release.ledger.version(1).state is State.PASSED
    actions = [event.action for event in release.ledger.events(1)]
    assert actions[-2:] == ["begin_evaluation", "record_verdict"]  # to renew is no event


def test_an_attempt_that_was_killed_and_whose_lease_ran_out_goes_on_with_its_own_key_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one begins anew, on episodes that nobody has seen, and counts."""
    release, rules = home.release, home.workspace.params().gate
    release.ledger.mark_stale(1, who=ANN)
    first = judge.begin(release, 1, rules, "run")  # and killed
    later = Ledger(release.ledger.database(), clock=lambda: time.time() + 3660)
    assert later.expire() == [1]
    again = judge.begin(release, 1, rules, "run")
    assert (again.attempt, again.lease) == (first.attempt, first.lease)
    assert later.expire() == [1]
    monkeypatch.setattr(Workspace, "run_stage", lambda at, stage, given: STAGES[stage](at, given))
    verdict, _ = judge_again(home.settings, 1)
    assert verdict.attempt == first.attempt + 1
    assert verdict.lease != first.lease
    assert release.ledger.version(1).state is State.PASSED


def test_a_rollback_forgets_nobody_who_met_the_champion(tmp_path: Path) -> None:
    """Alpha that is spent over a champion's candidates was whole again after each rollback."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    steps = Steps(ledger)

    def tried() -> int:
        version = steps.register()
        steps.begin(version)
        steps.judge(version, "inconclusive")
        events = ledger.events(version)
        began = [event for event in events if event.action == "begin_evaluation"][-1]
        return judge._tried(ledger, POLICY, began)

    assert tried() == 0
    first = steps.first()
    assert [tried() for _ in range(3)] == [0, 1, 2]
    steps.second()  # it met the first champion, too
    assert [tried() for _ in range(2)] == [0, 1]
    ledger.rollback(who=ANN)
    assert [tried() for _ in range(2)] == [4, 5]
    steps.second()
    steps.recalled(first)
    assert tried() == 7
    ledger.close()
