"""A database that fails is told apart, with advice that destroys nothing; rollback works anyway."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from serving.registry import backup
from serving.registry import database as opening
from serving.registry.database import Database
from serving.registry.faults import (
    LedgerCorrupt,
    LedgerFull,
    LedgerGone,
    LedgerLocked,
    LedgerReadOnly,
    LedgerUnreachable,
    fault,
    kind_of,
)
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Start, Who
from serving.registry.sqlite_file import RESERVE_BYTES, SLICE_BYTES, reserve_of
from serving.tokens import Tokens
from srghn.errors import LedgerError, StaleGeneration, TransitionRefused
from tests.serving.registry import postgres

ANN = Who("ann", "because")


@pytest.fixture
def file(tmp_path: Path, ledger: Ledger) -> Path:
    return tmp_path / "ledger.db"


def patient(file: Path, wait: float) -> Ledger:
    return Ledger(Database(f"sqlite:///{file}", wait=wait))


# --------------------------------------------------------------------------------- locks


def test_a_lock_held_elsewhere_stops_a_writer_for_a_second_and_a_reader_never(
    file: Path, steps: Any
) -> None:
    steps.first()
    mine = patient(file, 0.3)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(LedgerLocked, match="do it again"):
            mine.start_episodes([Start("a", 1)])
        assert time.monotonic() - began < 3.0
        began = time.monotonic()
        assert mine.served()[0] is not None
        assert time.monotonic() - began < 3.0
        other.execute("ROLLBACK")
    assert mine.start_episodes([Start("a", 1)]) == [1]
    mine.close()


def test_many_callers_wait_together_and_not_in_a_row(file: Path) -> None:
    mine, slow = patient(file, 0.3), []

    def call(n: int) -> None:
        began = time.monotonic()
        with pytest.raises(LedgerLocked):
            mine.start_episodes([Start(str(n), 1)])
        slow.append(time.monotonic() - began)

    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=call, args=(n,)) for n in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(slow) == 40
    assert max(slow) < 4.0
    mine.close()


@pytest.mark.services
@pytest.mark.skipif(not postgres.BINARIES, reason="PostgreSQL is not installed")
def test_a_lock_held_on_postgresql_likewise(cluster: str, tmp_path: Path) -> None:
    url = postgres.new_database(cluster)
    one = Ledger(Database(url, home=tmp_path, wait=0.3))
    other = Database(url, home=tmp_path)  # as of another process
    with other.write(), pytest.raises(LedgerLocked, match="lock timeout"):
        one.start_episodes([Start("a", 1)])
    assert one.start_episodes([Start("a", 1)]) == [1]
    other.close()
    one.close()


@pytest.mark.services
@pytest.mark.skipif(not postgres.BINARIES, reason="PostgreSQL is not installed")
def test_on_postgresql_no_statement_and_no_dead_connection_is_waited_for_without_end(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{postgres.new_database(cluster)}?keepalives_idle=77"
    Database(url, home=tmp_path).close()  # which makes the tables
    monkeypatch.setattr(opening, "STATEMENT_SECONDS", 0.3)
    database = Database(url, home=tmp_path)
    with database.read() as connection:
        raw: Any = connection.connection.dbapi_connection
        said = raw.info.get_parameters()
    assert (said["tcp_user_timeout"], said["keepalives_count"]) == ("10000", "3")
    assert said["keepalives_idle"] == "77"  # the URL's own
    began = time.monotonic()
    with pytest.raises(LedgerUnreachable, match="statement timeout"), database.read() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(20)")
    assert time.monotonic() - began < 10
    database.close()
    engine = opening.postgres_engine(opening.parse_url(url), 1.0)  # as an upgrade's
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "1s"
    engine.dispose()


# ------------------------------------------------------------------------------ lost files


def test_a_file_that_vanishes_is_noticed_and_nothing_is_acknowledged(
    ledger: Ledger, file: Path, steps: Any
) -> None:
    steps.first()
    assert ledger.database().still_there()
    file.unlink()
    assert not ledger.database().still_there()
    for call in (
        lambda: ledger.start_episodes([Start("a", 1)]),
        lambda: ledger.record_outcome(POLICY, "a", 1.0, 1, True),
        lambda: ledger.rollback(who=ANN),
    ):
        with pytest.raises(LedgerGone, match="removed or replaced while in use"):
            call()


def test_a_file_that_is_replaced_is_noticed(ledger: Ledger, file: Path, steps: Any) -> None:
    steps.first()
    copy = file.with_name("copy.db")
    with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
    os.replace(copy, file)
    assert not ledger.database().still_there()
    with pytest.raises(LedgerGone):
        ledger.start_episodes([Start("a", 1)])


def test_a_file_lost_between_begin_and_commit_is_no_success(ledger: Ledger, file: Path) -> None:
    with pytest.raises(LedgerGone), ledger.database().write():
        file.unlink()


@pytest.mark.parametrize("trace", ["artefacts/abc", "witness.jsonl", "ledger.db-wal"])
def test_where_a_ledger_was_no_empty_one_is_made(tmp_path: Path, trace: str) -> None:
    left = tmp_path / trace
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"x")
    with pytest.raises(LedgerGone, match=r"srghn restore"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert not (tmp_path / "ledger.db").exists()


def test_an_empty_folder_of_artefacts_is_no_trace(tmp_path: Path) -> None:
    (tmp_path / "artefacts" / ".put.x").mkdir(parents=True)
    Ledger(f"sqlite:///{tmp_path / 'ledger.db'}").close()


# ------------------------------------------------------------------------------ told apart


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_FULL", LedgerFull),
        ("SQLITE_READONLY", LedgerReadOnly),
        ("SQLITE_READONLY_DIRECTORY", LedgerReadOnly),
        ("SQLITE_READONLY_DBMOVED", LedgerGone),
        ("SQLITE_BUSY", LedgerLocked),
        ("SQLITE_BUSY_SNAPSHOT", LedgerLocked),
        ("SQLITE_CORRUPT", LedgerCorrupt),
        ("SQLITE_NOTADB", LedgerCorrupt),
        ("SQLITE_IOERR_WRITE", LedgerCorrupt),
        ("SQLITE_ERROR", LedgerError),
    ],
)
def test_sqlites_errors_are_told_apart(name: str, kind: type[LedgerError]) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorname = name
    assert kind_of(error) is kind


def test_a_damaged_file_is_corrupt_and_left_alone(ledger: Ledger, file: Path, steps: Any) -> None:
    steps.first()
    ledger.close()
    data = bytearray(file.read_bytes())
    data[4096 * 2 : 4096 * 8] = os.urandom(4096 * 6)
    file.write_bytes(bytes(data))
    with pytest.raises(LedgerCorrupt, match=r"copy it .* to a safe place"):
        Ledger(f"sqlite:///{file}").verify()
    assert file.read_bytes() == bytes(data)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everything")
def test_a_file_that_may_not_be_written(ledger: Ledger, file: Path, steps: Any) -> None:
    steps.first()
    file.chmod(0o444)
    with pytest.raises(LedgerReadOnly, match="let this user write"):
        Ledger(f"sqlite:///{file}").start_episodes([Start("a", 1)])


def test_a_database_opened_to_be_read_says_so(file: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as raw,
        pytest.raises(sqlite3.OperationalError) as caught,
    ):
        raw.execute("INSERT INTO requests VALUES ('k', 'x', 'y')")
    assert kind_of(caught.value) is LedgerReadOnly


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(LedgerUnreachable, match="see that the server runs"):
        Ledger("postgresql://nobody@127.0.0.1:1/none")


# ------------------------------------------------------------------------------- full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB, mounted for the test."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=24m", "tmpfs", str(where)]
    if mount is None or subprocess.run([mount, *options], check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def fill(where: Path) -> None:
    with (where / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def write_on(ledger: Ledger) -> None:
    for n in range(200):
        ledger.note("drift", {"n": n, "filling": "x" * 4000}, who=ANN)


def test_on_a_full_disk_a_rollback_works_and_nothing_else(
    small_disk: Path, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.registry.sqlite_file._PLENTY", 2**20)
    file = small_disk / "ledger.db"
    ledger = Ledger(f"sqlite:///{file}")
    mine = type(steps)(ledger)
    first = mine.first()
    mine.second()
    overdue = mine.register()
    mine.begin(overdue)
    assert reserve_of(file).stat().st_size == RESERVE_BYTES
    fill(small_disk)
    with pytest.raises(LedgerFull, match=r"make room on its disk.*Room for a rollback is kept"):
        write_on(ledger)
    without = fault(str(small_disk / "other.db"), LedgerFull, "no room")
    assert "for a rollback" not in str(without)  # where there was no room for a reserve either
    ledger._clock = lambda: time.time() + 30 * 24 * 3600  # what is overdue stands in no one's way
    assert ledger.rollback(who=ANN).version == first
    assert reserve_of(file).stat().st_size <= RESERVE_BYTES - SLICE_BYTES
    assert ledger.champion().version == first  # type: ignore[union-attr]
    (small_disk / "filler").unlink()
    assert ledger.verify() == ledger.count()
    Ledger(f"sqlite:///{file}").close()
    assert reserve_of(file).stat().st_size == RESERVE_BYTES
    ledger.close()


def test_a_place_that_takes_no_backup_is_not_taken_for_the_ledger(
    ledger: Ledger, tmp_path: Path, small_disk: Path
) -> None:
    """At three in the morning "cannot use the ledger ...: restore a backup" is the wrong advice."""
    ledger.note("drift", {"filling": "x" * 8000}, who=ANN)
    url, occupied = f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / "a-file"
    occupied.write_text("")
    copy = backup.save(url, small_disk / "ledger")
    fill(small_disk)
    for folder in (Path("/proc/none"), occupied, small_disk):
        with pytest.raises(LedgerError) as caught:
            backup.save(url, folder / "ledger")
        assert str(caught.value).startswith(f"cannot write the backup {folder}/ledger-"), caught
        assert "nothing was changed" in str(caught.value)
    with pytest.raises(LedgerFull, match=f"ledger {small_disk}/own/ledger.db: .*make room"):
        backup.restore(f"sqlite:///{small_disk}/own/ledger.db", copy, tmp_path, ANN)
    assert ledger.verify() == ledger.count() == 1


def test_the_command_for_a_held_ledger_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(*_: object) -> None:
        raise BlockingIOError

    file = tmp_path / "a b.db"
    file.touch()
    monkeypatch.setattr(fcntl, "lockf", held)
    with pytest.raises(LedgerError, match=f"; lsof '{file}' names it"):
        backup.require_unused(file, "restore")


def test_on_a_full_disk_a_token_is_revoked(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.registry.sqlite_file._PLENTY", 2**20)
    ledger = Ledger(f"sqlite:///{small_disk / 'ledger.db'}")
    tokens = Tokens(
        ledger.database(),
        lambda action, said, work: ledger.note(action, said, who=ANN, also=work),
    )
    token = tokens.add("eve", ["admin"])
    fill(small_disk)
    with pytest.raises(LedgerFull, match="make room on its disk"):
        write_on(ledger)
    assert tokens.revoke("eve") == 1
    assert tokens.find(token) is None
    assert [event.action for event in ledger.events()][-1] == "revoke_tokens"
    ledger.close()


# ---------------------------------------------------------------------- after the commit


class Dropped(Database):
    """A server that closes the connection once, when a step of `steps` has been committed."""

    steps = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with super().write() as connection:
            yield connection
        self.steps += 1

    @contextmanager
    def read(self) -> Iterator[Connection]:
        if self.steps:
            self.steps = 0
            raise LedgerUnreachable("cannot use the ledger; nothing was changed: do it again")
        with super().read() as connection:
            yield connection


def test_a_read_that_fails_after_the_commit_does_not_undo_the_step(
    steps: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Done again, a second rollback would bring back the version before."""
    ledger = steps.ledger
    first = steps.first()
    second, third = steps.second(), steps.approved()
    ledger.database().__class__ = Dropped
    canary = steps.canary(third)
    assert (canary.version, ledger.database().steps) == (third, 0)
    ledger.abort_canary(who=ANN)
    assert ledger.rollback(who=ANN).version == first
    assert "could not be written: cannot use the ledger" in caplog.text
    assert "do it again" not in caplog.text
    ledger.database().__class__ = Database
    assert [v.version for v in ledger.versions() if v.quarantined] == [second, third]
    ledger.verify()


# ------------------------------------------------------------------------ two operators


def test_of_two_operators_who_roll_back_at_once_one_wins(ledger: Ledger, steps: Any) -> None:
    steps.first()
    second = steps.second()
    steps.second()
    seen = ledger.champion()
    assert seen is not None
    won: list[int] = []

    def roll_back(n: int) -> None:
        try:
            who = Who(f"operator {n}", "it fell")
            won.append(ledger.rollback(who=who, expected_generation=seen.generation).version)
        except (StaleGeneration, TransitionRefused):
            pass

    threads = [threading.Thread(target=roll_back, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [second]
    assert ledger.champion().version == second  # type: ignore[union-attr]
