"""`srghn canary ...`: what a person does around a trial, and what is shown of it and of others."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.commands.records import Records, write
from pipelines.versions.people import actor
from pipelines.versions.release import Release
from serving.registry.database import Database
from serving.registry.ledger import POLICY
from serving.registry.records import Who
from serving.tokens import Tokens
from serving.trial.compared import Compared
from srghn.config import CanaryParams
from tests.conftest import Srghn
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


def test_a_plan_says_that_a_trial_continues_another(home: Home, run: Run) -> None:
    """It showed the rules of a trial that begins anew."""
    params = CanaryParams(return_low=0.0, return_high=500.0, margin=0.04)
    version = home.approved(bias=1.0, canary=params.model_dump(mode="json"))
    number = str(version)
    assert run("canary", "plan", number)["before"] == 0
    home.steps.play(home.steps.canary(version, params=params), 300.0, 310.0, 1)
    home.ledger.expire_canary(who=Who("ann", "again"))
    run("deploy", "rules", "set", "trial.margin=0.1", "--reason", "later")
    planned = run("canary", "plan", number)
    assert (planned["before"], planned["margin"]) == (2, 0.04)
    told = CliRunner().invoke(app, ["canary", "plan", number]).stdout
    assert "it continues with 2 episodes of an earlier trial, by that trial's rules" in told


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


def test_the_history_tells_what_changed_in_a_trial(home: Home, run: Run) -> None:
    """Not that it led from CANARY to CANARY, nor a share of 0.4% that is 0%."""
    version = home.approved(bias=1.0)
    home.steps.canary(version, params=CanaryParams(return_low=0.0, return_high=500.0))
    share = CliRunner().invoke(app, ["canary", "weight", "0.004", "--reason", "a small one"])
    assert share.stdout == f"version {version} is CANARY at 0.4%\n"
    assert f"version {version} at 0.4%" in CliRunner().invoke(app, ["status"]).stdout
    run("canary", "pause", "--reason", "a pause")
    run("mode", "set", "normal", "--reason", "as it was")
    rows = CliRunner().invoke(app, ["history"]).stdout.splitlines()
    steps = {fields[-1]: fields[3] for fields in (row.split("\t") for row in rows)}
    assert steps["a small one"] == "set_canary_weight: 0.4%"
    assert steps["a pause"] == "set_trial_status: paused"
    assert steps["as it was"] == "set_mode: normal"
    assert "APPROVED -> CANARY" in steps.values()


STEER = "\x1b]0;owned\x07 \x9b2J \x00 [red]ann[/red]"
SHOWN = "\\x1b]0;owned\\x07 \\x9b2J \\x00 [red]ann[/red]"


def test_what_others_wrote_does_not_steer_the_terminal(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger may hold reasons from before they were refused, and another's database any."""
    monkeypatch.setattr("serving.registry.ledger.control_in", lambda *texts: None)
    monkeypatch.setattr("serving.tokens.control_in", lambda *texts: None)
    home.ledger.note("seen", {}, who=Who(STEER, STEER))
    Tokens(Database(home.settings.database_url)).add(STEER, ["review"])
    for command in (("history",), ("token", "list")):
        done = CliRunner().invoke(app, command)
        assert SHOWN in done.stdout
        assert not set(done.stdout) & {"\x1b", "\x07", "\x9b", "\0"}


def test_a_terminal_gets_texts_and_tables_without_their_control_characters() -> None:
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=True, color_system=None, width=200)
    rows = Records("", "by")
    rows.add_row(STEER)
    write(console, rows)
    write(console, STEER, markup=False)
    assert sink.getvalue().count(SHOWN) == 2
    assert not set(sink.getvalue()) & {"\x07", "\x9b", "\0"}
    assert "\x1b]" not in sink.getvalue()


def test_revoking_the_tokens_of_nobody_is_refused(home: Home, srghn_here: Srghn) -> None:
    place = {"SRGHN_HOME": str(home.settings.home)}
    assert srghn_here("token", "add", "ann", env=place).returncode == 0
    refused = srghn_here("token", "revoke", "anne", env=place)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "'anne' has no token to revoke; tokens are of ann;" in refused.stderr
    assert srghn_here("token", "revoke", "ann", env=place).stdout == "1 token revoked\n"
    assert srghn_here("token", "revoke", "ann", env=place).stdout == "0 tokens revoked\n"


def test_the_history_says_who_made_and_revoked_a_token_when_and_why(
    home: Home, srghn_here: Srghn
) -> None:
    place = {"SRGHN_HOME": str(home.settings.home)}
    why = ("--reason", "it was in a log")
    made = srghn_here("token", "add", "ann", "--days", "9", "--policy", "policy", env=place)
    srghn_here("token", "rotate", "ann", "--overlap-hours", "1", *why, env=place)
    before = time.time()
    assert srghn_here("token", "revoke", "ann", *why, env=place).stdout == "2 tokens revoked\n"
    assert srghn_here("token", "revoke", "ann", *why, env=place).stdout == "0 tokens revoked\n"
    added, rotated, revoked = home.ledger.events()[-3:]
    assert [added.action, rotated.action, revoked.action] == [
        "add_token",
        "rotate_token",
        "revoke_tokens",
    ]
    assert added.reason == "no reason was given"
    assert revoked.reason == rotated.reason == "it was in a log"
    assert revoked.actor == actor()
    assert before - 1 < datetime.fromisoformat(revoked.at).timestamp() < time.time() + 1
    said = home.ledger.evidence(str(added.evidence_sha256))
    assert set(said) == {"owner", "scopes", "policy", "created_at", "expires_at"}
    assert made.stdout.strip() not in json.dumps(said)
    rows = srghn_here("history", env=place).stdout.splitlines()
    assert [row.split("\t")[3] for row in rows[-3:]] == [
        "add_token: ann",
        "rotate_token: ann",
        "revoke_tokens: ann",
    ]
    refused = srghn_here("token", "add", "bob", "--policy", "none", env=place)
    assert refused.returncode == 3
    assert home.ledger.events()[-1] == revoked  # what was not made is not recorded


def test_hints_name_the_policy(home: Home, srghn_here: Srghn) -> None:
    place = {"SRGHN_HOME": str(home.settings.home)}
    home.ledger.add_policy("arm", who=Who("ann", "another"))
    said = srghn_here("candidates", "--policy", "arm", env=place).stdout
    assert said == "no version yet: srghn run --policy arm\n"
    refused = srghn_here("diagnose", "--policy", "arm", env=place)
    assert "srghn run --policy arm --approve auto makes the first" in refused.stderr
