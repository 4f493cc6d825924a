"""A ledger that cannot be trusted is said and left alone; history cannot be rewritten unseen."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from serving.registry.database import Database, parse_url, without_passwords
from serving.registry.faults import LedgerLocked
from serving.registry.ledger import Ledger
from srghn.errors import LedgerError
from tests.serving.registry import postgres


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def damage_header(file: Path) -> None:
    file.write_bytes(b"SQLite format 4\0" + file.read_bytes()[16:])


def damage_middle(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4096 : 4096 * 4] = os.urandom(4096 * 3)
    file.write_bytes(bytes(data))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_header, damage_middle, cut, empty])
def test_a_damaged_file_is_named_and_left_as_it_is(
    tmp_path: Path, steps: Any, ledger: Ledger, damage: Callable[[Path], None]
) -> None:
    steps.first()
    ledger.close()
    file = tmp_path / "ledger.db"
    damage(file)
    before = file.read_bytes()
    with pytest.raises(LedgerError) as caught:
        Ledger(url(file)).verify()
    assert str(file) in str(caught.value)
    assert "backup" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_another_database_is_no_ledger(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as raw:
        raw.execute("CREATE TABLE notes (id INTEGER)")
    raw.close()
    with pytest.raises(LedgerError, match="no such table: srghn_meta"):
        Ledger(url(file))


def test_a_lost_file_beside_its_log_is_not_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "ledger.db-wal").write_bytes(b"x")
    with pytest.raises(LedgerError, match="write-ahead log is still there"):
        Ledger(url(tmp_path / "ledger.db"))
    assert not (tmp_path / "ledger.db").exists()


def test_a_later_schema_is_not_guessed_at(tmp_path: Path, ledger: Ledger) -> None:
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute("UPDATE srghn_meta SET schema_version = 99")
    raw.close()
    with pytest.raises(LedgerError, match="schema 99"):
        Ledger(url(tmp_path / "ledger.db"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("sqlite://", "must outlive the process"),
        ("sqlite:////proc/nowhere/ledger.db", "cannot create the ledger"),
        ("mysql://x@y/z", "SQLite or PostgreSQL"),
        ("nonsense", "not a database URL"),
        ("postgresql://nobody@127.0.0.1:1/none", "127.0.0.1:1/none"),
    ],
)
def test_a_database_that_cannot_be_had_is_one_line(given: str, words: str) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger(given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)


def _open(path: Path) -> None:
    Ledger(url(path)).close()


def test_processes_that_create_it_at_once_share_one(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "ledger.db"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_open, args=(file,)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert [entry.name for entry in file.parent.iterdir() if entry.suffix == ".tmp"] == []
    assert Ledger(url(file)).verify() == 0


def raw(database: Database) -> Any:
    """The driver's connection that is waiting in a database's pool."""
    with database.read() as connection:
        return connection.connection.dbapi_connection


def test_a_database_that_nobody_closed_leaves_no_connection_open(tmp_path: Path) -> None:
    database = Database(url(tmp_path / "ledger.db"))
    opened = raw(database)
    opened.execute("SELECT 1")
    del database
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        opened.execute("SELECT 1")


@pytest.mark.services
@pytest.mark.skipif(not postgres.BINARIES, reason="PostgreSQL is not installed")
def test_a_forked_process_closes_no_connection_of_its_parent(cluster: str, tmp_path: Path) -> None:
    databases = [Database(postgres.new_database(cluster), home=tmp_path)]
    opened = raw(databases[0])

    def child() -> None:
        databases.clear()
        gc.collect()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert (process.exitcode, opened.closed) == (0, False)
    assert opened.execute("SELECT 1").fetchone() == (1,)
    databases.clear()
    gc.collect()
    assert opened.closed


def tamper(ledger: Ledger, statement: str) -> None:
    """As somebody with the database's password would: triggers dropped first."""
    with ledger._database.write() as connection:
        for table in ("events", "evidence"):
            for verb in ("UPDATE", "DELETE"):
                connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_no_{verb}"))
        connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE events SET actor = 'mallory' WHERE seq = 4", "event 4 .* hash"),
        ("UPDATE events SET reason = 'x' WHERE seq = 1", "event 1 .* hash"),
        ("UPDATE events SET at = '2020' WHERE seq = 2", "event 2 .* hash"),
        ("UPDATE events SET evidence_sha256 = NULL WHERE seq = 3", "event 3 .* hash"),
        ("UPDATE events SET prev_hash = hash WHERE seq = 3", "event 3 .* does not follow"),
        ("UPDATE evidence SET body = replace(body, 'passed', 'failed')", "event 3: its evidence"),
        ("UPDATE versions SET state = 'APPROVED'", "version 1 is recorded as APPROVED"),
        ("UPDATE champion SET generation = 7", r"pointer .* is \(1, 7\)"),
        ("DELETE FROM champion", "pointer .* is None"),
    ],
)
def test_tampering_is_named_by_its_event(
    ledger: Ledger, steps: Any, statement: str, words: str
) -> None:
    steps.first()
    tamper(ledger, statement)
    with pytest.raises(LedgerError, match=words):
        ledger.verify()


