"""The watch alarms where returns fall below the gate's promise, once, and sees a recovery."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from serving.control.watch import DRIFT, RECOVERY, Watch
from serving.registry import schema
from serving.registry.ledger import Ledger
from serving.registry.records import Start, Who
from serving.registry.rules import WatchTerms
from serving.registry.schema import POLICY
from srghn.config import CanaryParams
from tests.serving.conftest import Steps


class Served:
    """A champion that the gate promised 80% of the range, and its episodes."""

    def __init__(self, ledger: Ledger, steps: Any, **verdict: Any) -> None:
        self.ledger, self.policy, self.count = ledger, steps.policy, 0
        self.version = steps.register(
            manifest={"canary": CanaryParams(return_low=0.0, return_high=500.0).model_dump()}
        )
        steps.begin(self.version)
        steps.judge(self.version, **{"promise": 0.8, **verdict})
        steps.approve(self.version)
        ledger.promote(self.version, expected_generation=0, who=Who("ann", "first"))
        rules = ledger.deployment_rules(self.policy)
        terms = WatchTerms(run_length=1000, margin=0.05)
        ledger.set_deployment_rules(
            rules.model_copy(update={"watch": terms}),
            who=Who("ann", "few episodes"),
            policy=self.policy,
        )
        self.watch = Watch(ledger, self.policy)

    def play(self, mean: float, count: int, ended: bool = True) -> None:
        rng = np.random.default_rng(self.count)
        for _ in range(count):
            self.count += 1
            name, now = f"w-{self.count}", time.time()
            start = Start(name, self.version, generation=1, started_at=now, deadline=now - 1)
            start = replace(start, policy=self.policy)
            self.ledger.start_episodes([start])
            if ended:
                value = float(np.clip(500 * mean + rng.uniform(-40, 40), 0, 500))
                self.ledger.record_outcome(self.policy, name, value, 10, True)

    def events(self) -> list[str]:
        kinds = (DRIFT, RECOVERY)
        return [event.action for event in self.ledger.events() if event.action in kinds]


@pytest.fixture
def served(ledger: Ledger, steps: Any) -> Served:
    return Served(ledger, steps)


def test_returns_that_hold_are_steady(served: Served) -> None:
    served.play(0.8, 150)
    served.watch.look()
    seen = served.watch.view()
    assert (seen.status, seen.outcomes) == ("steady", 150)
    assert seen.promise == pytest.approx(0.75)
    assert served.events() == []


def test_a_fall_alarms_once_and_a_recovery_ends_it(served: Served) -> None:
    served.play(0.8, 60)
    served.watch.look()
    for _ in range(4):
        served.play(0.3, 10)
        served.watch.look()
    assert served.events() == [DRIFT]
    assert served.watch.view().status == "drift"
    [event] = [event for event in served.ledger.events() if event.action == DRIFT]
    assert event.version is None
    assert "fell below 75.0% of the range" in event.reason
    assert served.watch.view().alarm == event.hash
    # of the 100 outcomes by then it says after which one it was sure
    assert event.evidence_sha256 is not None
    assert 60 < served.ledger.evidence(event.evidence_sha256)["outcomes"] < 80
    for _ in range(20):
        served.play(0.95, 10)
        served.watch.look()
    assert served.events() == [DRIFT, RECOVERY]
    assert served.watch.view().status == "steady"


def test_two_policies_may_fall_after_as_many_outcomes(ledger: Ledger, steps: Any) -> None:
    """A cause that both have; the second's event was refused, and its server not ready."""
    ledger.add_policy("other", who=Who("ann", "another one"))
    both = [Served(ledger, made) for made in (steps, Steps(ledger, "other"))]
    for served in both:
        served.play(0.0, 40)
        served.watch.look()
    assert [served.watch.view().status for served in both] == ["drift", "drift"]
    assert both[0].events() == [DRIFT, DRIFT]


def test_workers_count_each_outcome_once(served: Served) -> None:
    served.play(0.8, 30)
    other = Watch(served.ledger)
    served.watch.look()
    other.look()
    assert other.view().outcomes == served.watch.view().outcomes == 30


def test_silence_is_blind_and_never_steady(served: Served) -> None:
    served.play(0.8, 30, ended=False)
    served.watch.look()
    seen = served.watch.view()
    assert seen.status == "blind"
    assert "0 of the last 30 episodes" in seen.why
    for watch in (served.watch, served.watch, Watch(served.ledger)):  # told once, by whichever
        watch.tell_silence(seen)
    told = served.ledger.notes(POLICY, "blind")
    assert [event.reason for event in told] == [seen.why]


def test_silence_is_blind_though_old_answers_outnumber_what_was_not_deleted(
    served: Served,
) -> None:
    """Starts without an outcome are deleted after a week; those with one are kept for ever."""
    served.play(0.8, 200)
    served.watch.look()
    served.play(0.8, 30, ended=False)
    assert served.watch.view().status == "steady"
    with served.ledger.database().write() as connection:
        old = schema.starts.c.arrived.is_not(None)
        long_ago = time.time() - 8 * 24 * 3600
        connection.execute(update(schema.starts).where(old).values(started_at=long_ago))
    assert served.watch.view().status == "blind"


def test_what_is_steady_is_not_told_as_silence(served: Served) -> None:
    served.play(0.8, 30)
    served.watch.look()
    served.watch.tell_silence(served.watch.view())
    assert served.ledger.notes(POLICY, "blind") == []


def test_without_a_promise_nothing_is_claimed(ledger: Ledger, steps: Any) -> None:
    served = Served(ledger, steps, promise=None)
    served.play(0.1, 30)
    served.watch.look()
    view = served.watch.view()
    assert view.status == "unwatched"
    assert "no range of returns and no promised mean; gate a candidate" in view.why


def test_the_state_is_plain_json(served: Served) -> None:
    served.play(0.3, 40)
    served.watch.look()
    running = served.ledger.watch_state()
    assert running is not None
    assert json.loads(json.dumps(running.state))["generation"] == 1


def test_returns_outside_the_range_are_clipped_and_counted(served: Served) -> None:
    for number, value in enumerate((900.0, 500.0, 0.0, -1.0)):
        name, now = f"x-{number}", time.time()
        start = Start(name, served.version, generation=1, started_at=now, deadline=now - 1)
        served.ledger.start_episodes([start])
        served.ledger.record_outcome(POLICY, name, value, 10, True)
    served.watch.look()
    seen = served.watch.view()
    assert (seen.outcomes, seen.outside, seen.mean) == (4, 2, 0.5)
