"""Approving: what it leads to, what it checks first, and that a repeated request does nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.control import release
from serving.registry.artefacts import ArtefactStore
from serving.registry.ledger import Ledger
from serving.registry.records import Who
from serving.registry.rules import DeploymentRules, HoldbackTerms
from serving.registry.states import State
from srghn.candidates.candidate import Candidate
from srghn.config import CanaryParams
from srghn.errors import ArtefactError, TransitionRefused
from tests.serving.conftest import Steps

RULES = CanaryParams(weight=0.4, min_episodes=5, return_low=0.0, return_high=500.0)
Approve = Callable[..., State]


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "artefacts")


@pytest.fixture
def approve(ledger: Ledger, store: ArtefactStore) -> Approve:
    def call(version: int, key: str | None = None) -> State:
        who, report = Who("ann", "read it", key), str(ledger.version(version).report_digest)
        return release.approve(ledger, store, version, RULES, report_digest=report, who=who)

    return call


@pytest.fixture
def passed(
    steps: Steps, store: ArtefactStore, make_candidate: Callable[..., Candidate]
) -> Callable[[], int]:
    """Versions that passed, each with an artefact of its own."""
    biases = iter(range(10))

    def make() -> int:
        digest = store.put(make_candidate(bias=float(next(biases))).path)
        version = steps.register(digest)
        steps.begin(version)
        steps.judge(version)
        return version

    return make


def test_the_first_is_promoted_the_second_tried_the_third_waits(
    approve: Approve, passed: Callable[[], int], ledger: Ledger
) -> None:
    first = passed()
    assert approve(first) is State.CHAMPION
    second, third = passed(), passed()
    assert approve(second) is State.CANARY
    running = ledger.canary()
    assert running is not None
    assert (running.version, running.weight) == (second, 0.05)
    assert (running.rules.weight, running.rules.margin) == (0.4, RULES.margin)
    assert approve(third) is State.APPROVED


def test_a_repeated_request_does_nothing(
    approve: Approve, passed: Callable[[], int], ledger: Ledger
) -> None:
    first = passed()
    assert approve(first, key="once") is State.CHAMPION
    events = len(ledger.events())
    assert approve(first, key="once") is State.CHAMPION
    assert len(ledger.events()) == events


def test_what_does_not_load_is_refused_before_anything_is_recorded(
    approve: Approve, passed: Callable[[], int], ledger: Ledger, store: ArtefactStore
) -> None:
    version = passed()
    policy = store.path(ledger.version(version).digest) / "policy.onnx"
    policy.chmod(0o644)
    policy.write_bytes(b"torn")
    with pytest.raises(ArtefactError):
        approve(version)
    assert ledger.version(version).state is State.PASSED


def test_canary_rules_are_those_registered(steps: Steps, ledger: Ledger) -> None:
    kept = {release.CANARY: RULES.model_dump(mode="json")}
    found = ledger.version(steps.register(manifest=kept))
    assert release.canary_rules(found) == RULES
    with pytest.raises(TransitionRefused, match="without canary parameters"):
        release.canary_rules(ledger.version(steps.register()))


def test_where_a_shadow_comes_first_approving_begins_it(
    approve: Approve, passed: Callable[[], int], ledger: Ledger
) -> None:
    approve(passed())
    rules = DeploymentRules(shadow_first=True)
    ledger.set_deployment_rules(rules, who=Who("ann", "be careful"))
    second, third = passed(), passed()
    assert approve(second) is State.SHADOW
    assert approve(third) is State.APPROVED  # there is one shadow at a time


def test_in_a_champions_window_an_approved_version_waits(
    approve: Approve, passed: Callable[[], int], ledger: Ledger, steps: Steps
) -> None:
    approve(passed())
    rules = DeploymentRules(holdback=HoldbackTerms())
    ledger.set_deployment_rules(rules, who=Who("ann", "be careful"))
    steps.second()
    waiting = passed()
    assert approve(waiting) is State.APPROVED
    ledger.end_holdback(who=Who("ann", "enough"))
    assert approve(passed()) is State.CANARY
