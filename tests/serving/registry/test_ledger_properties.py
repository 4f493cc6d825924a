"""Whatever is asked of the ledger, in any order: its invariants hold, and its history verifies."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from serving.registry.ledger import Ledger
from serving.registry.records import Who
from serving.registry.states import TRANSITIONS, State
from srghn.errors import TransitionRefused

VERSION = st.integers(1, 6)
WORDS = st.sampled_from(["passed", "passed", "passed", "failed", "inconclusive", "error"])


class LedgerMachine(RuleBasedStateMachine):
    """Random callers. A refusal is a fine answer; a broken invariant is not."""

    make_steps: Any = None

    @initialize(champions=st.integers(0, 2))
    def open(self, champions: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1000.0
        self.ledger = Ledger(f"sqlite:///{self.folder / 'l.db'}", clock=lambda: self.now)
        self.steps = type(self).make_steps(self.ledger)
        self.last = (0, 0)  # events, generation
        self.quarantined: set[int] = set()
        for _ in range(6):
            self.steps.register()
        for version in range(1, champions + 1):
            self.succeed(version)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.verify()
            self.ledger.close()
            shutil.rmtree(self.folder)

    def attempt(self, call: Any, *args: Any, **kwargs: Any) -> None:
        before = len(self.ledger.events())
        try:
            call(*args, **kwargs)
        except TransitionRefused:
            # nothing was changed, but for what ran out by itself
            added = self.ledger.events(since=before)
            assert all(event.action == "expire" for event in added)

    @rule(version=VERSION)
    def begin(self, version: int) -> None:
        self.attempt(self.steps.begin, version, lease_seconds=50)

    @rule(version=VERSION)
    def resume(self, version: int) -> None:
        self.attempt(self.steps.resume, version, lease_seconds=50)

    @rule(version=VERSION, word=WORDS)
    def judge(self, version: int, word: str) -> None:
        self.attempt(self.steps.judge, version, word)

    @rule(version=VERSION)
    def approve(self, version: int) -> None:
        self.attempt(self.steps.approve, version)

    @rule(version=VERSION)
    def qualify(self, version: int) -> None:
        """The whole way to an approval, so that deep states are reached often."""
        for call in (self.steps.begin, self.steps.judge, self.steps.approve):
            self.attempt(call, version)

    @rule(version=VERSION, played=st.booleans())
    def succeed(self, version: int, played: bool = True) -> None:
        """The whole way to the top, as far as it is free, with evidence or without."""
        self.qualify(version)
        self.attempt(self.steps.canary, version)
        if played and self.ledger.canary() is not None:
            self.play(True)
        self.promote(version, 0, True)

    @rule(version=VERSION, generation=st.integers(0, 5), right=st.booleans())
    def promote(self, version: int, generation: int, right: bool) -> None:
        champion = self.ledger.champion()
        expected = (champion.generation if champion else 0) if right else generation
        self.attempt(
            self.ledger.promote,
            version,
            expected_generation=expected,
            who=Who("ann", "why not"),
        )

    @rule(version=VERSION)
    def canary(self, version: int) -> None:
        self.attempt(self.steps.canary, version)

    @precondition(lambda self: self.ledger.canary())
    @rule(good=st.booleans())
    def play(self, good: bool) -> None:
        self.steps.play(self.ledger.canary(), 10.0 if good else 490.0, 490.0 if good else 10.0, 10)

    @precondition(lambda self: self.ledger.canary())
    @rule()
    def abort(self) -> None:
        self.attempt(self.ledger.abort_canary, who=Who("ann", "no"))

    @rule(to=st.none() | VERSION)
    def rollback(self, to: int | None) -> None:
        self.attempt(self.ledger.rollback, who=Who("ann", "back"), to_version=to)

    @rule(version=VERSION, action=st.sampled_from(["revoke", "reject", "mark_stale"]))
    def withdraw(self, version: int, action: str) -> None:
        self.attempt(getattr(self.ledger, action), version, who=Who("ann", "no"))

    @rule(seconds=st.sampled_from([1, 60, 40 * 24 * 3600]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.ledger.expire()

    @invariant()
    def one_champion_once_there_was_one(self) -> None:
        if not hasattr(self, "ledger"):
            return
        events = self.ledger.events()
        crowned = [event for event in events if event.to_state == State.CHAMPION]
        champion = self.ledger.champion()
        states = {version.version: version.state for version in self.ledger.versions()}
        holders = [number for number, state in states.items() if state is State.CHAMPION]
        assert (champion is not None) == bool(crowned)
        assert holders == ([champion.version] if champion else [])
        assert (champion.generation if champion else 0) == len(crowned)
        assert (len(events), len(crowned)) >= self.last
        self.last = (len(events), len(crowned))

    @invariant()
    def what_is_served_has_passed(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for served in self.ledger.served():
            if served is not None:
                _, verdict = self.ledger.passed(served.version)
                assert verdict["verdict"] == "passed"
                assert verdict["candidate_digest"] == served.digest
        canary = self.ledger.canary()
        trials = [v for v in self.ledger.versions() if v.state is State.CANARY]
        assert [v.version for v in trials] == ([canary.version] if canary else [])

    @invariant()
    def a_pass_holds_for_its_incumbent_alone(self) -> None:
        if not hasattr(self, "ledger"):
            return
        champion = self.ledger.champion()
        for version in self.ledger.versions():
            if version.state in (State.PASSED, State.APPROVED, State.CANARY):
                assert version.incumbent_generation == (champion.generation if champion else 0)

    @invariant()
    def a_trial_is_won_by_evidence(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for event in self.ledger.events():
            if (event.from_state, event.to_state) == (State.CANARY, State.CHAMPION):
                assert self.ledger.evidence(str(event.evidence_sha256))["action"] == "promote"

    @invariant()
    def the_withdrawn_never_come_back_by_themselves(self) -> None:
        if not hasattr(self, "ledger"):
            return
        final = {state for state, ends in TRANSITIONS.items() if not ends}
        gone = {v.version for v in self.ledger.versions() if v.state in final}
        assert self.quarantined <= gone
        self.quarantined = gone

    @invariant()
    def history_verifies(self) -> None:
        if hasattr(self, "ledger"):
            assert self.ledger.verify() == len(self.ledger.events())


def test_the_invariants_hold_whatever_is_asked(steps: Any) -> None:
    LedgerMachine.make_steps = type(steps)
    machine = LedgerMachine.TestCase
    machine.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
    machine("runTest").runTest()
