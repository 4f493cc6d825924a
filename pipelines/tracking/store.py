"""The embedded MLflow store: its folder, and where it says that artifacts lie.

MLflow keeps absolute artifact locations in its database. A home that was moved or copied would
write into the folder it had before, so they are mended before the store is used.

MLflow makes its database by some fifty migrations and cannot go on with one that a kill or a full
disk cut off. So a new one is made beside its place and moved there once it is whole.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from serving.settings import Settings
from srghn.errors import ServiceError, first_line, is_full
from srghn.files import one_at_a_time

#: Table -> the column that holds a location.
LOCATIONS = {"runs": "artifact_uri", "logged_models": "artifact_location"}
#: Beginnings of SQLite's names of the errors of a file that this user may not use.
_CLOSED = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")


def artifacts(settings: Settings) -> str:
    """The URI below which the embedded store keeps every artifact."""
    return (settings.mlflow / "artifacts").as_uri()


def prepare_store(settings: Settings) -> None:
    """Make the embedded store if it is missing, and point what it recorded elsewhere to this home.

    A database that MLflow began and did not finish holds nothing, and is replaced by a new one.
    Raises `ServiceError` where the folder or the database in it cannot be used.
    """
    if not settings.mlflow_is_embedded:
        return
    database = settings.mlflow / "mlflow.db"
    try:
        settings.mlflow.mkdir(parents=True, exist_ok=True)
        if settings.mlflow_uri == f"sqlite:///{database}":
            if not _is_whole(database):
                _make(database, artifacts(settings))
            _mend(database, artifacts(settings))
    except (OSError, sqlite3.Error) as error:
        raise _unusable(database, error) from error


def _unusable(database: Path, error: Exception) -> ServiceError:
    said = error.strerror if isinstance(error, OSError) else first_line(error)
    return ServiceError(f"MLflow's database {database} cannot be used: {said}; {_remedy(error)}")


def _remedy(error: Exception) -> str:
    """What to do; only a damaged database may be moved away."""
    known = str(getattr(error, "sqlite_errorname", ""))
    if is_full(error):
        then = "make room on its disk"
    elif known.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        then = "wait for the process that holds it, or end that"
    elif isinstance(error, PermissionError) or known.startswith(_CLOSED):
        then = "let this user write it and its folder"
    else:
        return (
            "mend it, or move it away and run srghn sync --all, which writes every version and "
            "run into a new one"
        )
    return f"it is not damaged: {then}, then run srghn sync"


def _is_whole(database: Path) -> bool:
    """Whether MLflow has finished making its database; raises `sqlite3.Error` for a damaged one.

    Its first experiment is what it makes last; a registry alone has a model instead.
    """
    if not database.is_file():
        return False
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        return any(
            table in names and connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
            for table in ("experiments", "registered_models")
        )


def _make(database: Path, root: str) -> None:
    """A new database, whole at once; what another process is making beside it does not matter."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.exc import SQLAlchemyError

    aside = database.with_name(f".{database.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    try:
        make: Any = SqlAlchemyStore
        make(f"sqlite:///{aside}", root).engine.dispose()
        with one_at_a_time(database.with_name(".making")):
            if not _is_whole(database):
                aside.replace(database)
    except SQLAlchemyError as error:
        raise _unusable(database, getattr(error, "orig", None) or error) from error
    except MlflowException as error:
        raise _unusable(database, error) from error
    finally:
        for suffix in ("", "-journal"):
            with suppress(OSError):
                aside.with_name(aside.name + suffix).unlink(missing_ok=True)


def _mend(database: Path, root: str) -> None:
    """Give every location of another home the same place below `root`."""
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if "experiments" not in tables:
            return
        query = "SELECT experiment_id, artifact_location FROM experiments"
        for experiment, location in connection.execute(query).fetchall():
            wanted = root if _is_ours(location) else f"{root}/{experiment}"
            if location == wanted or not _is_local(location):
                continue
            change = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?"
            connection.execute(change, (wanted, experiment))
            for table, column in LOCATIONS.items():
                if table in tables:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE experiment_id = ? AND substr({column}, 1, ?) = ?",
                        (wanted, len(location) + 1, experiment, len(location), location),
                    )


def _is_ours(location: str) -> bool:
    """Whether a home's own artifact folder is meant, of this home or of another place it was in."""
    return location.endswith("/mlflow/artifacts")


def _is_local(location: str) -> bool:
    return location.startswith(("/", "file:"))
