"""Schema 1 (version 0.2.0) to schema 2: policies, events by format, starts in their order.

Events, evidence, versions, tokens and requests keep their contents and get new columns; the
history's hashes stay valid. Pins and outcomes become starts. Starts have the order of their pins.
The time of an outcome was not stored, so it is that of its start. A released migration never
changes.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = None

POLICY = "policy"
#: Seconds after which version 0.2.0 counted an episode as lost.
EPISODE_SECONDS = 3600.0
#: Numbers of episodes; see `schema`.
_COUNT = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_NAMES = {"uq": "%(table_name)s_%(column_0_name)s_key"}


def upgrade() -> None:
    connection = op.get_bind()
    champion, trial = (_rows(connection, name) for name in ("champion", "canary"))
    weights = _weights(connection)
    _policies(connection)
    _versions(connection)
    _events()
    for name in ("champion", "canary"):
        op.drop_table(name)
    _served(connection, champion, trial)
    _starts()
    _fill_starts(connection, weights)
    for name in ("pins", "outcomes"):
        op.drop_table(name)
    _loop()
    op.add_column("tokens", sa.Column("expires_at", sa.Float))
    op.add_column("tokens", sa.Column("policy", sa.String(100)))
    op.create_index("outbox_pending", "outbox", ["delivered", "seq"])
    columns: list[Any] = [
        "policy",
        "digest",
        "env_fingerprint",
        "mode",
        sa.text("coalesce(recall_of, 0)"),
    ]
    op.create_index("versions_tuple", "versions", columns, unique=True)
    connection.execute(sa.text("UPDATE srghn_meta SET schema_version = 2"))


def _rows(connection: sa.Connection, table: str) -> list[dict[str, Any]]:
    found = connection.execute(sa.text(f"SELECT * FROM {table}")).mappings()
    return [dict(row) for row in found]


def _weights(connection: sa.Connection) -> dict[int, float]:
    """Trial -> its share of episodes at the start."""
    query = sa.text(
        "SELECT seq, body FROM events JOIN evidence ON sha256 = evidence_sha256 "
        "WHERE action = 'start_canary'"
    )
    return {row.seq: float(json.loads(row.body)["weight"]) for row in connection.execute(query)}


def _policies(connection: sa.Connection) -> None:
    table = op.create_table(
        "policies",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("interface", sa.Text),
        sa.Column("service_mode", sa.Text),
        sa.Column("rules_sha256", sa.String(64)),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    query = sa.text("SELECT manifest FROM versions JOIN champion USING (version)")
    manifest = connection.execute(query).scalar()
    interface = json.loads(manifest).get("interface") if manifest else None
    row = {
        "name": POLICY,
        "interface": None if interface is None else json.dumps(interface),
        "secret": secrets.token_hex(32),
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    connection.execute(table.insert().values(row))


def _versions(connection: sa.Connection) -> None:
    with op.batch_alter_table("versions", naming_convention=_NAMES) as batch:
        batch.add_column(sa.Column("policy", sa.String(100)))
        batch.add_column(sa.Column("genome", sa.String(64)))
        batch.add_column(sa.Column("recall_of", sa.Integer))
        batch.drop_constraint("versions_digest_key", type_="unique")
    for row in _rows(connection, "versions"):
        genome = json.loads(row["manifest"]).get("genome_digest", row["digest"])
        connection.execute(
            sa.text("UPDATE versions SET policy = :policy, genome = :genome WHERE version = :n"),
            {"policy": POLICY, "genome": genome, "n": row["version"]},
        )
    with op.batch_alter_table("versions") as batch:
        batch.alter_column("policy", existing_type=sa.String(100), nullable=False)
        batch.alter_column("genome", existing_type=sa.String(64), nullable=False)
    op.create_index("ix_versions_digest", "versions", ["digest"])
    op.create_index("ix_versions_run_id", "versions", ["run_id"])
    op.create_index("versions_state", "versions", ["policy", "state"])
    op.create_index("versions_genome", "versions", ["genome"])
    op.create_index("versions_deadline", "versions", ["deadline"])


def _events() -> None:
    with op.batch_alter_table("events") as batch:
        batch.add_column(sa.Column("format", sa.Integer, nullable=False, server_default="1"))
        batch.add_column(sa.Column("policy", sa.String(100), nullable=False, server_default=POLICY))
        batch.alter_column("version", existing_type=sa.Integer, nullable=True)
        batch.alter_column("to_state", existing_type=sa.String(16), nullable=True)
    with op.batch_alter_table("events") as batch:
        batch.alter_column("format", existing_type=sa.Integer, server_default=None)
        batch.alter_column("policy", existing_type=sa.String(100), server_default=None)
    op.create_index("events_version", "events", ["version", "seq"])
    op.create_index("events_action", "events", ["policy", "action", "seq"])
    op.create_index("events_to_state", "events", ["policy", "to_state", "seq"])


def _served(
    connection: sa.Connection, champion: list[dict[str, Any]], trial: list[dict[str, Any]]
) -> None:
    """Champion and trial by policy; a running trial continues, with an empty state."""
    champions = op.create_table(
        "champion",
        sa.Column("policy", sa.String(100), primary_key=True),
        sa.Column("version", sa.Integer, sa.ForeignKey("versions.version"), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("since", sa.String(32), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
    )
    trials = op.create_table(
        "trial",
        sa.Column("policy", sa.String(100), primary_key=True),
        sa.Column("version", sa.Integer, sa.ForeignKey("versions.version"), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("since", sa.String(32), nullable=False),
    )
    states = op.create_table(
        "trial_state",
        sa.Column("policy", sa.String(100), primary_key=True),
        sa.Column("trial", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("n", _COUNT, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )
    for row in champion:
        del row["id"]
        connection.execute(champions.insert().values(policy=POLICY, **row))
    for row in trial:
        del row["id"]
        connection.execute(trials.insert().values(policy=POLICY, status="running", **row))
        begun = {"policy": POLICY, "trial": row["epoch"], "n": 0, "generation": 0, "state": "{}"}
        connection.execute(states.insert().values(begun))


def _starts() -> None:
    op.create_table(
        "starts",
        sa.Column("n", _COUNT, primary_key=True, autoincrement=True),
        sa.Column("policy", sa.String(100), nullable=False),
        sa.Column("trial", sa.Integer),
        sa.Column("episode", sa.String(200), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("arm", sa.Integer, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("deadline", sa.Float, nullable=False),
        sa.Column("moved", sa.Boolean, nullable=False),
        sa.Column("arrived", _COUNT),
        sa.Column("ended_at", sa.Float),
        sa.Column("return", sa.Float),
        sa.Column("length", sa.Integer),
        sa.Column("terminated", sa.Boolean),
        sa.Column("poster", sa.Text),
        sa.Column("counted", sa.Boolean),
        sqlite_autoincrement=True,
    )
    op.create_index("starts_episode", "starts", ["policy", "episode"], unique=True)
    op.create_index("starts_trial", "starts", ["policy", "trial", "n"])
    op.create_index("starts_of_policy", "starts", ["policy", "n"])
    op.create_index("starts_ended", "starts", ["policy", "arrived"])
    op.create_index("starts_arrived", "starts", ["arrived"], unique=True)
    op.create_index("starts_outcomes", "starts", ["policy", "version", "arrived"])
    op.create_index("starts_started_at", "starts", ["started_at"])


def _fill_starts(connection: sa.Connection, weights: dict[int, float]) -> None:
    outcomes = {row["episode_id"]: row for row in _rows(connection, "outcomes")}
    pins = {row["episode_id"]: row for row in _rows(connection, "pins")}
    for name, outcome in outcomes.items():  # a pin is deleted after a week, its outcome is not
        forgotten = {"generation": 0, "pinned_at": 0.0, "moved": False, "over": True}
        pins.setdefault(name, {**outcome, **forgotten})
    last = len(outcomes) + 1

    def order(pin: dict[str, Any]) -> tuple[float, int, str]:
        outcome = outcomes.get(pin["episode_id"])
        return pin["pinned_at"], outcome["n"] if outcome else last, pin["episode_id"]

    starts = sa.table("starts", *(sa.column(name) for name in _STARTS))
    for pin in sorted(pins.values(), key=order):
        row = _start(pin, outcomes.get(pin["episode_id"]), weights)
        connection.execute(starts.insert().values(row))


_STARTS = (
    "policy", "trial", "episode", "version", "generation", "arm", "weight", "started_at",
    "deadline", "moved", "arrived", "ended_at", "return", "length", "terminated", "counted",
)  # fmt: skip


def _start(
    pin: dict[str, Any], outcome: dict[str, Any] | None, weights: dict[int, float]
) -> dict[str, Any]:
    row = {
        "policy": POLICY,
        "trial": pin["epoch"],
        "episode": pin["episode_id"],
        "version": pin["version"],
        "generation": pin["generation"],
        "arm": int(pin["route"] == "canary"),
        "weight": weights.get(pin["epoch"], 0.0),
        "started_at": pin["pinned_at"],
        "deadline": pin["pinned_at"] + EPISODE_SECONDS,
        "moved": bool(pin["moved"]),
    }
    if outcome is None:
        return row
    kept = ("return", "length")
    return {
        **row,
        **{name: outcome[name] for name in kept},
        "terminated": bool(outcome["terminated"]),
        "counted": bool(outcome["counted"]),
        "arrived": outcome["n"],
        "ended_at": pin["pinned_at"],
    }


_COUNTED = (
    "copies", "differed", "errors", "champion_errors", "invalid", "champion_invalid", "timed",
    "slower",
)  # fmt: skip


def _loop() -> None:
    """Tables for shadows, the watch and notifications."""
    op.create_table(
        "compared",
        sa.Column("policy", sa.String(100), primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in _COUNTED),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("seconds", "champion_seconds")),
    )
    op.create_table(
        "watch",
        sa.Column("policy", sa.String(100), primary_key=True),
        sa.Column("n", _COUNT, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )
    op.create_table(
        "samples",
        sa.Column("n", _COUNT, primary_key=True, autoincrement=True),
        sa.Column("policy", sa.String(100), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("episode", sa.String(200), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("observation", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("samples_policy", "samples", ["policy", "n"])
    op.create_table(
        "sinks",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("kinds", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("sink", sa.String(100), sa.ForeignKey("sinks.name"), primary_key=True),
        sa.Column(
            "seq", sa.Integer, sa.ForeignKey("events.seq"), primary_key=True, autoincrement=False
        ),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Float, nullable=False),
        sa.Column("delivered", sa.Boolean, nullable=False),
        sa.Column("failure", sa.Text),
    )
    op.create_index("deliveries_due", "deliveries", ["sink", "delivered", "seq"])
