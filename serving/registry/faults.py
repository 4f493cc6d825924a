"""The faults of a database, each as its own error, with advice that cannot destroy anything."""

from __future__ import annotations

import errno
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from srghn.errors import LedgerError, first_line


class LedgerFull(LedgerError):
    """The disk is full; nothing was written."""


class LedgerReadOnly(LedgerError):
    """The database can be read but not written."""


class LedgerLocked(LedgerError):
    """Another process held the write lock longer than this one waits."""


class LedgerCorrupt(LedgerError):
    """The database's own structure is damaged."""


class LedgerUnreachable(LedgerError):
    """The database server does not answer, or refuses the connection."""


class LedgerGone(LedgerError):
    """The database file no longer exists, or was replaced by another."""


#: What the name of the file ends with that keeps room beside a ledger for a rollback.
RESERVE = ".reserve"
#: Faults of a ledger that can still be read.
UNWRITABLE = (LedgerFull, LedgerReadOnly, LedgerLocked)

_SAME = "nothing was changed"
_ADVICE: dict[type[LedgerError], str] = {
    LedgerFull: f"{_SAME}: make room on its disk, then do it again",
    LedgerReadOnly: f"{_SAME}: let this user write the file and its folder, then do it again",
    LedgerLocked: f"{_SAME}: do it again, or end the process that holds it",
    LedgerCorrupt: (
        "it was left as it is: copy it and the files beside it to a safe place, then put a "
        "backup in its place with srghn restore FILE --reason ..."
    ),
    LedgerUnreachable: f"{_SAME}: see that the server runs and that SRGHN_DATABASE_URL names it",
    LedgerGone: (
        "no new one was made: put it back, or restore a backup with srghn restore FILE --reason "
        "..., then restart the servers"
    ),
    LedgerError: f"{_SAME}: srghn doctor checks all of it",
}
#: Beginnings of SQLite's error names; the extended names are more exact.
_SQLITE = {
    "SQLITE_FULL": LedgerFull,
    "SQLITE_IOERR_SHMSIZE": LedgerFull,  # no room for the shared memory file
    "SQLITE_READONLY_DBMOVED": LedgerGone,
    "SQLITE_READONLY": LedgerReadOnly,
    "SQLITE_PERM": LedgerReadOnly,
    "SQLITE_CANTOPEN": LedgerReadOnly,
    "SQLITE_BUSY": LedgerLocked,
    "SQLITE_LOCKED": LedgerLocked,
    "SQLITE_CORRUPT": LedgerCorrupt,
    "SQLITE_NOTADB": LedgerCorrupt,
    "SQLITE_IOERR": LedgerCorrupt,
}
#: PostgreSQL's error classes and single errors.
_POSTGRES = {
    "53100": LedgerFull,
    "25006": LedgerReadOnly,
    "42501": LedgerReadOnly,
    "55P03": LedgerLocked,
    "57014": LedgerUnreachable,  # a statement took longer than `statement_timeout`
    "XX001": LedgerCorrupt,
    "XX002": LedgerCorrupt,
}


def fault(name: str, kind: type[LedgerError], cause: str) -> LedgerError:
    """The one-line error about a database: its name, the problem, what to do."""
    kept = ". Room for a rollback is kept" if kind is LedgerFull and _has_reserve(name) else ""
    return kind(f"cannot use the ledger {name}: {cause}; {_ADVICE[kind]}{kept}")


def _has_reserve(name: str) -> bool:
    """Whether the file of a ledger has a reserve that is not spent."""
    try:
        return Path(f"{name}{RESERVE}").stat().st_size > 0
    except OSError:
        return False


def unadvised(error: Exception) -> str:
    """An error without its advice, which would mislead after a step that was taken."""
    return str(error).partition(f"; {_SAME}")[0]


def translated(name: str, error: SQLAlchemyError) -> LedgerError:
    """A driver's error as the matching `LedgerError`."""
    cause = getattr(error, "orig", None) or error
    return fault(name, kind_of(cause, error), first_line(cause))


def kind_of(cause: BaseException, error: BaseException | None = None) -> type[LedgerError]:
    """The class of fault that an exception of sqlite3 or psycopg means."""
    if isinstance(error, PoolTimeout):
        return LedgerLocked
    known = str(getattr(cause, "sqlite_errorname", ""))
    for begins in sorted(_SQLITE, key=len, reverse=True):
        if known.startswith(begins):
            return _SQLITE[begins]
    state = getattr(cause, "sqlstate", None)
    if state in _POSTGRES:
        return _POSTGRES[state]
    named = type(cause).__name__  # without a state it is psycopg that refuses a value, or the line
    if type(cause).__module__.startswith("psycopg") and (
        (state is None and named != "DataError") or str(state).startswith(("08", "28", "3D", "57P"))
    ):
        return LedgerUnreachable
    return LedgerError


def of_os_error(name: str, error: OSError) -> LedgerError:
    """A file system's error as the matching `LedgerError`."""
    kinds = {
        errno.ENOSPC: LedgerFull,
        errno.EDQUOT: LedgerFull,
        errno.EROFS: LedgerReadOnly,
        errno.EACCES: LedgerReadOnly,
        errno.EPERM: LedgerReadOnly,
        errno.ENOENT: LedgerGone,
    }
    kind = kinds.get(error.errno or 0, LedgerError)
    return fault(name, kind, error.strerror or str(error))
