"""Backups of a whole ledger: made while it is in use, and restored."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote as quoted
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from serving.registry import chain
from serving.registry.database import (
    WAIT_SECONDS,
    Database,
    others,
    parse_url,
    postgres_engine,
    sqlite_path,
    take_lock,
    without_passwords,
)
from serving.registry.faults import (
    UNWRITABLE,
    LedgerFull,
    LedgerGone,
    fault,
    kind_of,
    of_os_error,
    translated,
)
from serving.registry.ledger import Ledger
from serving.registry.records import Event, Who
from srghn.errors import LedgerError, first_line
from srghn.files import sha256_file, sync_folder

#: The time in the name of a backup, and of a ledger that was moved aside; they sort by it.
_MOMENT = "%Y%m%dT%H%M%S.%fZ"
#: How long PostgreSQL may list the session of a process that has just ended.
LEAVE_SECONDS = 1.0
#: Length and start of the bytes of a database file that SQLite locks while it is open.
_SHARED_LOCK = (510, 0x40000002)
#: Beginnings of SQLite's names of the errors of a file that is written.
_WRITING = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE")


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
    moment = datetime.now(UTC).strftime(_MOMENT)
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
        raise _unmade(target, error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):  # as where the folder is a file
            aside.unlink(missing_ok=True)
    return target


def _unmade(target: Path, cause: str) -> LedgerError:
    """The fault of a backup's place, which is not the ledger's."""
    return LedgerError(
        f"cannot write the backup {target}: {cause}; nothing was changed: see to its folder and "
        f"disk, or name another: srghn backup --to FOLDER"
    )


def restore(
    url: str, copy: Path, home: Path, who: Who, witness_key: Path | None = None
) -> Restored:
    """Replace the ledger by a copy, and record that in the history and in the witness.

    The present ledger is moved aside and never deleted (PostgreSQL: saved to `home/backups`
    first). The whole copy is verified before anything is changed; on PostgreSQL just after, and
    what was there is put back if the copy does not verify. Raises `LedgerError`, also while another
    process has the ledger open: a server would go on with what the restore undoes.
    """
    parsed = parse_url(url)
    file = sqlite_path(parsed)
    if not copy.is_file():
        raise LedgerError(f"there is no backup {copy}; srghn backup makes one")
    if file is not None and file.exists() and copy.samefile(file):
        raise LedgerError(f"{copy} is the ledger itself; name a backup of it, or make one first")
    kept: Path | None
    if file is None:
        with _no_writer(parsed) as connection:  # whose step would be undone without a word
            require_no_others(connection, without_passwords(parsed), "restore")
            before = _history(parsed)
            kept = _restore_dump(parsed, url, copy, home)
    else:
        require_unused(file, "restore")
        _restore_file(file, copy)
        kept, before = _before(file)
    ledger = Ledger(Database(url, home=home), witness_key=witness_key)
    ledger.restored({"backup_sha256": sha256_file(copy)}, who=who)
    return Restored(ledger, kept, None if before is None else _without(before, ledger.events()))


def kept_before(url: str, home: Path) -> tuple[float, Path | None]:
    """The latest ledger that is kept since a restore replaced it, and when, in Unix seconds.

    What it cites was stored by then, and whoever puts it back needs that. 0 and None without one.
    """
    file = sqlite_path(parse_url(url))
    begins = home / "backups" / "before-restore-" if file is None else f"{file}.before-"
    folder, name = os.path.split(begins)
    found: dict[float, Path | None] = {0.0: None}
    for path in Path(folder).glob(f"{glob.escape(name)}*"):
        with contextlib.suppress(ValueError):
            at = datetime.strptime(path.name.removeprefix(name).removesuffix(".dump"), _MOMENT)
            found[at.replace(tzinfo=UTC).timestamp()] = path
    return max(found), found[max(found)]


def _before(file: Path) -> tuple[Path | None, list[Event] | None]:
    """The ledger that a restore has moved aside, and its events; None if there was none.

    A restore that was cut off moved the ledger aside, too, and the next one its half-done work. A
    restore that was finished has an event, which is later than what it moved aside.
    """
    kept: Path | None = None
    events: list[Event] | None = None
    begins = f"{file.name}.before-"
    for older in sorted(file.parent.glob(f"{glob.escape(begins)}*Z"), reverse=True):
        # compared as text: a damaged ledger can hold any
        last = str(events[-1].at).replace("-", "").replace(":", "") if events else ""
        if kept and (events is None or last > older.name.removeprefix(begins)):
            break
        kept, events = older, _history(older)
    return kept, events


def _history(of: URL | Path) -> list[Event] | None:
    """Every event of a ledger, which is only read; None if that cannot be done."""
    engine = (
        create_engine("sqlite://", creator=lambda: _reading(of, still=True))
        if isinstance(of, Path)
        else postgres_engine(of, WAIT_SECONDS)
    )
    try:
        with engine.connect() as connection:
            return list(chain.read_events(connection))
    except (SQLAlchemyError, TypeError, ValueError):  # a damaged page can hold any value
        return None
    finally:
        engine.dispose()


@contextlib.contextmanager
def _no_writer(url: URL) -> Iterator[Connection]:
    """Keep everybody from writing to PostgreSQL's ledger; a server's step is refused as locked."""
    engine = postgres_engine(url, WAIT_SECONDS)
    try:
        with engine.connect() as connection, connection.begin():
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            take_lock(connection)
            yield connection
    except SQLAlchemyError as error:
        raise translated(without_passwords(url), error) from error
    finally:
        engine.dispose()


def _without(before: Iterable[Event], now: Iterable[Event]) -> list[Event]:
    known = {event.hash for event in now}
    return [event for event in before if event.hash not in known]


def _reading(file: Path, still: bool = False) -> sqlite3.Connection:
    """A connection that reads; of a file that nobody writes (`still`) it leaves none beside it."""
    log = file.with_name(f"{file.name}-wal")
    whole = still and not (log.exists() and log.stat().st_size)
    more = "&immutable=1" if whole else ""
    return sqlite3.connect(f"file:{quote(str(file))}?mode=ro{more}", uri=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a database file; raises `LedgerError`, or `OSError` for what is wrong with `target`."""
    if not source.exists():
        raise fault(str(source), LedgerGone, "there is no such file")
    target.touch()  # SQLite would not say which of the two cannot be opened
    try:
        with (
            contextlib.closing(_reading(source)) as old,
            contextlib.closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            found = new.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        name = str(getattr(error, "sqlite_errorname", ""))
        if name.startswith(_WRITING):  # the target's: the source is only read
            raise OSError(errno.ENOSPC if "FULL" in name else errno.EIO, str(error)) from error
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
        before.unlink()  # it is there again; prune would keep what an undone ledger cites
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


def require_unused(file: Path, to: str) -> None:
    """Raise `LedgerError` while another process has the ledger open; `to` is what was asked for.

    Every connection to a file with a write-ahead log holds SQLite's shared lock as long as it is
    open. Those of this process are not seen, and lose it: it has none that it uses again.
    """
    try:
        with file.open("rb+") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, *_SHARED_LOCK)
    except BlockingIOError as error:
        raise _in_use(str(file), to, f"lsof {quoted(str(file))} names it") from error
    except OSError:
        return  # it is missing, or cannot be written, which is told later


