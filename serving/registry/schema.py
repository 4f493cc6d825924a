"""The ledger's tables, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION = 1

metadata = MetaData()

meta = Table(
    "srghn_meta",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("env_fingerprint", String(64), nullable=False),
    Column("mode", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("quarantined", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("deadline", Float),  # of the lease while EVALUATING, of the pass while PASSED
    Column("suite_version", Text),
    Column("policy_digest", String(64)),
    Column("incumbent_digest", String(64)),
    Column("incumbent_generation", Integer, nullable=False),
    Column("report_path", Text),
    Column("report_digest", String(64)),
    Column("registered_at", String(32), nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("prev_hash", String(64), nullable=False),
    Column("version", Integer, ForeignKey("versions.version"), nullable=False),
    Column("action", String(32), nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("from_state", String(16)),
    Column("to_state", String(16), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("evidence_sha256", String(64)),
    Column("policy_sha256", String(64)),
    Column("idempotency_key", Text),
    Column("at", String(32), nullable=False),
    Column("hash", String(64), nullable=False),
)

evidence = Table(
    "evidence",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("body", Text, nullable=False),
)

champion = Table(
    "champion",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("version", Integer, ForeignKey("versions.version"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("since", String(32), nullable=False),
    Column("by", Text, nullable=False),
)

canary = Table(
    "canary",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("version", Integer, ForeignKey("versions.version"), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("weight", Float, nullable=False),
    Column("params", Text, nullable=False),
    Column("since", String(32), nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("key", Text, primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("result", Text, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", Integer, ForeignKey("events.seq"), primary_key=True, autoincrement=False),
    Column("delivered", Boolean, nullable=False),
)

pins = Table(
    "pins",
    metadata,
    Column("episode_id", String(200), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("route", String(16), nullable=False),
    Column("epoch", Integer),
    Column("generation", Integer, nullable=False),
    Column("pinned_at", Float, nullable=False),
    Column("moved", Boolean, nullable=False),
    Column("over", Boolean, nullable=False),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("n", Integer, primary_key=True),
    Column("episode_id", String(200), nullable=False, unique=True),
    Column("version", Integer, nullable=False, index=True),
    Column("route", String(16), nullable=False),
    Column("epoch", Integer, index=True),
    Column("return", Float, nullable=False),
    Column("length", Integer, nullable=False),
    Column("terminated", Boolean, nullable=False),
    Column("counted", Boolean, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("revoked", Boolean, nullable=False),
)

_SQLITE_GUARD = """
CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
"""

_POSTGRES_GUARD = """
CREATE FUNCTION srghn_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events
FOR EACH ROW EXECUTE FUNCTION srghn_append_only();
CREATE TRIGGER evidence_append_only BEFORE UPDATE OR DELETE ON evidence
FOR EACH ROW EXECUTE FUNCTION srghn_append_only();
"""


def create(connection: Connection) -> None:
    """Make every table, and make history append-only for whoever comes by another way."""
    metadata.create_all(connection)
    if connection.dialect.name == "sqlite":
        for table in ("events", "evidence"):
            for verb in ("UPDATE", "DELETE"):
                connection.exec_driver_sql(_SQLITE_GUARD.format(table=table, verb=verb))
    else:
        connection.exec_driver_sql(_POSTGRES_GUARD)
    connection.execute(meta.insert().values(id=1, schema_version=SCHEMA_VERSION))
