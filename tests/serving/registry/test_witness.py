"""A history that was cut short or computed anew is found; a restored backup is the lawful way."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import URL

from serving.registry import backup, chain, database, schema
from serving.registry.database import Database, parse_url
from serving.registry.faults import LedgerLocked, LedgerReadOnly, fault
from serving.registry.ledger import Ledger
from serving.registry.records import Event, Who
from serving.registry.witness import Witness
from srghn.errors import LedgerError
from tests.serving.registry import postgres

ANN = Who("ann", "because")
with_dumps = pytest.mark.skipif(
    not postgres.BINARIES or not shutil.which("pg_dump"), reason="PostgreSQL is not installed"
)


@pytest.fixture
def file(tmp_path: Path, ledger: Ledger) -> Path:
    return tmp_path / "ledger.db"


def reopened(file: Path) -> Ledger:
    return Ledger(f"sqlite:///{file}")


def wind_back(file: Path, to: Path | None = None, back: Path | None = None) -> None:
    """Take a copy of the closed ledger, or put one in its place as a thief would."""
    if to is not None:
        shutil.copyfile(file, to)
    if back is not None:
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(back, file)


def test_each_step_is_witnessed_and_signed(ledger: Ledger, steps: Any, tmp_path: Path) -> None:
    assert ledger.checkpoint() is None
    steps.first()
    seen = Witness(tmp_path).entries()
    assert [entry.seq for entry in seen] == [1, 2, 3, 4, 5]
    assert [entry.hash for entry in seen] == [event.hash for event in ledger.events()]
    assert ledger.checkpoint() == seen[-1]
    assert (tmp_path / "witness.key").stat().st_mode & 0o777 == 0o600
    assert ledger.verify_served() == 0


def test_a_ledger_wound_back_is_found(
    ledger: Ledger, steps: Any, file: Path, tmp_path: Path
) -> None:
    steps.first()
    ledger.close()
    wind_back(file, to=tmp_path / "old.db")
    ledger = reopened(file)
    later = type(steps)(ledger)
    later.count = 50
    later.second()
    ledger.close()
    wind_back(file, back=tmp_path / "old.db")
    ledger = reopened(file)
    for look in (ledger.verify, ledger.verify_served):
        with pytest.raises(LedgerError, match=r"ends with event 5, the witness saw .* wound back"):
            look()
    later = type(steps)(ledger)  # and going on from there does not hide it
    later.count = 90
    later.second()
    for look in (ledger.verify, ledger.verify_served):
        with pytest.raises(LedgerError, match="srghn restore"):
            look()
    ledger.close()


def test_a_history_computed_anew_is_found(ledger: Ledger, steps: Any, file: Path) -> None:
    steps.first()
    with ledger._database.write() as connection:
        schema.unguard(connection)
        previous = chain.GENESIS
        for event in list(chain.read_events(connection)):
            forged = replace(event, reason="nothing to see", prev_hash=previous)
            forged = replace(forged, hash=chain.event_hash(forged))
            previous = forged.hash
            _write(connection, forged)
        schema.guard(connection)
        assert chain.verify(connection) == 5  # the chain itself is whole
    for look in (ledger.verify, ledger.verify_served):
        with pytest.raises(LedgerError, match=r"event .* the history was rewritten"):
            look()


def _write(connection: Any, event: Event) -> None:
    change = schema.events.update().where(schema.events.c.seq == event.seq)
    connection.execute(change.values(vars(event)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [lines[0].replace(b"ann", b"eve"), *lines[1:]], "line 2 .* was changed"),
        (lambda lines: lines[1:], "line 1 .* removed"),
        (lambda lines: [*lines[:2], *lines[3:]], "line 3 .* removed"),
        (lambda lines: [*lines[:-1], _as(lines[-1], hash="0" * 64)], "no valid signature"),
        (lambda lines: [*lines[:-1], _as(lines[-1], seq=3)], "no valid signature"),
        (lambda lines: [*lines, b"nonsense\n"], "an invalid line"),
    ],
)
def test_a_changed_witness_is_found(
    ledger: Ledger, steps: Any, tmp_path: Path, change: Any, words: str
) -> None:
    ledger.add_policy("a", who=ANN)
    steps.first()
    found = tmp_path / "witness.jsonl"
    found.write_bytes(b"".join(change(found.read_bytes().splitlines(keepends=True))))
    for look in (ledger.verify, ledger.verify_served):
        with pytest.raises(LedgerError, match=words):
            look()


def _as(line: bytes, **fields: Any) -> bytes:
    from srghn.files import canonical_json

    return canonical_json({**json.loads(line), **fields}) + b"\n"


def test_another_key_does_not_speak_for_this_home(
    ledger: Ledger, steps: Any, tmp_path: Path
) -> None:
    steps.first()
    (tmp_path / "witness.key").unlink()
    again = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with pytest.raises(LedgerError, match="is signed with key"):
        again.verify_served()
    again.close()


def test_half_a_line_of_a_killed_process_is_no_tampering(
    ledger: Ledger, steps: Any, tmp_path: Path
) -> None:
    steps.first()
    found = tmp_path / "witness.jsonl"
    whole = found.read_bytes()
    found.write_bytes(whole + whole.splitlines()[0][:70])
    ledger.verify_served()
    steps.register()
    assert ledger.verify() == 6
    assert [entry.seq for entry in Witness(tmp_path).entries()] == [1, 2, 3, 4, 5, 6]


def test_a_step_that_the_witness_missed_is_made_good(
    ledger: Ledger, steps: Any, tmp_path: Path
) -> None:
    """Killed between commit and line: the head is ahead of the witness, which is lawful."""
    steps.first()
    found = tmp_path / "witness.jsonl"
    found.write_bytes(b"".join(found.read_bytes().splitlines(keepends=True)[:-2]))
    assert ledger.verify_served() == 2
    steps.register()
    assert Witness(tmp_path).entries()[-1].seq == 6


def test_events_after_the_last_signature_are_replayed(
    ledger: Ledger, steps: Any, tmp_path: Path
) -> None:
    steps.first()
    found = tmp_path / "witness.jsonl"
    found.write_bytes(b"".join(found.read_bytes().splitlines(keepends=True)[:-2]))
    with ledger._database.write() as connection:
        schema.unguard(connection)
        last = list(chain.read_events(connection))[-1]
        forged = replace(last, from_state="PASSED")
        _write(connection, replace(forged, hash=chain.event_hash(forged)))
        schema.guard(connection)
    with pytest.raises(LedgerError, match="APPROVED -> CHAMPION is no step"):
        ledger.verify_served()


def test_many_writers_leave_one_chain_of_lines(ledger: Ledger, tmp_path: Path) -> None:
    def work(n: int) -> None:
        for m in range(4):
            ledger.note("drift", {"n": n, "m": m}, who=ANN)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.verify() == 24
    assert max(entry.seq for entry in Witness(tmp_path).entries()) == 24


def test_a_server_reads_the_end_of_a_long_witness_alone(
    ledger: Ledger, steps: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.first()
    found = tmp_path / "witness.jsonl"
    monkeypatch.setattr("serving.registry.witness._RECENT_BYTES", found.stat().st_size // 2)
    assert 0 < len(Witness(tmp_path).entries(recent=True)) < 5
    assert ledger.verify_served() == 0
    lines = found.read_bytes().splitlines(keepends=True)
    found.write_bytes(b"".join([_as(lines[0], actor="eve"), *lines[1:]]))
    ledger.verify_served()
    with pytest.raises(LedgerError, match=r"line 2 .* was changed"):
        ledger.verify()


# --------------------------------------------------------------------------- backup, restore


def test_a_backup_is_made_while_the_ledger_is_written(
    ledger: Ledger, steps: Any, file: Path, tmp_path: Path
) -> None:
    steps.first()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            ledger.note("drift", {}, who=ANN)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [backup.save(f"sqlite:///{file}", tmp_path / "b" / "ledger") for _ in range(3)]
    finally:
        stop.set()
        writer.join()
    for copy in copies:
        found = Ledger(f"sqlite:///{copy}")
        assert found.verify() >= 5
        found.close()
    assert len({copy.name for copy in copies}) == 3


def test_restore_is_the_lawful_way_back(
    ledger: Ledger, steps: Any, file: Path, tmp_path: Path
) -> None:
    first = steps.first()
    copy = backup.save(f"sqlite:///{file}", tmp_path / "b" / "ledger")
    steps.second()
    ledger.close()
    again = backup.restore(f"sqlite:///{file}", copy, tmp_path, Who("ann", "the disk died")).ledger
    assert again.verify() == 6
    assert again.verify_served() == 0
    assert again.champion().version == first  # type: ignore[union-attr]
    event = again.events()[-1]
    assert (event.action, event.actor, event.reason) == ("restore", "ann", "the disk died")
    kinds = [entry.kind for entry in Witness(tmp_path).entries()]
    assert kinds[-2:] == ["restore", "step"]
    later = type(steps)(again)
    later.count = 70
    later.second()
    assert again.verify() == again.count()
    again.close()
    # what was there is still there
    [kept] = tmp_path.glob("ledger.db.before-*Z")
    old = Ledger(f"sqlite:///{kept}", witness_key=tmp_path / "witness.key")
    assert old.champion().version == 2  # type: ignore[union-attr]
    old.close()


class Killed(BaseException):
    pass


BEFORE, AFTER = "os.replace", "serving.registry.backup.sync_folder"


@pytest.mark.parametrize("cuts", [[BEFORE], [AFTER], [AFTER, BEFORE]])
def test_a_restore_that_was_cut_off_still_says_what_it_undid(
    ledger: Ledger,
    steps: Any,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cuts: list[str],
) -> None:
    url = f"sqlite:///{file}"
    steps.first()
    copy = backup.save(url, tmp_path / "b" / "ledger")
    ledger.close()
    backup.restore(url, copy, tmp_path, ANN).ledger.close()  # this one was finished
    [old] = tmp_path.glob("ledger.db.before-*Z")
    later = Ledger(url)
    later.note("rollback", {}, who=ANN)
    undone = [event.action for event in later.events()][-2:]
    later.close()

    def kill(*_: object) -> None:
        raise Killed

    for cut in cuts:
        with monkeypatch.context() as patch:
            patch.setattr(cut, kill)
            with pytest.raises(Killed):
                backup.restore(url, copy, tmp_path, ANN)
    done = backup.restore(url, copy, tmp_path, ANN)
    done.ledger.close()
    aside = sorted(tmp_path.glob("ledger.db.before-*"))
    assert all(path.name.endswith("Z") for path in aside)  # to read one leaves no file beside it
    assert done.undone is not None
    assert [event.action for event in done.undone] == undone == ["restore", "rollback"]
    assert (aside[0], done.kept) == (old, aside[1])


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        (1, "upgrade a copy of it first: SRGHN_DATABASE_URL=sqlite:///{} srghn ledger upgrade"),
        (99, "use the version of srghn that wrote it"),
    ],
)
def test_a_backup_of_another_schema_says_what_reads_it(
    ledger: Ledger, steps: Any, file: Path, tmp_path: Path, version: int, remedy: str
) -> None:
    steps.first()
    copy = backup.save(f"sqlite:///{file}", tmp_path / "b" / "ledger")
    with closing(sqlite3.connect(copy)) as raw:
        raw.execute("UPDATE srghn_meta SET schema_version = ?", (version,))
        raw.commit()
    with pytest.raises(LedgerError) as refused:
        backup.restore(f"sqlite:///{file}", copy, tmp_path, ANN)
    assert f"{copy} holds a ledger of schema {version}, this version" in str(refused.value)
    assert str(refused.value).endswith(f"the ledger was not changed: {remedy.format(copy)}")
    assert ledger.verify() == 5


@pytest.mark.parametrize("kind", [LedgerReadOnly, LedgerLocked])
def test_a_fault_of_the_ledgers_folder_is_not_the_backups(
    ledger: Ledger,
    steps: Any,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[LedgerError],
) -> None:
    steps.first()
    copy = backup.save(f"sqlite:///{file}", tmp_path / "b" / "ledger")

    def fail(database: Database) -> None:
        raise fault(database.name, kind, "it failed")

    monkeypatch.setattr(backup, "_verify", fail)
    with pytest.raises(kind, match="it failed; nothing was changed: "):
        backup.restore(f"sqlite:///{file}", copy, tmp_path, ANN)
    assert ledger.verify() == 5


def test_a_backup_that_is_damaged_is_not_restored(
    ledger: Ledger, steps: Any, file: Path, tmp_path: Path
) -> None:
    steps.first()
    copy = backup.save(f"sqlite:///{file}", tmp_path / "b" / "ledger")
    with closing(sqlite3.connect(copy)) as raw:
        raw.execute("UPDATE champion SET generation = 9")
        raw.commit()
    with pytest.raises(LedgerError, match="pointer"):
        backup.restore(f"sqlite:///{file}", copy, tmp_path, ANN)
    copy.write_bytes(b"no database at all" * 1000)
    with pytest.raises(LedgerError) as refused:
        backup.restore(f"sqlite:///{file}", copy, tmp_path, ANN)
    assert str(refused.value) == (
        f"the backup {copy} cannot be restored: file is not a database; the ledger was not "
        "changed: take another backup"
    )
    with pytest.raises(LedgerError, match="there is no backup"):
        backup.restore(f"sqlite:///{file}", tmp_path / "none.db", tmp_path, ANN)
    with pytest.raises(LedgerError, match="is the ledger itself"):
        backup.restore(f"sqlite:///{file}", file, tmp_path, ANN)
    assert ledger.verify() == 5


def test_a_backup_is_of_the_file_that_is_named(tmp_path: Path, steps: Any) -> None:
    """SQLite ends a URI's path at its first `#` or `?`, and made an empty file of that name."""
    folder = tmp_path / "run #1 %41"
    ledger = Ledger(Database(f"sqlite:///{folder}/ledger.db", home=folder))
    type(steps)(ledger).first()
    count = ledger.verify()
    ledger.close()
    copy = backup.save(f"sqlite:///{folder}/ledger.db", tmp_path / "b" / "ledger")
    found = Ledger(f"sqlite:///{copy}")
    assert found.verify() == count
    found.close()
    assert sorted(path.name for path in tmp_path.iterdir() if "run" in path.name) == [folder.name]


