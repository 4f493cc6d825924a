"""Backups of a whole ledger: made while it is in use, and restored."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL

from serving.registry.database import Database, parse_url, sqlite_path
from serving.registry.faults import LedgerGone, fault, kind_of, of_os_error
from serving.registry.ledger import Ledger
from serving.registry.records import Who
from srghn.errors import LedgerError
from srghn.files import sha256_file, sync_folder


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


def restore(url: str, copy: Path, home: Path, who: Who, witness_key: Path | None = None) -> Ledger:
    """Replace the ledger by a copy, and record that in the history and in the witness.

    The present ledger is moved aside and never deleted (PostgreSQL: saved to `home/backups`
    first). The whole copy is verified before anything is changed; on PostgreSQL just after, and
    what was there is put back if the copy does not verify. Raises `LedgerError`.
    """
    parsed = parse_url(url)
    file = sqlite_path(parsed)
    if not copy.is_file():
        raise LedgerError(f"there is no backup {copy}; srghn backup makes one")
    if file is None:
        _restore_dump(parsed, url, copy, home)
    else:
        _restore_file(file, copy)
    ledger = Ledger(Database(url, home=home), witness_key=witness_key)
    ledger.restored({"backup_sha256": sha256_file(copy)}, who=who)
    return ledger


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise fault(str(source), LedgerGone, "there is no such file")
    try:
        with (
            contextlib.closing(
                sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)
            ) as old,
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


def _restore_dump(parsed: URL, url: str, copy: Path, home: Path) -> None:
    said = f"pg_restore --clean --if-exists --single-transaction --dbname=... {copy}"
    before = save(url, home / "backups" / "before-restore")
    arguments = ["--clean", "--if-exists", "--no-owner", "--single-transaction"]
    _run("pg_restore", [*arguments, str(copy)], parsed, said)
    try:
        _verify(Database(url, home=copy.with_suffix(".home")))
    except LedgerError as error:
        _run("pg_restore", [*arguments, str(before)], parsed, said)
        raise LedgerError(f"{copy} is not restored, what was there is back: {error}") from error


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


def _restore_file(file: Path, copy: Path) -> None:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = file.with_name(f".{file.name}.restore.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        _copy(copy, aside)
        _check(aside)
        with contextlib.closing(sqlite3.connect(aside)) as raw:
            raw.execute("PRAGMA journal_mode=WAL")
        for suffix in ("", "-wal", "-shm"):
            old = file.with_name(file.name + suffix)
            if old.exists():
                old.rename(file.with_name(f"{file.name}.before-{moment}{suffix}"))
        os.replace(aside, file)
        sync_folder(file.parent)
    except OSError as error:
        raise of_os_error(str(file), error) from error
    finally:
        for suffix in ("", "-wal", "-shm", ".reserve"):
            aside.with_name(aside.name + suffix).unlink(missing_ok=True)


def _check(copy: Path) -> None:
    """Verify a copy before it is restored; raises `LedgerError`."""
    _verify(Database(f"sqlite:///{copy}", home=copy.with_suffix(".home")))


def _verify(database: Database) -> None:
    try:
        Ledger(database).verify()
    finally:
        database.close()
