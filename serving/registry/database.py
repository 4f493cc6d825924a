"""Opening the ledger's database, and transactions on it.

SQLite (the default) runs in WAL mode with `BEGIN IMMEDIATE` for writers; PostgreSQL serialises
writers by an advisory lock. Either way there is one writer at a time, and a reader sees one moment.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from serving.registry import schema
from srghn.errors import LedgerError

BUSY_SECONDS = 20
_ADVISORY_LOCK = 0x5247484E


class Database:
    """Transactions on the ledger's database. Every failure is a `LedgerError` that names it."""

    def __init__(self, url: str) -> None:
        self.name, self._engine = _connect(url)
        with self._translated():
            self._prepare()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot."""
        with self._translated(), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that no other writer shares; all of it lands, or nothing."""
        with self._translated(), self._engine.connect() as connection:
            connection = connection.execution_options(srghn_write=True)
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    _take_lock(connection)
                yield connection

    def close(self) -> None:
        self._engine.dispose()

    def check_storage(self) -> None:
        """Ask SQLite whether every page of the file is sound; raises `LedgerError` if not."""
        if self._engine.dialect.name != "sqlite":
            return
        with self.read() as connection:
            found = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        if found != "ok":
            raise self._broken(str(found))

    def _prepare(self) -> None:
        if self._engine.dialect.name == "postgresql":
            with self.write() as connection:
                if not inspect(connection).has_table(schema.meta.name):
                    schema.create(connection)
        with self.read() as connection:
            found = connection.execute(select(schema.meta.c.schema_version)).scalar_one()
        if found != schema.SCHEMA_VERSION:
            raise LedgerError(
                f"{self.name} holds a ledger of schema {found}, this version of srghn reads "
                f"{schema.SCHEMA_VERSION}; use the version that wrote it"
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise self._broken(str(cause).splitlines()[0]) from error

    def _broken(self, cause: str) -> LedgerError:
        return LedgerError(
            f"cannot use the ledger {self.name}: {cause}; it was left as it is: restore it from a "
            f"backup, or move it aside to begin an empty one (SRGHN_DATABASE_URL names another)"
        )


def _connect(url: str) -> tuple[str, Engine]:
    """The database's name for people (no password in it) and an engine for it."""
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise LedgerError(
                f"the ledger is kept in SQLite or PostgreSQL, not in {parsed.drivername!r}; "
                f"set SRGHN_DATABASE_URL to sqlite:///FILE or postgresql://USER@HOST/NAME"
            )
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        engine = create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ModuleNotFoundError as error:
        raise LedgerError(
            f"PostgreSQL needs {error.name}: pip install 'srghn[postgres]'"
        ) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise LedgerError(f"SRGHN_DATABASE_URL is not a database URL: {error}") from error
    return parsed.render_as_string(hide_password=True), engine


def _sqlite(url: URL) -> tuple[str, Engine]:
    if not url.database or url.database == ":memory:":
        raise LedgerError("the ledger must outlive the process: give sqlite:///FILE, not memory")
    path = Path(url.database).absolute()
    _refuse_what_is_no_ledger(path)
    if not path.exists():
        _create_file(path)
    engine = _sqlite_engine(path)
    return str(path), engine


def _sqlite_engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS}
    )

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin below, never by themselves
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("srghn_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _refuse_what_is_no_ledger(path: Path) -> None:
    """An empty file or an orphaned log is a lost ledger, never an invitation to begin a new one."""
    try:
        if path.exists() and path.stat().st_size == 0:
            found = "the file is empty"
        elif not path.exists() and path.with_name(path.name + "-wal").exists():
            found = "the file is gone but its write-ahead log is still there"
        else:
            return
    except OSError as error:
        raise LedgerError(f"cannot use the ledger {path}: {error.strerror}") from error
    raise LedgerError(
        f"cannot use the ledger {path}: {found}; restore it from a backup, or move it and its "
        f"-wal and -shm files aside to begin an empty one"
    )


def _create_file(path: Path) -> None:
    """A new ledger, made aside and linked into place: another process sees all of it or nothing."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        engine = _sqlite_engine(aside)
        with engine.connect() as connection:
            connection = connection.execution_options(srghn_write=True)
            with connection.begin():
                schema.create(connection)
        engine.dispose()
        with sqlite3.connect(aside) as raw:
            raw.execute("PRAGMA journal_mode=WAL")
        raw.close()
        os.link(aside, path)
    except FileExistsError:
        pass  # another process was first, and its ledger is as good
    except (OSError, SQLAlchemyError, sqlite3.Error) as error:
        raise LedgerError(
            f"cannot create the ledger {path}: {getattr(error, 'orig', None) or error}; "
            f"check that its folder can be written, or set SRGHN_HOME to one that can"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def _take_lock(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
