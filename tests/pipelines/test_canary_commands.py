"""`srghn canary shadow|pause|hold|resume|holdback`: what a person does around a trial."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.versions.release import Release
from serving.registry.ledger import POLICY
from serving.trial.compared import Compared
from srghn.config import CanaryParams
from tests.serving.conftest import Home, maker

Run = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    made = Home(tmp_path / "home", maker(tmp_path))
    monkeypatch.setenv("SRGHN_HOME", str(tmp_path / "home"))
    # these candidates were evolved in no world that could be pinned again
    monkeypatch.setattr(Release, "require_world", lambda self, version: None)
    made.first()
    yield made
    made.ledger.close()


@pytest.fixture
def run(home: Home) -> Run:
    def call(*arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if code == 0 else str(done.exception)

    return call


def test_a_shadow_is_begun_shown_and_ended(home: Home, run: Run) -> None:
    version = home.approved(bias=1.0)
    number = str(version)
    assert "needs a reason" in run("canary", "shadow", number, code=1)
    begun = run("canary", "shadow", number, "--reason", "first")
    assert (begun["state"], begun["copies"], begun["disagreement"]) == ("SHADOW", 0, None)
    epoch, _ = home.ledger.compared(POLICY, version)
    home.ledger.add_compared(POLICY, epoch, Compared(copies=50, timed=50, differed=5))
    shown = run("canary", "shadow", number)
    assert (shown["copies"], shown["disagreement"]) == (50, 0.1)
    assert set(shown["guards"]) == {"errors", "invalid actions", "latency"}
    assert max(shown["guards"].values()) < 1
    ended = run("canary", "shadow", number, "--stop", "--reason", "enough")
    assert (ended["state"], ended["copies"]) == ("APPROVED", 50)


def test_a_trial_is_paused_held_and_resumed(home: Home, run: Run) -> None:
    home.steps.canary(
        home.approved(bias=1.0), params=CanaryParams(return_low=0.0, return_high=500.0)
    )
    for word, status in (("pause", "paused"), ("hold", "held"), ("resume", "running")):
        told = run("canary", word, "--reason", "because")
        assert told["status"] == status
        running = home.ledger.canary()
        assert running is not None
        assert running.status == status


def test_a_window_is_shown_and_ended(home: Home, run: Run) -> None:
    assert run("canary", "holdback")["window"] is None
    run("deploy", "rules", "set", "holdback.share=0.2", "--reason", "be careful")
    version = home.second(bias=1.0)
    window = run("canary", "holdback")["window"]
    assert (window["version"], window["predecessor"], window["share"]) == (version, 1, 0.2)
    assert window["decision"]["action"] == "wait"
    assert "needs a reason" in run("canary", "holdback", "--stop", code=1)
    run("canary", "holdback", "--stop", "--reason", "enough")
    assert run("canary", "holdback")["window"] is None


def test_guards_are_set_by_path(home: Home, run: Run) -> None:
    rules = run("deploy", "rules", "set", "guards.latency=3", "--reason", "slower machine")
    assert rules["guards"] == {"alpha": 0.01, "latency": 3.0, "slack_ms": 1.0}
    assert home.ledger.deployment_rules().guards.latency == 3
    assert home.ledger.events()[-1].reason == "slower machine"
    assert home.ledger.events()[-1].actor.startswith("cli:")
