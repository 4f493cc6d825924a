"""Queries in an open transaction, for readers and writers; they turn rows into records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from serving.registry import schema
from serving.registry.records import Canary, Champion, Policy, Version
from serving.registry.states import State
from serving.trial.rules import TrialRules
from srghn.errors import LedgerError
from srghn.files import sha256_bytes


def iso(seconds: float) -> str:
    """Unix seconds as UTC text, to the millisecond. For people: the ledger orders by `seq`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def find_version(connection: Connection, version: int) -> Version:
    query = select(schema.versions).where(schema.versions.c.version == version)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        last = connection.execute(select(func.max(schema.versions.c.version))).scalar()
        known = f"versions 1 to {last}" if last else "no version yet"
        raise LedgerError(f"there is no version {version}; the ledger holds {known}")
    return to_version(row)


def to_version(row: RowMapping) -> Version:
    fields = {key: value for key, value in row.items() if key != "deadline"}
    fields["manifest"] = json.loads(fields["manifest"])
    fields["state"] = State(fields["state"])
    return Version(**fields)


def in_state(connection: Connection, policy: str, states: Iterable[State]) -> list[Version]:
    """Versions of a policy in one of the states, in order of their numbers."""
    table = schema.versions
    query = select(table).where(table.c.policy == policy, table.c.state.in_(list(states)))
    rows = connection.execute(query.order_by(table.c.version)).mappings()
    return [to_version(row) for row in rows]


def find_policy(connection: Connection, policy: str) -> Policy:
    query = select(schema.policies).where(schema.policies.c.name == policy)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        names = connection.execute(select(schema.policies.c.name)).scalars()
        raise LedgerError(
            f"there is no policy {policy!r}; the ledger holds {', '.join(sorted(names))}. A run "
            f"makes one: srghn run --policy {policy}"
        )
    return to_policy(row)


def to_policy(row: RowMapping) -> Policy:
    interface = None if row["interface"] is None else json.loads(row["interface"])
    return Policy(row["name"], interface, row["service_mode"], row["created_at"])


def find_interface(connection: Connection, policy: str) -> Mapping[str, Any] | None:
    """The interface that a policy is served with; None before its first champion."""
    known = find_policy(connection, policy).interface
    if known is None and (champion := find_champion(connection, policy)) is not None:
        found = find_version(connection, champion.version).manifest.get("interface")
        return found if isinstance(found, Mapping) else None
    return known


def served_mode(connection: Connection, policy: str) -> str | None:
    """The mode of a policy's world: set by an event, else the mode in which its champion passed.

    None if there is neither.
    """
    said = find_policy(connection, policy).service_mode
    champion = find_champion(connection, policy)
    if said is not None or champion is None:
        return said
    return passed_mode(connection, champion.version) or champion.mode


def leased_mode(connection: Connection, version: int) -> str | None:
    """The mode that a version's last lease says to judge in; None before 0.3, and without one."""
    table = schema.events
    query = select(table.c.evidence_sha256).where(
        table.c.version == version, table.c.to_state == State.EVALUATING
    )
    digest = connection.execute(query.order_by(table.c.seq.desc()).limit(1)).scalar()
    return None if digest is None else str(find_evidence(connection, str(digest))["mode"])


def leased(connection: Connection, version: int, evidence: str | None) -> dict[str, Any]:
    """What a lease with this evidence says; before 0.3 only to judge in the version's own mode."""
    if evidence is not None:
        return find_evidence(connection, evidence)
    return {"mode": find_version(connection, version).mode}


def passed_mode(connection: Connection, version: int, before: int | None = None) -> str | None:
    """The mode in which a version last passed the gate; None if it never did.

    `before`: by then, as the seq of an event.
    """
    table = schema.events
    query = select(table.c.evidence_sha256).where(
        table.c.version == version, table.c.to_state == State.PASSED
    )
    if before is not None:
        query = query.where(table.c.seq < before)
    digest = connection.execute(query.order_by(table.c.seq.desc()).limit(1)).scalar()
    return None if digest is None else find_evidence(connection, str(digest)).get("mode")


def find_champion(connection: Connection, policy: str = schema.POLICY) -> Champion | None:
    query = select(schema.champion).where(schema.champion.c.policy == policy)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    version = find_version(connection, row.version)
    return Champion(
        row.version,
        row.generation,
        version.digest,
        version.env_fingerprint,
        version.mode,
        row.since,
        row.by,
        policy,
    )


def find_canary(connection: Connection, policy: str = schema.POLICY) -> Canary | None:
    query = select(schema.trial).where(schema.trial.c.policy == policy)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    digest = find_version(connection, row.version).digest
    rules = TrialRules.read(row.params)
    return Canary(row.version, digest, row.weight, row.epoch, rules, row.since, row.status, policy)


def find_evidence(connection: Connection, sha256: str) -> dict[str, Any]:
    """The evidence with this SHA-256; raises `LedgerError` if it is missing or was changed."""
    query = select(schema.evidence.c.body).where(schema.evidence.c.sha256 == sha256)
    body = connection.execute(query).scalar()
    if body is None or sha256_bytes(body.encode()) != sha256:
        raise LedgerError(f"evidence {sha256[:16]}… is missing or was changed")
    found: dict[str, Any] = json.loads(body)
    return found