def test_a_backup_of_postgresql_is_of_the_server_that_is_used() -> None:
    url = parse_url("postgresql://ann:secret@/ledger?host=/run/pg2&port=5433&sslmode=verify-full")
    target = backup._target(url)
    for said in ("host=/run/pg2", "port=5433", "sslmode=verify-full", "dbname=ledger", "user=ann"):
        assert said in target
    assert "secret" not in target
    with pytest.raises(LedgerError, match="has an option that PostgreSQL's programs lack"):
        backup._target(parse_url("postgresql://ann@/ledger?prepare_threshold=3"))


@pytest.mark.services
@with_dumps
def test_backup_wind_back_and_restore_on_postgresql(
    cluster: str, steps: Any, tmp_path: Path
) -> None:
    url = postgres.new_database(cluster)
    ledger = Ledger(Database(url, home=tmp_path))
    mine = type(steps)(ledger)
    first = mine.first()
    copy = backup.save(url, tmp_path / "b" / "ledger")
    mine.second()
    with ledger._database.write() as connection:
        schema.unguard(connection)
        for table in (schema.outbox, schema.events):
            connection.execute(table.delete().where(table.c.seq > 5))
        schema.guard(connection)
    with pytest.raises(LedgerError, match=r"ends with event 5, the witness saw .* wound back"):
        ledger.verify_served()
    with ledger._database.write() as connection:
        schema.unguard(connection)
        connection.execute(schema.champion.update().values(generation=9))
        schema.guard(connection)
    forged = backup.save(url, tmp_path / "b" / "forged")
    ledger.close()

    again = backup.restore(url, copy, tmp_path, Who("ann", "the disk died")).ledger
    assert again.verify() == 6
    assert again.champion().version == first  # type: ignore[union-attr]
    assert again.events()[-1].action == "restore"
    assert list((tmp_path / "backups").glob("before-restore-*.dump"))
    again.close()
    kept = backup.kept_before(url, tmp_path)
    with pytest.raises(LedgerError, match="is not restored, what was there is back"):
        backup.restore(url, forged, tmp_path, ANN)
    assert backup.kept_before(url, tmp_path) == kept  # of the one that was finished
    still = Ledger(Database(url, home=tmp_path))
    assert still.verify() == 6
    still.close()


