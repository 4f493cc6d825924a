"""Backups of a whole ledger: made while it is in use, and restored."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from serving.registry import chain
from serving.registry.database import (
    WAIT_SECONDS,
    Database,
    parse_url,
    postgres_engine,
    sqlite_path,
)
from serving.registry.faults import LedgerFull, LedgerGone, fault, kind_of, of_os_error
from serving.registry.ledger import Ledger
from serving.registry.records import Event, Who
from srghn.errors import LedgerError, first_line
from srghn.files import sha256_file, sync_folder


@dataclass(frozen=True)
class Restored:
    """A ledger that a backup has replaced.

    `kept` is where the one before it is now; None if there was none. `undone` are the events that
    it had and the backup has not; None if it could not be read.
    """

    ledger: Ledger
    kept: Path | None
    undone: list[Event] | None


def save(url: str, stem: Path) -> Path:
    """Make a consistent copy of a ledger while others write to it; returns the new file.

    The name begins with `stem` and holds the time. The file is complete or does not exist. For
    PostgreSQL `pg_dump` makes it. Raises `LedgerError` if it cannot be made; if `pg_dump` is
    missing, the error has the command to run.
    """
    parsed = parse_url(url)
    source = sqlite_path(parsed)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    suffix = ".db" if source else ".dump"
    target = stem.with_name(f"{stem.name}-{moment}{suffix}")
    aside = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source is None:
            _dump(parsed, aside)
        else:
            _copy(source, aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, target)
        sync_folder(target.parent)
    except OSError as error:
        raise of_os_error(str(target), error) from error
    finally:
        aside.unlink(missing_ok=True)
    return target


def restore(
    url: str, copy: Path, home: Path, who: Who, witness_key: Path | None = None
) -> Restored:
    """Replace the ledger by a copy, and record that in the history and in the witness.

    The present ledger is moved aside and never deleted (PostgreSQL: saved to `home/backups`
    first). The whole copy is verified before anything is changed; on PostgreSQL just after, and
    what was there is put back if the copy does not verify. Raises `LedgerError`.
    """
    parsed = parse_url(url)
    file = sqlite_path(parsed)
    if not copy.is_file():
        raise LedgerError(f"there is no backup {copy}; srghn backup makes one")
    kept: Path | None
    if file is None:
        before = _history(parsed, None)
        kept = _restore_dump(parsed, url, copy, home)
    else:
        kept = _restore_file(file, copy)
        before = None if kept is None else _history(parsed, kept)
    ledger = Ledger(Database(url, home=home), witness_key=witness_key)
    ledger.restored({"backup_sha256": sha256_file(copy)}, who=who)
    return Restored(ledger, kept, None if before is None else _without(before, ledger.events()))


def _history(url: URL, file: Path | None) -> list[Event] | None:
    """Every event of a ledger, which is only read; None if that cannot be done."""
    engine = (
        postgres_engine(url, WAIT_SECONDS)
        if file is None
        else create_engine("sqlite://", creator=lambda: _reading(file))
    )
    try:
        with engine.connect() as connection:
            return list(chain.read_events(connection))
    except (SQLAlchemyError, TypeError, ValueError):  # a damaged page can hold any value
        return None
    finally:
        engine.dispose()


def _without(before: Iterable[Event], now: Iterable[Event]) -> list[Event]:
    known = {event.hash for event in now}
    return [event for event in before if event.hash not in known]


def _reading(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise fault(str(source), LedgerGone, "there is no such file")
    try:
        with (
            contextlib.closing(_reading(source)) as old,
            contextlib.closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            found = new.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise fault(str(source), kind_of(error), str(error)) from error
    if found != "ok":
        raise LedgerError(f"the copy of {source} is not sound: {found}; srghn doctor says more")


def _dump(url: URL, target: Path) -> None:
    said = f"pg_dump --format=custom --file={target} {url.render_as_string(hide_password=True)}"
    _run("pg_dump", ["--format=custom", "--no-owner", f"--file={target}"], url, said)


def _restore_dump(parsed: URL, url: str, copy: Path, home: Path) -> Path:
    """Restore PostgreSQL's database; returns the backup of what was there."""
    said = f"pg_restore --clean --if-exists --single-transaction --dbname=... {copy}"
    before = save(url, home / "backups" / "before-restore")
    arguments = ["--clean", "--if-exists", "--no-owner", "--single-transaction"]
    _run("pg_restore", [*arguments, str(copy)], parsed, said)
    try:
        _verify(Database(url, home=copy.with_suffix(".home")))
    except LedgerError as error:
        _run("pg_restore", [*arguments, str(before)], parsed, said)
        raise LedgerError(f"{copy} is not restored, what was there is back: {error}") from error
    return before


def _run(program: str, arguments: list[str], url: URL, said: str) -> None:
    """Run a program of PostgreSQL on the database; its environment hides the password."""
    if shutil.which(program) is None:
        raise LedgerError(f"{program} is not on this machine's PATH; run it where it is: {said}")
    password = {} if url.password is None else {"PGPASSWORD": str(url.password)}
    done = subprocess.run(
        [program, f"--dbname={_target(url)}", *arguments],
        env={**os.environ, **password},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        cause = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise LedgerError(f"{program} failed: {cause}; to run it by hand: {said}")


def _target(url: URL) -> str:
    """What psycopg connects to, as libpq's programs take it, without the password."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    _, options = url.get_dialect()().create_connect_args(url)
    options.pop("password", None)
    try:
        return make_conninfo(**options)
    except ProgrammingError as error:
        shown = url.render_as_string(hide_password=True)
        raise LedgerError(
            f"{shown} has an option that PostgreSQL's programs lack: {error}"
        ) from error


def _restore_file(file: Path, copy: Path) -> Path | None:
    """Put a copy in a file's place; returns where that file is now, None if there was none."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = file.with_name(f".{file.name}.restore.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        _take(copy, aside)
        with contextlib.closing(sqlite3.connect(aside)) as raw:
            raw.execute("PRAGMA journal_mode=WAL")
        for suffix in ("", "-wal", "-shm"):
            old = file.with_name(file.name + suffix)
            if old.exists():
                old.rename(file.with_name(f"{file.name}.before-{moment}{suffix}"))
        os.replace(aside, file)
        sync_folder(file.parent)
        kept = file.with_name(f"{file.name}.before-{moment}")
        return kept if kept.exists() else None
    except OSError as error:
        raise of_os_error(str(file), error) from error
    finally:
        for suffix in ("", "-wal", "-shm", ".reserve"):
            aside.with_name(aside.name + suffix).unlink(missing_ok=True)


def _take(copy: Path, aside: Path) -> None:
    """Copy a backup and verify the copy; raises `LedgerError` that names the backup at fault."""
    try:
        _copy(copy, aside)
        _verify(Database(f"sqlite:///{aside}", home=aside.with_suffix(".home")))
    except LedgerFull:
        raise  # the disk's fault, not the backup's
    except LedgerError as error:
        cause = first_line(error.__cause__ or error).split("; ")[0].replace(str(aside), str(copy))
        raise LedgerError(
            f"the backup {copy} cannot be restored: {cause}; the ledger was not changed: take "
            "another backup"
        ) from error


def _verify(database: Database) -> None:
    try:
        Ledger(database).verify()
    finally:
        database.close()
