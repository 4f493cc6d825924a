"""Opening the ledger's database, and transactions on it.

SQLite (the default) runs in WAL mode with `BEGIN IMMEDIATE` for writers; PostgreSQL serialises
writers by an advisory lock. Either way there is one writer at a time, and a reader sees a snapshot.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection

from serving.registry import schema, sqlite_file
from serving.registry.faults import (
    LedgerCorrupt,
    LedgerFull,
    LedgerGone,
    LedgerLocked,
    fault,
    translated,
)
from srghn.errors import LedgerError

#: Seconds that a writer waits for another one. A server waits less, because its callers wait too.
WAIT_SECONDS = 5.0
#: Seconds that one statement may take on PostgreSQL. The longest ones read or mark the whole
#: history. An upgrade rebuilds tables and has no such limit; a backup's connection is `pg_dump`'s.
STATEMENT_SECONDS = 300.0
#: For connections whose packets are lost: a server is given up 10 s after the last sign of it.
_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_ADVISORY_LOCK = 0x5247484E
#: Begins the name of every session on PostgreSQL; its end tells processes of one number apart, as
#: containers on one host have them.
_SESSION, _MARK = "srghn", secrets.token_hex(4)


class Database:
    """Transactions on the ledger's database. Every failure is a `LedgerError` that names it.

    `home` is the folder with the artefacts and the witness. The default is the folder of an SQLite
    file; with PostgreSQL there is none. `wait` is the longest time, in seconds, that a caller waits
    for another process's lock.
    """

    def __init__(self, url: str, *, home: Path | None = None, wait: float = WAIT_SECONDS) -> None:
        parsed = parse_url(url)
        self.wait = wait
        self.file = sqlite_path(parsed)
        self.home = home or (self.file.parent if self.file else None)
        self.name = str(self.file) if self.file else without_passwords(parsed)
        self._turns = _Turns()
        self._asking = threading.Lock()
        self._asker: PoolProxiedConnection | None = None
        self._engine = self._open(parsed)
        weakref.finalize(self, _dispose, self._engine, os.getpid())
        self._identity, self._lost = self.identity(), ""
        try:
            with self._translated():
                self._prepare()
        except LedgerError:
            self.close()
            raise

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
        """An exclusive transaction: all of it is committed, or nothing.

        Raises `LedgerGone` if the file was lost or replaced; then nothing is acknowledged.
        """
        self.require()
        with self._my_turn(), self._translated(), self._engine.connect() as connection:
            connection = connection.execution_options(srghn_write=True)
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    take_lock(connection)
                yield connection
        self.require()

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        """Let one thread of this process write at a time; the next one is woken when it is done.

        With SQLite's own lock, waiting threads only try again now and then, so a busy writer could
        keep them waiting for seconds.
        """
        if not self._turns.take(self.wait):
            raise fault(self.name, LedgerLocked, "another thread writes for too long")
        try:
            yield
        finally:
            self._turns.end()

    def close(self) -> None:
        with self._asking:
            if self._asker is not None:
                self._asker.close()
                self._asker = None
        self._engine.dispose()

    def moment(self) -> int | None:
        """A number that is another one after any commit but this method's; None if there is none.

        Cheap enough to ask twice a second: SQLite keeps it in shared memory.
        """
        if self.file is None:
            return None
        with self._asking, self._translated():
            try:
                if self._asker is None:
                    self._asker = self._engine.raw_connection()
                with closing(self._asker.cursor()) as cursor:
                    return int(cursor.execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error as error:
                raise DBAPIError.instance(None, None, error, sqlite3.Error) from error

    def identity(self) -> sqlite_file.Identity | None:
        """The identity of the database's file; None for a database server."""
        return sqlite_file.identity(self.file) if self.file else None

    def still_there(self) -> bool:
        """Whether the path still names the file that was opened. One `stat`, no lock."""
        try:
            return self.identity() == self._identity
        except LedgerError:
            return False

    def require(self) -> None:
        """Raise `LedgerGone` unless the database is still there."""
        if self._lost or not self.still_there():
            why = self._lost or "the file was removed or replaced while in use"
            raise fault(self.name, LedgerGone, why)

    def lose(self, why: str) -> None:
        """Raise `LedgerGone`, as each write does from now on: it is not what was opened."""
        self._lost = why
        self.require()

    def spend_reserve(self) -> bool:
        """Free one slice of the reserve on a full disk; False if none is left."""
        return self.file is not None and sqlite_file.spend_reserve(self.file)

    def check_storage(self) -> None:
        """Ask SQLite whether every page of the file is sound; raises `LedgerError` if not."""
        if self.file is None:
            return
        with self.read() as connection:
            found = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        if found != "ok":
            raise fault(self.name, LedgerCorrupt, str(found))

    def _open(self, url: URL) -> Engine:
        if self.file is None:
            return postgres_engine(url, self.wait, STATEMENT_SECONDS)
        sqlite_file.refuse_lost(self.file, self.home or self.file.parent)
        if not self.file.exists():
            sqlite_file.create(self.file)
        sqlite_file.keep_reserve(self.file)
        return sqlite_file.engine_for(self.file, self.wait)

    def _prepare(self) -> None:
        if self.file is None and not self._has_tables():
            with self.write() as connection:
                if not inspect(connection).has_table(schema.meta.name):  # nobody was first
                    self._refuse_lost_rows()
                    schema.create(connection)
        try:
            found = self._schema()
        except LedgerFull:
            if not self.spend_reserve():
                raise
            found = self._schema()
        check_schema(self.name, found)

    def _has_tables(self) -> bool:
        with self.read() as connection:
            return inspect(connection).has_table(schema.meta.name)

    def _schema(self) -> int:
        with self.read() as connection:
            return int(connection.execute(select(schema.meta.c.schema_version)).scalar_one())

    def _refuse_lost_rows(self) -> None:
        if self.home is not None and (self.home / "witness.jsonl").exists():
            raise fault(
                self.name,
                LedgerGone,
                f"it is empty, but the witness in {self.home} has signed a ledger",
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise translated(self.name, error) from error


def _dispose(engine: Engine, process: int) -> None:
    """Close the connections of a database that nobody closed: a command ends without it.

    In a forked process they are the parent's, which goes on using them.
    """
    engine.dispose(close=os.getpid() == process)


class _Turns:
    """A lock that threads get in the order in which they asked for it."""

    def __init__(self) -> None:
        self._guard, self._taken = threading.Lock(), False
        self._waiting: deque[threading.Lock] = deque()

    def take(self, seconds: float) -> bool:
        """Wait for up to `seconds`; True if this thread has the lock now."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=seconds):
            return True
        with self._guard:
            if mine not in self._waiting:
                return True  # it was passed on at the last moment
            self._waiting.remove(mine)
            return False

    def end(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


def check_schema(name: str, found: int) -> None:
    """Raise `LedgerError`, with the command that helps, unless this version reads the schema."""
    if found < schema.SCHEMA_VERSION:
        raise LedgerError(
            f"{name} holds a ledger of schema {found}, this version of srghn reads "
            f"{schema.SCHEMA_VERSION}; back it up and upgrade it: srghn ledger upgrade"
        )
    if found > schema.SCHEMA_VERSION:
        raise LedgerError(
            f"{name} holds a ledger of schema {found}, this version of srghn reads "
            f"{schema.SCHEMA_VERSION}; use the version of srghn that wrote it"
        )


def parse_url(url: str) -> URL:
    """A database URL with its driver; raises `LedgerError` if it cannot be a ledger's."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise LedgerError(f"SRGHN_DATABASE_URL is not a database URL: {error}") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername.split("+")[0] not in ("sqlite", "postgresql"):
        raise LedgerError(
            f"the ledger is kept in SQLite or PostgreSQL, not in {parsed.drivername!r}; "
            f"set SRGHN_DATABASE_URL to sqlite:///FILE or postgresql://USER@HOST/NAME"
        )
    return parsed


def without_passwords(url: URL) -> str:
    """The URL for logs and messages."""
    shown = url.difference_update_query(("password", "sslpassword"))
    return shown.render_as_string(hide_password=True)


def sqlite_path(url: URL) -> Path | None:
    """The file of an SQLite URL; None for a server's URL."""
    if url.drivername.split("+")[0] != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise LedgerError("the ledger must outlive the process: give sqlite:///FILE, not memory")
    return Path(url.database).absolute()


def postgres_engine(url: URL, wait: float, longest: float = 0.0) -> Engine:
    """An engine whose sessions wait at most `wait` seconds for a lock.

    `longest`: seconds for a statement; 0: no limit. What the URL says of keepalives is kept.
    """
    kept = {name: value for name, value in _KEEPALIVE.items() if name not in url.query}
    settings = {"lock_timeout": wait, "statement_timeout": longest}
    try:
        return create_engine(
            url,
            pool_pre_ping=True,
            pool_size=16,
            max_overflow=16,
            pool_timeout=wait,
            connect_args={
                **kept,
                "application_name": _session(),
                "connect_timeout": max(2, round(wait)),
                "options": " ".join(f"-c {k}={round(v * 1000)}" for k, v in settings.items()),
            },
        )
    except ModuleNotFoundError as error:
        raise LedgerError(
            f"PostgreSQL needs {error.name}: pip install 'srghn[postgres]'"
        ) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise LedgerError(f"SRGHN_DATABASE_URL is not a database URL: {error}") from error


def take_lock(connection: Connection) -> None:
    """Become PostgreSQL's one writer, until the transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})


def others(connection: Connection) -> list[str]:
    """Other processes that have a ledger in PostgreSQL open, in words.

    Those that say that they are srghn, and all others of this user: 0.2.0 does not say what it is.
    A monitor has a user of its own.
    """
    connection.execute(text("SELECT pg_stat_clear_snapshot()"))  # else it answers as before
    query = (
        "SELECT application_name, string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name <> :own "
        "AND (application_name LIKE :ours "
        "OR usename = session_user AND backend_type = 'client backend') "
        "GROUP BY application_name ORDER BY min(pid)"
    )
    found = connection.execute(text(query), {"ours": f"{_SESSION} %", "own": _session()})
    return [f"{_without_mark(name)} (sessions {sessions})" for name, sessions in found]


def _without_mark(name: str) -> str:
    if name.startswith(f"{_SESSION} "):
        return name.rpartition(" ")[0]
    return name or "a process without a name, as srghn 0.2.0"


def _session() -> str:
    """The name of this process's sessions: PostgreSQL takes 63 letters of ASCII."""
    host = socket.gethostname()[:32].encode("ascii", "replace").decode()
    return f"{_SESSION} {os.getpid()}@{host} {_MARK}"
