"""One step of the ledger: rows, pointer, event, evidence and outbox in one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, insert, select, update

from serving.registry import rows, schema
from serving.registry.chain import FORMAT, GENESIS, event_hash
from serving.registry.records import Canary, Champion, Event, Version, Who
from serving.registry.states import WON, State, check_step
from srghn.errors import StaleGeneration, TransitionRefused
from srghn.files import canonical_json, sha256_bytes


@dataclass(frozen=True)
class Step:
    """A step on one policy in an open transaction: the action, the actor and the reason.

    `now` is the time of the step in Unix seconds.
    """

    connection: Connection
    action: str
    who: Who
    now: float
    policy: str = schema.POLICY

    @property
    def at(self) -> str:
        return rows.iso(self.now)

    def by_ledger(self, action: str, reason: str) -> Step:
        """The same transaction with the ledger as actor, for an automatic consequence."""
        return replace(self, action=action, who=replace(self.who, actor="ledger", reason=reason))

    def version(self, version: int) -> Version:
        return rows.find_version(self.connection, version)

    def champion(self) -> Champion | None:
        return rows.find_champion(self.connection, self.policy)

    def canary(self) -> Canary | None:
        return rows.find_canary(self.connection, self.policy)

    def generation(self) -> int:
        champion = self.champion()
        return champion.generation if champion else 0

    def expect(self, generation: int | None) -> None:
        """Raise `StaleGeneration` unless the champion has this generation; None: no check."""
        champion = self.champion()
        if generation is not None and generation != (champion.generation if champion else 0):
            raise StaleGeneration(_stale(generation, champion))

    def in_state(self, *states: State) -> list[Version]:
        return rows.in_state(self.connection, self.policy, states)

    def move(
        self,
        version: int,
        to: State,
        *,
        evidence: Mapping[str, Any] | None = None,
        rules: str | None = None,
        generation: int | None = None,
        **columns: Any,
    ) -> int:
        """Take one step of the state machine; returns the event's seq.

        `rules` is the digest of the gate rules behind the step. `columns` are further changes of
        the version's row.
        """
        start = self.version(version).state
        check_step(version, start, to)
        change = update(schema.versions).where(schema.versions.c.version == version)
        self.connection.execute(change.values(state=to, **columns))
        return self.record(version, start, to, evidence, rules, generation).seq

    def record(
        self,
        version: int | None,
        start: State | None,
        to: State | None,
        evidence: Mapping[str, Any] | None = None,
        rules: str | None = None,
        generation: int | None = None,
    ) -> Event:
        """Append an event, its outbox entry and its deliveries to sinks."""
        events = schema.events
        last = self.connection.execute(
            select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1)
        ).one_or_none()
        event = Event(
            seq=last.seq + 1 if last else 1,
            prev_hash=last.hash if last else GENESIS,
            version=version,
            action=self.action,
            actor=self.who.actor,
            reason=self.who.reason,
            from_state=str(start) if start else None,
            to_state=str(to) if to else None,
            generation=self.generation() if generation is None else generation,
            evidence_sha256=self._keep(evidence),
            policy_sha256=rules,
            idempotency_key=self.who.key,
            at=self.at,
            hash="",
            policy=self.policy,
            format=FORMAT,
        )
        event = replace(event, hash=event_hash(event))
        self.connection.execute(insert(events).values(vars(event)))
        self.connection.execute(insert(schema.outbox).values(seq=event.seq, delivered=False))
        self._tell_sinks(event)
        return event

    def deliver_again(self) -> None:
        """Mark all events as undelivered."""
        self.record(None, None, None)
        self.connection.execute(update(schema.outbox).values(delivered=False))

    def crown(self, version: int, expected: int, evidence: Mapping[str, Any] | None) -> Champion:
        """Move the champion's pointer, by compare-and-set on its generation.

        The old champion retires. A trial or pass against the old champion becomes stale.
        """
        self.expect(expected)
        old, generation = self.champion(), expected + 1
        if old is not None and self.version(old.version).state is State.CHAMPION:
            self.move(old.version, State.RETIRED, generation=generation)
        self.move(version, State.CHAMPION, evidence=evidence, generation=generation, deadline=None)
        self._point(version, expected, generation)
        self.end_trial()
        self._outdate(generation)
        champion = self.champion()
        assert champion is not None
        return champion

    def end_trial(self) -> None:
        table = schema.trial
        self.connection.execute(table.delete().where(table.c.policy == self.policy))

    def _point(self, version: int, expected: int, generation: int) -> None:
        values = {
            "version": version,
            "generation": generation,
            "since": self.at,
            "by": self.who.actor,
        }
        table = schema.champion
        if expected == 0:
            self.connection.execute(insert(table).values(policy=self.policy, **values))
            return
        change = update(table).where(table.c.policy == self.policy, table.c.generation == expected)
        if self.connection.execute(change.values(values)).rowcount != 1:
            raise StaleGeneration(_stale(expected, self.champion()))

    def _outdate(self, generation: int) -> None:
        why = f"judged against a champion before generation {generation}"
        step = self.by_ledger("outdate", why)
        for version in self.in_state(*WON):
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

    def _tell_sinks(self, event: Event) -> None:
        table = schema.sinks
        for sink in self.connection.execute(select(table).where(table.c.enabled)).all():
            kinds = json.loads(sink.kinds)
            if not kinds or event.action in kinds:
                entry = {"sink": sink.name, "seq": event.seq, "attempts": 0, "next_at": self.now}
                self.connection.execute(insert(schema.deliveries).values(**entry, delivered=False))


def once(step: Step, request: Mapping[str, Any], work: Callable[[Step], Any]) -> Any:
    """Do the work once per idempotency key; returns its JSON result, the first one for a repeat.

    Raises `TransitionRefused` if the key was used for another request.
    """
    key = step.who.key
    if key is None:
        return work(step)
    said = sha256_bytes(canonical_json({"action": step.action, **request}))
    query = select(schema.requests).where(schema.requests.c.key == key)
    known = step.connection.execute(query).one_or_none()
    if known is not None and known.request_sha256 != said:
        raise TransitionRefused(
            f"idempotency key {key!r} was used for another request; use a new one"
        )
    if known is not None:
        return json.loads(known.result)
    result = work(step)
    row = {"key": key, "request_sha256": said, "result": json.dumps(result)}
    step.connection.execute(insert(schema.requests).values(row))
    return result


def _stale(expected: int, found: Champion | None) -> str:
    now = f"generation {found.generation} (version {found.version})" if found else "no champion"
    return (
        f"the champion changed: this step was meant for generation {expected}, there is {now}; "
        f"look at srghn status and decide again"
    )
