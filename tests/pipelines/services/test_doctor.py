"""What `srghn doctor` says of a ledger that cannot be used, and of schedules that do not fire."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.runs import schedules
from pipelines.runs.schedules import Schedule
from pipelines.services import doctor
from pipelines.services.doctor import Finding, examine
from serving.registry.database import Database
from srghn.parents import mark
from tests.serving.conftest import Home, maker


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home", maker(tmp_path))
    made.first()
    yield made
    made.ledger.close()


def look(home: Home) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(home.settings)}


def test_a_ledger_that_another_process_holds_is_found(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home.settings.home / "ledger.db"
    assert look(home)["ledger"].ok
    before = file.read_bytes(), home.ledger.count()
    monkeypatch.setitem(Database.__init__.__kwdefaults__, "wait", 0.1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = look(home)
        other.execute("ROLLBACK")
    assert not found["ledger"].ok
    assert "database is locked" in found["ledger"].found
    assert found["champion"].ok  # which can still be read
    assert look(home)["ledger"].ok
    assert (file.read_bytes(), home.ledger.count()) == before


@pytest.mark.parametrize("name", ["ledger.db", "."])
def test_a_ledger_that_cannot_be_written_is_found(
    home: Home, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home.ledger.close()
    place, real = home.settings.home / name, os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != place and real(path, mode))
    found = look(home)
    assert not found["ledger"].ok
    assert f"this user cannot write {place}; nothing was changed" in found["ledger"].found
    assert found["champion"].ok  # which can still be read


def test_one_fault_of_the_ledger_is_told_once(home: Home) -> None:
    home.ledger.close()
    for suffix in ("-wal", "-shm"):
        (home.settings.home / f"ledger.db{suffix}").unlink(missing_ok=True)
    (home.settings.home / "ledger.db").write_bytes(b"no database" * 1000)
    found = look(home)
    told = [each.what for each in found.values() if "file is not a database" in each.found]
    assert told == ["ledger"]
    others = [each.what for each in found.values() if each.remedy == "see the ledger"]
    assert others == ["champion", "reports", "MLflow mirror", "MLflow"]
    assert not any(found[what].ok for what in others)


def test_schedules_that_do_not_fire_are_found(home: Home) -> None:
    """Nobody started `srghn up` after a reboot, or a run has hung since the day before."""
    settings, now = home.settings, datetime.now(UTC)
    look = lambda: doctor._schedules(settings)  # noqa: E731
    assert look() == Finding("schedules", "0, 0 of them paused")
    asked = Schedule("hourly", "0 * * * *", "UTC", {}, "tiny")
    added = schedules.add(settings, asked, now - timedelta(days=2))
    assert look().found == "1, 0 of them paused; nothing fires them"
    (settings.home / "services.json").write_text(json.dumps({"worker": mark()}))
    schedules.note(settings, added, "the firing waits for run x to end")
    assert not look().ok
    assert look().found == "due for more than a day: hourly: the firing waits for run x to end"
    schedules.mark(settings, added, now - timedelta(hours=20), "run")
    assert look().ok
    schedules.pause(settings, "hourly", "holidays")
    assert look() == Finding("schedules", "1, 1 of them paused")
