"""What is refused before a run evolves anything: a mode of service that its world lacks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines import progress
from pipelines.cli import app
from pipelines.runs import prepare, runner
from pipelines.runs.prepare import check_served_mode
from pipelines.runs.target import Target
from serving.registry.records import Who
from srghn.config import EnvParams
from srghn.envs import EnvVersion, pin
from srghn.errors import ConfigError
from tests.conftest import Srghn
from tests.pipelines.conftest import Home, Tiny

ANN = Who("ann", "they rewired it")


def test_a_mode_of_service_that_the_world_lacks_is_refused_by_run_and_check(
    srghn_here: Srghn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a champion any mode is taken, so a typing error was met after the evolution."""
    monkeypatch.setattr(runner, "execute", lambda *_: pytest.fail("evolved"))
    assert srghn_here("mode", "set", "garbage", "--reason", "a typing error").returncode == 0
    for command in (("run", "--preset", "cartpole"), ("check", "cartpole")):
        done = srghn_here(*command)
        assert done.returncode == 3, done.stdout
        assert "is in mode 'garbage'" in done.stderr
        assert "modes: normal" in done.stderr
        assert "srghn mode set normal --reason ..." in done.stderr
    assert not list(tmp_path.glob(".srghn/workspaces/*"))
    assert srghn_here("mode", "set", "normal", "--reason", "mended").returncode == 0
    assert srghn_here("check", "cartpole").returncode == 0
    other = srghn_here("check", "cartpole", "--policy", "arm")
    assert other.returncode == 0
    assert "note     there is no policy 'arm' yet" in other.stdout


def test_a_ledger_that_nobody_asked_for_does_not_fail_a_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRGHN_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    done = CliRunner().invoke(app, ["check", "cartpole", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["ok"]
    assert found["notes"][-1].startswith("the mode in service was not checked: cannot use the ledg")
    for asked in (("--policy", "arm"), ("--successor",)):
        done = CliRunner().invoke(app, ["check", "cartpole", "--json", *asked])
        assert done.exit_code == 3
        assert json.loads(done.stdout)["error"]["kind"] == "LedgerUnreachable"


def test_a_champion_of_another_world_leaves_a_policy_of_its_own(home: Home, tiny: Tiny) -> None:
    release = home.release
    world = pin(tiny().env)
    check_served_mode(release, world)
    release.approve(1, "ann", "it passed")
    check_served_mode(release, world)
    release.ledger.set_mode("policy", "icy", who=ANN)
    with pytest.raises(ConfigError, match="or give it a policy of its own: srghn run --policy"):
        check_served_mode(release, world)
    check_served_mode(release, world, Target("arm"))  # yet to be made


def test_a_successor_is_judged_in_its_own_mode(home: Home, tiny: Tiny) -> None:
    home.release.approve(1, "ann", "it passed")
    home.release.ledger.set_mode("policy", "icy", who=ANN)
    other = pin(tiny().env.model_copy(update={"id": "Pendulum-v1", "schedule": ()}))
    check_served_mode(home.release, other, Target(successor=True))
    with pytest.raises(ConfigError, match="has no such mode"):
        check_served_mode(home.release, pin(tiny().env), Target(successor=True))


# ------------------------------------------------------------------------------------ pinning


def test_check_tells_that_it_pins(srghn_here: Srghn) -> None:
    done = srghn_here("check", "cartpole", "--json")
    assert done.stderr.splitlines()[0] == "  pin CartPole-v1 ..."
    assert json.loads(done.stdout)["ok"]


def test_a_run_tells_that_it_pins_once_that_has_taken_long(
    home: Home, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told, show = threading.Event(), progress.console.print

    def shown(*given: object, **more: bool) -> None:
        show(*given, **more)  # type: ignore[arg-type]
        told.set()

    def slow(params: EnvParams, tell: Callable[[str], None]) -> EnvVersion:
        assert told.wait(60)
        return pin(params, tell)

    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 600)
    prepare.check(home.settings, tiny())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(progress.console, "print", shown)
    monkeypatch.setattr("srghn.envs.pin", slow)
    prepare.check(home.settings, tiny())
    assert capsys.readouterr().err == f"  pin {tiny().env.id} ...\n"
