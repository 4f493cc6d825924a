"""Killed at any boundary of a write, a ledger is whole and holds what was acknowledged.

`make kills` does the same 500 times.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serving.registry import backup
from serving.registry.ledger import Ledger
from tests import old_homes
from tests.serving.registry.killing import (
    WRITER,
    Yard,
    kill_live,
    kill_restore,
    kill_upgrade,
    spread,
)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    folder = tmp_path / "yard"
    folder.mkdir()
    return Yard(folder)


def test_a_writer_killed_at_any_boundary_loses_nothing_acknowledged(yard: Yard) -> None:
    Ledger(yard.url).close()
    names = yard.names(yard.live)
    kinds = {name.split(":")[0] for name in names}
    assert {"before commit", "around a transaction", "around a line of the witness"} <= kinds
    assert "after INSERT INTO starts" in kinds
    assert "after UPDATE trial_state SET" in kinds
    assert kill_live(yard, spread(len(names) // 2, 5)) == 5
    assert yard.run(yard.live, 0) == 0
    yard.check()


def test_an_upgrade_killed_at_any_boundary_is_done_again(yard: Yard, tmp_path: Path) -> None:
    old = old_homes.unpack("home-ledger", tmp_path) / "ledger.db"
    kill_upgrade(yard, old, 10**9)
    (yard.folder / "boundaries").unlink(missing_ok=True)
    yard.file.write_bytes(old.read_bytes())
    for name in ("ledger.db-wal", "ledger.db-shm", "witness.jsonl"):
        (yard.folder / name).unlink(missing_ok=True)
    total = len(yard.names(yard.migrate))
    assert sum(kill_upgrade(yard, old, number) for number in spread(total, 4)) == 4


def test_a_restore_killed_at_any_boundary_is_done_again(yard: Yard) -> None:
    Ledger(yard.url).close()
    assert yard.run(yard.live, 0) == 0
    copy = backup.save(yard.url, yard.folder / "copies" / "ledger")
    yard.put_back(copy)  # done again there is no log to move aside, and a few boundaries less
    total = len(yard.names(lambda: yard.put_back(copy)))
    assert sum(kill_restore(yard, copy, number) for number in spread(total, 4)) == 4


def test_a_restore_killed_at_any_boundary_keeps_the_ledger_before_it_whole(
    yard: Yard, tmp_path: Path
) -> None:
    """Its last steps are in the log beside the file alone: its writer was killed."""
    before = Yard(tmp_path / "before")
    before.folder.mkdir()
    ledger = Ledger(before.url)
    copy = backup.save(before.url, tmp_path / "ledger")
    ledger.note("in the log", {}, who=WRITER)
    last, number = ledger.events()[-1], 0
    while True:
        number += 1
        shutil.rmtree(yard.folder)
        shutil.copytree(before.folder, yard.folder)
        if yard.run(lambda: yard.put_back(copy), number) == 0:
            break
        files = [yard.file, *yard.folder.glob("ledger.db.before-*Z")]
        found = [event for file in files for event in backup._history(file) or ()]
        assert last in found
        done = backup.restore(yard.url, copy, yard.folder, WRITER)
        done.ledger.close()
        finished = "restore" in [event.action for event in found]
        assert finished or last in (done.undone or ())
    assert number > 10
    ledger.close()
