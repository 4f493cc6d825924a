"""One write transaction on the ledger: rows, pointer, event, evidence and outbox together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from serving.registry import schema
from serving.registry.chain import GENESIS, event_hash
from serving.registry.records import Canary, Champion, Event, Version
from serving.registry.states import State, check_step
from srghn.config import CanaryParams
from srghn.errors import LedgerError, StaleGeneration
from srghn.files import canonical_json, sha256_bytes


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


def find_champion(connection: Connection) -> Champion | None:
    row = connection.execute(select(schema.champion)).one_or_none()
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
    )


def find_canary(connection: Connection) -> Canary | None:
    row = connection.execute(select(schema.canary)).one_or_none()
    if row is None:
        return None
    digest = find_version(connection, row.version).digest
    params = CanaryParams.model_validate_json(row.params)
    return Canary(row.version, digest, row.weight, row.epoch, params, row.since)


def iso(seconds: float) -> str:
    """UTC, to the millisecond. For people: the ledger's order is `seq`, never the clock."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Step:
    """Who does what and why, inside an open transaction at one moment (`now`, Unix seconds)."""

    connection: Connection
    action: str
    actor: str
    reason: str
    key: str | None
    now: float

    @property
    def at(self) -> str:
        return iso(self.now)

    def by(self, actor: str, action: str, reason: str) -> Step:
        """The same transaction, for a consequence that the ledger itself draws."""
        return replace(self, actor=actor, action=action, reason=reason)

    def version(self, version: int) -> Version:
        return find_version(self.connection, version)

    def champion(self) -> Champion | None:
        return find_champion(self.connection)

    def canary(self) -> Canary | None:
        return find_canary(self.connection)

    def generation(self) -> int:
        champion = self.champion()
        return champion.generation if champion else 0

    def expect(self, generation: int | None) -> None:
        """Raise `StaleGeneration` unless the champion is of that generation; None: any is fine."""
        champion = self.champion()
        if generation is not None and generation != (champion.generation if champion else 0):
            raise StaleGeneration(_stale(generation, champion))

    def in_state(self, *states: State) -> list[Version]:
        query = select(schema.versions).where(schema.versions.c.state.in_(states))
        ordered = query.order_by(schema.versions.c.version)
        return [to_version(row) for row in self.connection.execute(ordered).mappings()]

    def move(
        self,
        version: int,
        to: State,
        *,
        evidence: Mapping[str, Any] | None = None,
        policy: str | None = None,
        generation: int | None = None,
        **columns: Any,
    ) -> int:
        """Take one step of the state machine; returns the event's seq."""
        start = self.version(version).state
        check_step(version, start, to)
        change = update(schema.versions).where(schema.versions.c.version == version)
        self.connection.execute(change.values(state=to, **columns))
        return self.record(version, start, to, evidence, policy, generation)

    def record(
        self,
        version: int,
        start: State | None,
        to: State,
        evidence: Mapping[str, Any] | None = None,
        policy: str | None = None,
        generation: int | None = None,
    ) -> int:
        """Append the event and its outbox entry."""
        events = schema.events
        last = self.connection.execute(
            select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1)
        ).one_or_none()
        event = Event(
            seq=last.seq + 1 if last else 1,
            prev_hash=last.hash if last else GENESIS,
            version=version,
            action=self.action,
            actor=self.actor,
            reason=self.reason,
            from_state=str(start) if start else None,
            to_state=str(to),
            generation=self.generation() if generation is None else generation,
            evidence_sha256=self._keep(evidence),
            policy_sha256=policy,
            idempotency_key=self.key,
            at=self.at,
            hash="",
        )
        event = replace(event, hash=event_hash(event))
        self.connection.execute(insert(events).values(vars(event)))
        self.connection.execute(insert(schema.outbox).values(seq=event.seq, delivered=False))
        return event.seq

    def crown(self, version: int, expected: int, evidence: Mapping[str, Any] | None) -> Champion:
        """Move the champion's pointer, by compare-and-set on its generation.

        The old champion retires. A canary and every pass that was won against the old champion
        no longer hold.
        """
        self.expect(expected)
        old, generation = self.champion(), expected + 1
        if old is not None and self.version(old.version).state is State.CHAMPION:
            self.move(old.version, State.RETIRED, generation=generation)
        self.move(version, State.CHAMPION, evidence=evidence, generation=generation)
        self._point(version, expected, generation)
        self.end_canary()
        self._outdate(generation)
        champion = self.champion()
        assert champion is not None
        return champion

    def end_canary(self) -> None:
        self.connection.execute(schema.canary.delete())

    def _point(self, version: int, expected: int, generation: int) -> None:
        values = {
            "version": version,
            "generation": generation,
            "since": self.at,
            "by": self.actor,
        }
        if expected == 0:
            self.connection.execute(insert(schema.champion).values(id=1, **values))
            return
        change = update(schema.champion).where(schema.champion.c.generation == expected)
        if self.connection.execute(change.values(values)).rowcount != 1:
            raise StaleGeneration(_stale(expected, self.champion()))

    def _outdate(self, generation: int) -> None:
        step = self.by(
            "ledger", "outdate", f"judged against a champion before generation {generation}"
        )
        for version in self.in_state(State.PASSED, State.APPROVED, State.CANARY):
            step.move(version.version, State.STALE, deadline=None)

    def _keep(self, evidence: Mapping[str, Any] | None) -> str | None:
        if evidence is None:
            return None
        body = canonical_json(evidence)
        digest = sha256_bytes(body)
        known = select(schema.evidence.c.sha256).where(schema.evidence.c.sha256 == digest)
        if self.connection.execute(known).one_or_none() is None:
            self.connection.execute(
                insert(schema.evidence).values(sha256=digest, body=body.decode())
            )
        return digest


def _stale(expected: int, found: Champion | None) -> str:
    now = f"generation {found.generation} (version {found.version})" if found else "no champion"
    return (
        f"the champion changed: this step was meant for generation {expected}, there is {now}; "
        f"look again (srghn status) and decide anew"
    )
