"""The SQLite file of an embedded ledger: its creation, its identity, and its reserve."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from serving.registry import schema
from serving.registry.faults import RESERVE, LedgerGone, fault, of_os_error, translated
from srghn.errors import LedgerError

Identity = tuple[int, int]
#: A file beside the ledger that is shortened, slice by slice, when the disk is full.
RESERVE_BYTES, SLICE_BYTES = 4 * 2**20, 2**19
#: The reserve is filled again if this many bytes are free.
_PLENTY = 64 * 2**20


def engine_for(path: Path, wait: float, *, foreign_keys: bool = True) -> Engine:
    """An engine whose writers wait for the lock for `wait` seconds."""
    engine = create_engine(
        _readable(path) or URL.create("sqlite", database=str(path)),
        connect_args={"timeout": wait},
        pool_size=16,
        max_overflow=16,
        pool_timeout=wait,
    )

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin only in `_begin` below
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("srghn_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _readable(path: Path) -> URL | None:
    """A URL for reading a ledger that this process cannot write, as in a read-only home.

    SQLite would make files beside the ledger. With `immutable` it does not. None if the ledger can
    be written, or if a log beside it has steps that are not in it yet.
    """
    log = path.with_name(path.name + "-wal")
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    if writable or not path.exists() or (log.exists() and log.stat().st_size > 0):
        return None
    query = {"mode": "ro", "immutable": "1", "uri": "true"}
    return URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)


def identity(path: Path) -> Identity:
    """Device and inode, to tell whether a path still names the same file; raises `LedgerGone`."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise of_os_error(str(path), error) from error
    return found.st_dev, found.st_ino


def refuse_lost(path: Path, home: Path) -> None:
    """Raise `LedgerGone` if a ledger was here and its file is now missing or empty.

    Otherwise a new ledger would silently replace a lost one. `home` is the folder with the
    artefacts and the witness.
    """
    try:
        if path.exists() and path.stat().st_size > 0:
            return
        found = "the file is empty" if path.exists() else None
    except OSError as error:
        raise of_os_error(str(path), error) from error
    found = found or _traces(path, home)
    if found is not None:
        raise fault(str(path), LedgerGone, found)


def _traces(path: Path, home: Path) -> str | None:
    if path.with_name(path.name + "-wal").exists():
        return "the file is gone but its write-ahead log is still there"
    artefacts = home / "artefacts"
    if artefacts.is_dir() and any(entry.name[0] != "." for entry in artefacts.iterdir()):
        return f"the file is gone but {artefacts} holds candidates"
    if (home / "witness.jsonl").exists():
        return f"the file is gone but {home / 'witness.jsonl'} shows that there was one"
    return None


def create(path: Path) -> None:
    """Make a new ledger in a temporary file and link it into place, so it is complete at once."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        engine = engine_for(aside, 1.0)
        with engine.connect() as connection:
            connection = connection.execution_options(srghn_write=True)
            with connection.begin():
                schema.create(connection)
        engine.dispose()
        with contextlib.closing(sqlite3.connect(aside)) as raw:
            raw.execute("PRAGMA journal_mode=WAL")
        os.link(aside, path)
    except FileExistsError:
        pass  # another process was first; use its ledger
    except SQLAlchemyError as error:
        raise _cannot_create(path, translated(str(path), error)) from error
    except (OSError, sqlite3.Error) as error:
        raise _cannot_create(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _cannot_create(path: Path, cause: Exception) -> LedgerError:
    return LedgerError(
        f"cannot create the ledger {path}: {getattr(cause, 'strerror', None) or cause}; "
        f"check that its folder can be written, or set SRGHN_HOME to one that can"
    )


def reserve_of(path: Path) -> Path:
    return path.with_name(path.name + RESERVE)


def keep_reserve(path: Path) -> None:
    """Fill the reserve if the disk has room; without it a full disk would stop even a rollback."""
    reserve = reserve_of(path)
    with contextlib.suppress(OSError):
        size = reserve.stat().st_size if reserve.exists() else 0
        if size >= RESERVE_BYTES or shutil.disk_usage(path.parent).free < _PLENTY:
            return
        with reserve.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)


def spend_reserve(path: Path) -> bool:
    """Free one slice of the reserve; False if none is left."""
    reserve = reserve_of(path)
    try:
        size = reserve.stat().st_size
        if size == 0:
            return False
        os.truncate(reserve, max(0, size - SLICE_BYTES))
        return True
    except OSError:
        return False
