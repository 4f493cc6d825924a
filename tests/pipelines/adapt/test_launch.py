"""A run that an alarm asks for is worked on here, or handed to the workers once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import pytest

from pipelines.adapt.launch import by_hand, to_workers
from pipelines.adapt.request import request_of
from pipelines.runs.workspaces import create_workspace
from serving import runs
from serving.registry.rules import AdaptTerms
from srghn.config import RunParams, Switch
from srghn.envs import EnvVersion, pin
from srghn.errors import SrghnError
from tests.pipelines.adapt.conftest import Served


class Handed:
    """Stands for a Prefect server: keeps what it is asked for."""

    asked: list[tuple[Any, ...]]

    def __init__(self, settings: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def go_on(self, *given: Any) -> None:
        type(self).asked.append(given)


def other_world(served: Served) -> EnvVersion:
    schedule = (Switch(generation=9, mode="flipped"),)
    return pin(served.world.params.model_copy(update={"schedule": schedule}))


def test_the_workers_get_it_under_its_own_id(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    Handed.asked = []
    monkeypatch.setattr("pipelines.runs.deployments.Prefect", Handed)
    workspace = create_workspace(served.settings, "adapt-1", RunParams())
    launch = to_workers(served.settings)
    launch(workspace, "auto")
    assert Handed.asked == [("adapt-1", None, "auto", 0)]


def test_a_run_that_fails_here_leaves_its_trace_and_an_event(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry_out(*given: Any) -> None:
        raise SrghnError("no candidate is good enough")

    monkeypatch.setattr("pipelines.runs.work.carry_out", carry_out)
    workspace = create_workspace(served.settings, "adapt-2", RunParams())
    with pytest.raises(SrghnError, match="no candidate"):
        by_hand(served.settings)(workspace, "manual")
    trace = runs.find(served.settings.home, "adapt-2")
    assert trace is not None
    assert trace.state == "failed"
    [event] = served.ledger.notes("policy", "run_failed")
    assert event.reason == "run adapt-2 failed: no candidate is good enough"


def test_a_run_is_for_the_policy_that_alarms(served: Served) -> None:
    served.first(bias=0.3)
    champion = served.ledger.champion()
    assert champion is not None
    request = request_of(
        served.release,
        replace(champion, policy="other"),
        served.world,
        "flipped",
        AdaptTerms(),
        450.0,
        "adapt-3",
    )
    assert request.target.policy == "other"
    assert request.params is not None
    assert (request.start, request.params.evolution.mode) == ("champions", "flipped")
    again = request_of(
        served.release, champion, other_world(served), "normal", AdaptTerms(), 450.0, "adapt-3"
    )
    assert again.start == "scratch"  # its lineage is of another world


def test_a_run_begins_at_a_recall_only_where_its_genome_was_evolved(served: Served) -> None:
    """The champion passed in another world than the one that its candidate's manifest names."""
    served.first(bias=0.3)
    champion, other = served.ledger.champion(), other_world(served)
    assert champion is not None
    recalled = replace(champion, env_fingerprint=other.fingerprint)
    starts = [
        request_of(served.release, recalled, world, "normal", AdaptTerms(), 450.0, "adapt-4").start
        for world in (served.world, other)
    ]
    assert starts == ["champions", "scratch"]
