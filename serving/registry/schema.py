"""The ledger's tables, the same on SQLite and PostgreSQL.

This is the newest schema. `migrations` upgrades older ledgers to it; a test compares the two.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
)

SCHEMA_VERSION = 2
#: Alembic's name of that schema, and its own table for it (MLflow may share the database).
REVISION, REVISION_TABLE = "0002", "srghn_alembic_version"
#: The default policy, which every ledger has.
POLICY = "policy"

#: Columns for the counts from copies of requests: `serving.trial.guards.Compared`.
COUNTED = (
    "copies", "differed", "errors", "champion_errors", "invalid", "champion_invalid", "timed",
    "slower",
)  # fmt: skip
TIMED = ("seconds", "champion_seconds")

#: Numbers of episodes, which 32 bits do not hold for ever. SQLite's integers have 64 bits anyway,
#: and only this name of them counts up by itself.
Count = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

meta = Table(
    "srghn_meta",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
)

revision = Table(REVISION_TABLE, metadata, Column("version_num", String(32), primary_key=True))

policies = Table(
    "policies",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("interface", Text),  # JSON; NULL until the first champion
    Column("service_mode", Text),  # NULL: the champion's own
    Column("rules_sha256", String(64)),  # evidence of the last deployment rules
    Column("secret", String(64), nullable=False),  # keys of episode tokens are derived from it
    Column("created_at", String(32), nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("policy", String(100), nullable=False),
    Column("digest", String(64), nullable=False, index=True),
    Column("genome", String(64), nullable=False),
    Column("recall_of", Integer),
    Column("env_fingerprint", String(64), nullable=False),
    Column("mode", Text, nullable=False),
    Column("run_id", Text, nullable=False, index=True),
    Column("manifest", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("quarantined", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("deadline", Float),  # of the lease while EVALUATING, of the pass while it is valid
    Column("suite_version", Text),
    Column("policy_digest", String(64)),
    Column("incumbent_digest", String(64)),
    Column("incumbent_generation", Integer, nullable=False),
    Column("report_path", Text),
    Column("report_digest", String(64)),
    Column("registered_at", String(32), nullable=False),
)
Index(
    "versions_tuple",
    versions.c.policy,
    versions.c.digest,
    versions.c.env_fingerprint,
    versions.c.mode,
    func.coalesce(versions.c.recall_of, 0),
    unique=True,
)
Index("versions_state", versions.c.policy, versions.c.state)
Index("versions_genome", versions.c.genome)
Index("versions_deadline", versions.c.deadline)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),  # which fields the hash covers
    Column("prev_hash", String(64), nullable=False),
    Column("policy", String(100), nullable=False),
    Column("version", Integer, ForeignKey("versions.version")),
    Column("action", String(32), nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("from_state", String(16)),
    Column("to_state", String(16)),
    Column("generation", Integer, nullable=False),
    Column("evidence_sha256", String(64)),
    Column("policy_sha256", String(64)),
    Column("idempotency_key", Text),
    Column("at", String(32), nullable=False),
    Column("hash", String(64), nullable=False),
)
Index("events_version", events.c.version, events.c.seq)
Index("events_action", events.c.policy, events.c.action, events.c.seq)
Index("events_to_state", events.c.policy, events.c.to_state, events.c.seq)

evidence = Table(
    "evidence",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("body", Text, nullable=False),
)

champion = Table(
    "champion",
    metadata,
    Column("policy", String(100), primary_key=True),
    Column("version", Integer, ForeignKey("versions.version"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("since", String(32), nullable=False),
    Column("by", Text, nullable=False),
)

trial = Table(
    "trial",
    metadata,
    Column("policy", String(100), primary_key=True),
    Column("version", Integer, ForeignKey("versions.version"), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("weight", Float, nullable=False),
    Column("status", String(16), nullable=False),  # running, paused, held
    Column("params", Text, nullable=False),
    Column("since", String(32), nullable=False),
)

trial_state = Table(
    "trial_state",
    metadata,
    Column("policy", String(100), primary_key=True),
    Column("trial", Integer, primary_key=True, autoincrement=False),
    Column("n", Count, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("state", Text, nullable=False),
)

compared = Table(
    "compared",
    metadata,
    Column("policy", String(100), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),  # of the shadow or the trial
    *(Column(name, Integer, nullable=False) for name in COUNTED),
    *(Column(name, Float, nullable=False) for name in TIMED),
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
Index("outbox_pending", outbox.c.delivered, outbox.c.seq)

starts = Table(
    "starts",
    metadata,
    Column("n", Count, primary_key=True, autoincrement=True),
    Column("policy", String(100), nullable=False),
    Column("trial", Integer),  # seq of the event that began it; NULL outside a trial
    Column("episode", String(200), nullable=False),
    Column("version", Integer, nullable=False),
    Column("generation", Integer, nullable=False),  # of the champion at that start
    Column("arm", Integer, nullable=False),  # 0 champion, 1 canary
    Column("weight", Float, nullable=False),  # the canary's probability at that start
    Column("started_at", Float, nullable=False),
    Column("deadline", Float, nullable=False),
    # The version changed, or a request lacked the token: evidence for neither arm.
    Column("moved", Boolean, nullable=False),
    Column("arrived", Count),  # order of outcomes; NULL while the episode runs
    Column("ended_at", Float),
    Column("return", Float),
    Column("length", Integer),
    Column("terminated", Boolean),
    Column("poster", Text),
    Column("counted", Boolean),
    sqlite_autoincrement=True,
)
Index("starts_episode", starts.c.policy, starts.c.episode, unique=True)
Index("starts_trial", starts.c.policy, starts.c.trial, starts.c.n)
# For the latest starts and outcomes of a policy: SQLite, which knows no sizes before `ANALYZE`,
# sorts all of them otherwise, whatever the limit.
Index("starts_of_policy", starts.c.policy, starts.c.n)
Index("starts_ended", starts.c.policy, starts.c.arrived)
Index("starts_arrived", starts.c.arrived, unique=True)
Index("starts_outcomes", starts.c.policy, starts.c.version, starts.c.arrived)
Index("starts_started_at", starts.c.started_at)

watch = Table(
    "watch",
    metadata,
    Column("policy", String(100), primary_key=True),
    Column("n", Count, nullable=False),  # the last start counted, by `starts.n`
    Column("generation", Integer, nullable=False),
    Column("state", Text, nullable=False),
)

samples = Table(
    "samples",
    metadata,
    Column("n", Count, primary_key=True, autoincrement=True),
    Column("policy", String(100), nullable=False),
    Column("version", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("episode", String(200), nullable=False),
    Column("step", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("observation", LargeBinary, nullable=False),  # float32, little-endian
    sqlite_autoincrement=True,
)
Index("samples_policy", samples.c.policy, samples.c.n)

sinks = Table(
    "sinks",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("kinds", Text, nullable=False),  # JSON list; empty: all
    Column("enabled", Boolean, nullable=False),
    Column("created_at", String(32), nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("sink", String(100), ForeignKey("sinks.name"), primary_key=True),
    Column("seq", Integer, ForeignKey("events.seq"), primary_key=True, autoincrement=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Float, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Column("failure", Text),
)
Index("deliveries_due", deliveries.c.sink, deliveries.c.delivered, deliveries.c.seq)

tokens = Table(
    "tokens",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # of infer, outcome, review, admin; with commas
    Column("created_at", String(32), nullable=False),
    Column("expires_at", Float),  # Unix seconds; NULL: never
    Column("revoked", Boolean, nullable=False),
    Column("policy", String(100)),  # NULL: good for all
)

GUARDED = ("events", "evidence")

_SQLITE_GUARD = """
CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
"""

_POSTGRES_GUARD = """
CREATE OR REPLACE FUNCTION srghn_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events
FOR EACH ROW EXECUTE FUNCTION srghn_append_only();
CREATE TRIGGER evidence_append_only BEFORE UPDATE OR DELETE ON evidence
FOR EACH ROW EXECUTE FUNCTION srghn_append_only();
"""


def create(connection: Connection) -> None:
    """Make all tables of the newest schema, and the policy that every ledger has."""
    metadata.create_all(connection)
    guard(connection)
    connection.execute(meta.insert().values(id=1, schema_version=SCHEMA_VERSION))
    connection.execute(revision.insert().values(version_num=REVISION))
    connection.execute(policies.insert().values(first_policy()))


def first_policy() -> dict[str, Any]:
    """The row of the policy that every ledger has, with a new secret."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"name": POLICY, "secret": secrets.token_hex(32), "created_at": now}


def guard(connection: Connection) -> None:
    """Make the history append-only, also for other programs that write to the database."""
    if connection.dialect.name == "sqlite":
        for table in GUARDED:
            for verb in ("UPDATE", "DELETE"):
                connection.exec_driver_sql(_SQLITE_GUARD.format(table=table, verb=verb))
    else:
        connection.exec_driver_sql(_POSTGRES_GUARD)


def unguard(connection: Connection) -> None:
    """Remove the guard, for a migration."""
    if connection.dialect.name == "sqlite":
        for table in GUARDED:
            for verb in ("UPDATE", "DELETE"):
                connection.exec_driver_sql(f"DROP TRIGGER {table}_no_{verb}")
    else:
        for table in GUARDED:
            connection.exec_driver_sql(f"DROP TRIGGER {table}_append_only ON {table}")