@pytest.mark.parametrize(("seq", "words"), [(3, "event 4 .* expected seq 3"), (5, "CHAMPION")])
def test_a_missing_event_is_named(ledger: Ledger, steps: Any, seq: int, words: str) -> None:
    steps.first()
    with ledger._database.write() as connection:
        connection.execute(text("DROP TRIGGER events_no_DELETE"))
        connection.execute(text("DELETE FROM outbox"))
        connection.execute(text(f"DELETE FROM events WHERE seq = {seq}"))
    with pytest.raises(LedgerError, match=words):
        ledger.verify()


@pytest.mark.parametrize("statement", ["UPDATE events SET actor = 'x'", "DELETE FROM evidence"])
def test_history_is_append_only(ledger: Ledger, steps: Any, statement: str) -> None:
    steps.first()
    with (
        pytest.raises(LedgerError, match="append-only"),
        ledger._database.write() as connection,
    ):
        connection.execute(text(statement))
    assert ledger.verify() == 5


def test_a_thread_that_writes_all_the_time_keeps_no_other_out(tmp_path: Path) -> None:
    database = Database(url(tmp_path / "ledger.db"), wait=0.5)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with database.write():
                time.sleep(0.02)  # a slow commit; no pause before the next one

    busy = threading.Thread(target=write)
    busy.start()
    try:
        for _ in range(20):
            with database.write() as connection:
                connection.execute(text("SELECT 1"))
    finally:
        stop.set()
        busy.join()
        database.close()


def test_the_moment_moves_with_each_commit_and_with_nothing_else(tmp_path: Path) -> None:
    database = Database(url(tmp_path / "ledger.db"))
    other = Database(url(tmp_path / "ledger.db"))
    begun = database.moment()
    with database.read() as connection:
        connection.execute(text("SELECT count(*) FROM events"))
    assert database.moment() == begun
    for name, writer in {"first": database, "second": other}.items():
        before = database.moment()
        with writer.write() as connection:
            connection.execute(text(f"CREATE TABLE {name} (n INTEGER)"))
        assert database.moment() != before
    database.close()
    other.close()


def test_a_moment_that_cannot_be_asked_for_is_told_as_the_ledgers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(url(tmp_path / "ledger.db"))

    def fails() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(database._engine, "raw_connection", fails)
    with pytest.raises(LedgerError, match="disk I/O error"):
        database.moment()
    monkeypatch.undo()
    assert database.moment() is not None
    database.close()


def test_a_thread_that_holds_the_ledger_for_too_long_is_said(tmp_path: Path) -> None:
    database = Database(url(tmp_path / "ledger.db"), wait=0.05)
    with (
        database.write(),
        ThreadPoolExecutor(1) as threads,
        pytest.raises(LedgerLocked, match="another thread writes for too long"),
    ):
        threads.submit(_write, database).result()
    _write(database)
    database.close()


def _write(database: Database) -> None:
    with database.write():
        pass


def test_the_name_of_a_database_has_no_passwords() -> None:
    """It is logged at each start."""
    url = "postgresql://ann:secret@h/db?password=secret&sslpassword=secret&sslmode=require"
    shown = without_passwords(parse_url(url))
    assert "secret" not in shown
    assert (shown.startswith("postgresql"), shown.endswith("sslmode=require")) == (True, True)