@pytest.mark.services
@with_dumps
def test_on_postgresql_nobody_writes_what_a_restore_would_undo_without_a_word(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database(cluster)
    server = Ledger(Database(url, home=tmp_path, wait=0.5))
    copy = backup.save(url, tmp_path / "b" / "ledger")
    server.note("before it", {}, who=ANN)
    read = backup._history

    def history(of: URL | Path) -> list[Event] | None:
        found = read(of)
        with pytest.raises(LedgerLocked):
            server.note("meanwhile", {}, who=ANN)
        return found

    monkeypatch.setattr(backup, "_history", history)
    done = backup.restore(url, copy, tmp_path, ANN)
    assert [event.action for event in done.undone or ()] == ["before it"]
    done.ledger.close()
    server.note("afterwards", {}, who=ANN)
    assert [event.action for event in server.events()] == ["restore", "afterwards"]
    server.close()


@pytest.mark.services
@with_dumps
def test_on_postgresql_nothing_is_restored_while_a_process_has_the_ledger_open(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server would go on with a champion, and with episodes, that the restore undoes."""
    url = postgres.new_database(cluster) + "?application_name=mine"
    own = Ledger(Database(url, home=tmp_path))
    copy = backup.save(url, tmp_path / "b" / "ledger")
    with monkeypatch.context() as another:
        another.setattr(database, "_MARK", "of-another-process")
        server = Database(url, home=tmp_path)
    with pytest.raises(LedgerError) as caught:
        backup.restore(url, copy, tmp_path, ANN)
    said = str(caught.value)
    assert "is in use, so nothing was restored: stop the server" in said
    assert f"it is srghn {os.getpid()}@" in said
    assert "of-another-process" not in said
    server.close()
    with psycopg.connect(url.partition("?")[0]), pytest.raises(LedgerError) as caught:  # as 0.2.0
        backup.restore(url, copy, tmp_path, ANN)
    assert "it is a process without a name, as srghn 0.2.0 (sessions " in str(caught.value)
    assert not list((tmp_path / "backups").glob("*"))
    done = backup.restore(url, copy, tmp_path, ANN)
    assert done.undone == []
    done.ledger.close()
    own.close()