def require_no_others(connection: Connection, name: str, to: str) -> None:
    """The same for PostgreSQL, which lists its sessions; one that just ended takes a moment."""
    end = time.monotonic() + LEAVE_SECONDS
    while found := others(connection):
        if time.monotonic() > end:
            gone = "pg_terminate_backend(SESSION) ends one whose process is gone"
            raise _in_use(name, to, f"it is {', '.join(found)}; {gone}")
        time.sleep(0.05)


def _in_use(name: str, to: str, who: str) -> LedgerError:
    return LedgerError(
        f"the ledger {name} is in use, so nothing was {to}d: stop the server (srghn up, serve or "
        f"worker) and what else runs on it, then {to} again; {who}"
    )


def _restore_file(file: Path, copy: Path) -> None:
    """Put a copy in a file's place, and move that file aside."""
    moment = datetime.now(UTC).strftime(_MOMENT)
    aside = file.with_name(f".{file.name}.restore.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        aside.touch()  # a folder that cannot be written is no fault of the backup
        _take(copy, aside)
        with contextlib.closing(sqlite3.connect(aside)) as raw:
            raw.execute("PRAGMA journal_mode=WAL")
        _move_aside(file, file.with_name(f"{file.name}.before-{moment}"))
        os.replace(aside, file)
        sync_folder(file.parent)
    except OSError as error:
        raise of_os_error(str(file), error) from error
    finally:
        for suffix in ("", "-wal", "-shm", ".reserve"):
            aside.with_name(aside.name + suffix).unlink(missing_ok=True)


def _move_aside(file: Path, kept: Path) -> None:
    """Move a ledger with what lies beside it, so that a kill at any moment loses none of it.

    The log has steps that the file has not, and two files cannot be moved at once. So a copy of it
    goes ahead. The log itself follows, with what a server that was not stopped has written since.
    """
    log = file.with_name(f"{file.name}-wal")
    if file.exists() and log.exists():
        ahead = kept.with_name(f"{kept.name}-wal")
        shutil.copyfile(log, ahead)
        sync_folder(ahead)  # a file is synced by the same call
        sync_folder(file.parent)
    for suffix in ("", "-wal", "-shm"):
        old = file.with_name(file.name + suffix)
        if old.exists():
            old.rename(kept.with_name(kept.name + suffix))


def _take(copy: Path, aside: Path) -> None:
    """Copy a backup and verify the copy; raises `LedgerError` that names the backup at fault."""
    try:
        _copy(copy, aside)
        _verify(Database(f"sqlite:///{aside}", home=aside.with_suffix(".home")))
    except LedgerError as error:
        if isinstance(error, LedgerFull) or (
            isinstance(error, UNWRITABLE) and str(aside) in str(error)
        ):
            raise  # the disk's or the folder's fault, not the backup's
        remedy = "take another backup"
        if str(error).endswith("srghn ledger upgrade"):
            url = f"sqlite:///{copy.absolute()}"
            named = f"SRGHN_DATABASE_URL={quoted(url)}"
            remedy = f"upgrade a copy of it first: {named} srghn ledger upgrade"
        elif str(error).endswith("srghn that wrote it"):
            remedy = "use the version of srghn that wrote it"
        cause = first_line(error.__cause__ or error).split("; ")[0].replace(str(aside), str(copy))
        raise LedgerError(
            f"the backup {copy} cannot be restored: {cause}; the ledger was not changed: {remedy}"
        ) from error


def _verify(database: Database) -> None:
    try:
        Ledger(database).verify()
    finally:
        database.close()
