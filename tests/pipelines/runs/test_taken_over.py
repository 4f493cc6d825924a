"""Schedules of version 0.2, which only its `prefect.db` held, are taken over by `srghn up`."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipelines.runs import schedules
from pipelines.runs.calendar import seed_of
from pipelines.runs.prepare import resolved
from pipelines.runs.schedules import Schedule
from pipelines.runs.workspaces import Workspace
from pipelines.services.processes import free_port
from serving import runs
from serving.registry.ledger import Ledger
from serving.registry.upgrade import upgrade
from serving.settings import Settings
from tests import old_homes
from tests.conftest import Srghn
from tests.pipelines.conftest import home_at
from tests.pipelines.runs.test_schedule import TINY, answers, ended, parts, up, wait_until

PRESET = "cartpole-switch"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return old_homes.unpack("home-unfinished", tmp_path / "moved")


def twin(database: Path, name: str, active: bool, preset: str = PRESET, **more: str) -> None:
    """Another deployment like the fixture's `nightly`, as 0.2 would have made it."""
    with closing(sqlite3.connect(database)) as opened:
        for table, changes in (
            ("deployment", {"name": name, **more}),
            ("deployment_schedule", {"active": active}),
        ):
            found = opened.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in found.description]
            row = dict(zip(names, found.fetchone(), strict=True)) | changes
            row["id"] = row["id"][:-4] + name[:4].encode().hex()[:4]
            if table == "deployment":
                parameters = json.loads(row["parameters"]) | {"preset": preset}
                if name == "due":
                    parameters["overrides"] = TINY[1::2]
                row["parameters"] = json.dumps(parameters)
                deployment = row["id"]
            else:
                row["deployment_id"] = deployment
            marks = ", ".join("?" * len(row))
            opened.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(row.values()))
        opened.commit()


def states_of_runs(database: Path) -> list[tuple[str, str]]:
    """Each run that Prefect knows, with its state."""
    with closing(sqlite3.connect(database)) as opened:
        return sorted(opened.execute("SELECT name, state_type FROM flow_run"))


def was_off(settings: Settings, name: str) -> tuple[str, datetime]:
    """As if the machine had been off for a week: the run that is due, and its firing."""
    found = schedules.find(settings, name)
    handled = datetime.fromisoformat(found.handled) - timedelta(days=7)
    found = replace(found, handled=handled.isoformat(timespec="seconds"))
    due = found.due(datetime.now(UTC))
    assert due is not None
    schedules.save(settings, found)
    return found.run_id(due.firing), due.firing


