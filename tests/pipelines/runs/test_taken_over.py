"""Schedules of version 0.2, which only its `prefect.db` held, are taken over by `srghn up`."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipelines.runs import schedules
from pipelines.runs.prepare import resolved
from pipelines.runs.schedules import Schedule
from pipelines.services.processes import free_port
from serving.registry.upgrade import upgrade
from serving.settings import Settings
from tests import old_homes
from tests.conftest import Srghn
from tests.pipelines.conftest import home_at
from tests.pipelines.runs.test_schedule import wait_until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return old_homes.unpack("home-unfinished", tmp_path / "moved")


def twin(database: Path, name: str, active: bool, preset: str, **more: str) -> None:
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
                row["parameters"] = json.dumps({**json.loads(row["parameters"]), "preset": preset})
                deployment = row["id"]
            else:
                row["deployment_id"] = deployment
            marks = ", ".join("?" * len(row))
            opened.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(row.values()))
        opened.commit()


@contextmanager
def up(home: Path) -> Iterator[None]:
    """`srghn up` of a home, until the block ends."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SRGHN_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "up", "--port", "0"],
        cwd=home.parent,
        env={**environment, "SRGHN_HOME": str(home)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 130


@pytest.mark.slow
@pytest.mark.services
def test_schedules_of_an_old_prefect_database_are_taken_over(srghn: Srghn, home: Path) -> None:
    database = home / "prefect" / "prefect.db"
    twin(database, "resting", False, "cartpole-switch")
    twin(database, "broken", True, "presets/mine.yaml")
    whose = json.dumps({"env": {"SRGHN_HOME": "/another/home"}})
    twin(database, "foreign", False, "cartpole-switch", infra_overrides=whose)
    settings = home_at(home)
    upgrade(settings.database_url, home / "backups")
    before = datetime.now(UTC)
    with up(home):
        wait_until("schedules", lambda: len(schedules.listed(settings)) == 3)
        wait_until("worker", lambda: json.loads(listed(srghn, home))[1]["worker"])
        shown = {each["name"]: each for each in json.loads(listed(srghn, home))}
    broken, nightly, resting = schedules.listed(settings)
    assert nightly == Schedule(
        "nightly", "0 3 * * 2", "Europe/Berlin",
        resolved("cartpole-switch", ("evolution.generations=3",)).model_dump(mode="json"),
        "cartpole-switch", start="scratch", approve="manual", overlap="skip",
        imports=str(home.parent), added=nightly.added, handled=nightly.added,
    )  # fmt: skip
    assert nightly.added >= before.isoformat(timespec="seconds")  # nothing is made up for
    due = datetime.fromisoformat(shown["nightly"]["next_run"]).astimezone(ZoneInfo("Europe/Berlin"))
    assert (due.isoweekday(), due.hour, due.minute) == (2, 3, 0)
    assert (resting.paused, resting.params) == (True, nightly.params)
    assert broken.paused
    assert "presets/mine.yaml could not be read" in broken.reason
    assert "add it again" in broken.reason
    assert [shown[name]["next_run"] for name in ("resting", "broken")] == [None, None]
    with closing(sqlite3.connect(database)) as opened:
        kept = opened.execute(
            "SELECT d.name FROM deployment d JOIN deployment_schedule s ON s.deployment_id = d.id"
        ).fetchall()
        states = opened.execute("SELECT name, state_type FROM flow_run").fetchall()
        entrypoints = opened.execute("SELECT name, entrypoint FROM deployment").fetchall()
    assert kept == [("foreign",)]  # another home's deployments are left alone
    assert states == [("unselfish-jaguarundi", "CRASHED")]  # Prefect itself fires nothing more
    ours = {name for name, entry in entrypoints if entry == "pipelines.runs.flow.evolve_and_gate"}
    assert ours == {"nightly", "resting", "broken", "run"}


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
