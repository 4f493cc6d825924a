"""Upgrades an older ledger to this version's schema. Only `srghn ledger upgrade` does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from serving.registry import chain, schema, sqlite_file
from serving.registry.backup import require_no_others, require_unused, save
from serving.registry.database import (
    WAIT_SECONDS,
    check_schema,
    parse_url,
    postgres_engine,
    sqlite_path,
    take_lock,
)
from serving.registry.faults import LedgerGone, fault, translated
from srghn.errors import LedgerError


@dataclass(frozen=True)
class Upgrade:
    """The schema before and after, and the backup; None: it was made by other means."""

    before: int
    after: int
    backup: Path | None
    events: int


def upgrade(url: str, backups: Path, *, backed_up: bool = False) -> Upgrade:
    """Back the ledger up into the folder `backups`, then migrate and verify it, or change nothing.

    `backed_up`: a backup was made by other means, so none is made here. Migration and verification
    are one transaction. Raises `LedgerError` if the migrated chain does not verify, and while
    another process has the ledger open: an older server would write by the schema before.
    """
    parsed = parse_url(url)
    file = sqlite_path(parsed)
    name = str(file) if file else parsed.render_as_string(hide_password=True)
    if file is not None and not file.exists():
        raise fault(name, LedgerGone, "there is no such file")
    engine = (
        sqlite_file.engine_for(file, WAIT_SECONDS, foreign_keys=False)
        if file
        else postgres_engine(parsed, WAIT_SECONDS)
    )
    try:
        before = _schema(engine, name)
        if before == schema.SCHEMA_VERSION:
            with engine.connect() as connection:
                return Upgrade(before, before, None, chain.verify(connection))
        if before > schema.SCHEMA_VERSION:
            check_schema(name, before)
        if file is not None:
            engine.dispose()  # its connections would lose their locks
            require_unused(file, "upgrade")
        with _writing(engine) as connection:
            if file is None:
                require_no_others(connection, name, "upgrade")
            # just what is migrated: nobody writes in between
            kept = None if backed_up else save(url, backups / f"schema-{before}")
            _migrate(connection)
            events = chain.verify(connection)
        return Upgrade(before, schema.SCHEMA_VERSION, kept, events)
    except SQLAlchemyError as error:
        raise translated(name, error) from error
    finally:
        engine.dispose()


def _schema(engine: Engine, name: str) -> int:
    with engine.connect() as connection:
        if not inspect(connection).has_table(schema.meta.name):
            raise LedgerError(f"{name} holds no ledger; SRGHN_DATABASE_URL names another database")
        return int(connection.execute(select(schema.meta.c.schema_version)).scalar_one())


@contextmanager
def _writing(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection = connection.execution_options(srghn_write=True)
        with connection.begin():
            if connection.dialect.name == "postgresql":
                still = "SET LOCAL idle_in_transaction_session_timeout = 0"  # while pg_dump runs
                connection.execute(text(still))
                take_lock(connection)
            yield connection


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    schema.unguard(connection)
    config = Config()
    config.set_main_option("script_location", "serving.registry:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    schema.guard(connection)
    if connection.dialect.name == "sqlite":
        wrong = connection.execute(text("PRAGMA foreign_key_check")).first()
        if wrong is not None:
            raise LedgerError(f"after the migration a row of {wrong[0]} refers to a missing row")