@pytest.mark.slow
@pytest.mark.services
def test_schedules_of_an_old_prefect_database_are_taken_over_and_fire(
    srghn: Srghn, home: Path
) -> None:
    """Every part is killed once. The run that the killed worker had goes on under its own id."""
    database = home / "prefect" / "prefect.db"
    twin(database, "due", True)
    twin(database, "resting", False)
    twin(database, "broken", True, "presets/mine.yaml")
    whose = json.dumps({"env": {"SRGHN_HOME": "/another/home"}})
    twin(database, "foreign", False, infra_overrides=whose)
    settings = home_at(home)
    upgrade(settings.database_url, home / "backups")
    before = datetime.now(UTC)
    with up(home.parent, SRGHN_HOME=str(home)) as url:
        wait_until("schedules", lambda: len(schedules.listed(settings)) == 4)
        wait_until("worker", lambda: "worker" in parts(home))
        shown = {each["name"]: each for each in json.loads(listed(srghn, home))}
        assert {each["worker"] for each in shown.values()} == {True}
        for part in ("Prefect server", "HTTP server"):
            os.kill(parts(home)[part], signal.SIGKILL)
        run_id, firing = was_off(settings, "due")
        wait_until("run", lambda: runs.find(home, run_id) is not None)
        os.kill(parts(home)["worker"], signal.SIGKILL)
        ran = ended(home, run_id)
        # the run's process tells Prefect last
        wait_until("end", lambda: (run_id, "COMPLETED") in states_of_runs(database))
        wait_until("HTTP server", lambda: answers(f"{url}/health/live"))
    broken, due, nightly, resting = schedules.listed(settings)
    assert (ran.state, ran.resumed, ran.schedule) == ("finished", 1, "due")
    assert due.handled == firing.isoformat(timespec="seconds")
    params = Workspace(settings.workspaces / run_id).params()
    assert params.evolution.seed == seed_of(due.params["evolution"]["seed"], firing)
    with closing(Ledger(settings.database_url)) as ledger:
        assert ledger.version(ran.version or 0).run_id == run_id
    assert nightly == Schedule(
        "nightly", "0 3 * * 2", "Europe/Berlin",
        resolved(PRESET, ("evolution.generations=3",)).model_dump(mode="json"),
        PRESET, start="scratch", approve="manual", overlap="skip",
        imports=str(home.parent), added=nightly.added, handled=nightly.added,
    )  # fmt: skip
    assert nightly.added >= before.isoformat(timespec="seconds")  # nothing is made up for
    next_run = datetime.fromisoformat(shown["nightly"]["next_run"])
    there = next_run.astimezone(ZoneInfo("Europe/Berlin"))
    assert (there.isoweekday(), there.hour, there.minute) == (2, 3, 0)
    assert (resting.paused, resting.params) == (True, nightly.params)
    assert broken.paused
    assert "presets/mine.yaml could not be read" in broken.reason
    assert "add it again" in broken.reason
    assert [shown[name]["next_run"] for name in ("resting", "broken")] == [None, None]
    with closing(sqlite3.connect(database)) as opened:
        kept = opened.execute(
            "SELECT d.name FROM deployment d JOIN deployment_schedule s ON s.deployment_id = d.id"
        ).fetchall()
        entrypoints = opened.execute("SELECT name, entrypoint FROM deployment").fetchall()
    assert kept == [("foreign",)]  # another home's deployments are left alone
    # Prefect itself fires nothing more
    assert states_of_runs(database) == [
        (run_id, "COMPLETED"), (run_id, "CRASHED"), ("unselfish-jaguarundi", "CRASHED"),
    ]  # fmt: skip
    ours = {name for name, entry in entrypoints if entry == "pipelines.runs.flow.evolve_and_gate"}
    assert ours == {"due", "nightly", "resting", "broken", "run"}


def listed(srghn: Srghn, home: Path) -> str:
    done = srghn("schedule", "list", "--json", env={"SRGHN_HOME": str(home)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_until_then_commands_say_that_they_are_there(srghn_here: Srghn, home: Path) -> None:
    place = {"SRGHN_HOME": str(home)}
    listed = srghn_here("schedule", "list", "--json", env=place)
    said = "of version 0.2: nightly; srghn up or srghn worker takes them over"
    assert listed.stderr == f"srghn: schedules {said}\n"
    assert json.loads(listed.stdout) == []
    shown = srghn_here("schedule", "pause", "nightly", env=place)
    assert (shown.returncode, said in shown.stderr) == (3, True)
    (home / "prefect" / "prefect.db").write_bytes(b"no database")
    assert srghn_here("schedule", "list", env=place).stderr == ""


def test_a_configured_server_that_is_dead_is_told(srghn_here: Srghn, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home").resolved()
    params = resolved("cartpole-switch", ()).model_dump(mode="json")
    schedules.add(settings, Schedule("nightly", "0 3 * * 2", "UTC", params, "cartpole-switch"))
    place = {
        "SRGHN_HOME": str(settings.home),
        "SRGHN_PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
    }
    listed = srghn_here("schedule", "list", env=place)
    assert (listed.returncode, listed.stdout) == (3, "")
    assert listed.stderr.startswith("srghn: no Prefect server answers at http://127.0.0.1:")
    assert listed.stderr.count("\n") == 1
    paused = srghn_here("schedule", "pause", "nightly", env=place)
    assert (paused.returncode, paused.stdout, paused.stderr.count("\n")) == (3, "", 1)
    assert "the schedule's file is written, but no Prefect server answers" in paused.stderr
    assert schedules.find(settings, "nightly").paused


def test_names_that_were_stored_still_resolve() -> None:
    """Deployments, `dvc.yaml` files and parameter files of 0.2 name these."""
    from pipelines import flows, stages
    from pipelines.runs import flow
    from pipelines.runs import stages as current
    from srghn.envs.registry import load_object
    from srghn.policies import MLP

    assert flows.evolve_and_gate is flow.evolve_and_gate
    assert stages.main is current.main
    assert load_object("srghn.policies:MLP", "network.module") is MLP
