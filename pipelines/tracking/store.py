"""The embedded MLflow store: its folder, and where it says that artifacts lie.

MLflow keeps absolute artifact locations in its database. A home that was moved or copied would
write into the folder it had before, so they are mended before the store is used.
"""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

from serving.settings import Settings
from srghn.errors import ServiceError

#: Table -> the column that holds a location.
LOCATIONS = {"runs": "artifact_uri", "logged_models": "artifact_location"}


def artifacts(settings: Settings) -> str:
    """The URI below which the embedded store keeps every artifact."""
    return (settings.mlflow / "artifacts").as_uri()


def prepare_store(settings: Settings) -> None:
    """Make the embedded store's folder, and point what it recorded elsewhere to this home.

    Raises `ServiceError` where the folder or the database in it cannot be used.
    """
    if not settings.mlflow_is_embedded:
        return
    database = settings.mlflow / "mlflow.db"
    try:
        settings.mlflow.mkdir(parents=True, exist_ok=True)
        if database.is_file() and settings.mlflow_uri == f"sqlite:///{database}":
            _mend(database, artifacts(settings))
    except (OSError, sqlite3.Error) as error:
        said = error.strerror if isinstance(error, OSError) else error
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or (
            getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        )
        how = (
            "it is not damaged: make room on its disk"
            if full
            else "mend it, or move it away and run srghn sync --all, which writes every version "
            "into a new one"
        )
        raise ServiceError(f"MLflow's database {database} cannot be used: {said}; {how}") from error


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
