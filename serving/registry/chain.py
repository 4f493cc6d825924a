"""The hash chain over the ledger's events, and the check that finds the first broken event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from serving.registry import schema
from serving.registry.records import Event
from serving.registry.states import TRANSITIONS, State
from srghn.errors import LedgerError
from srghn.files import canonical_json, sha256_bytes

GENESIS = "0" * 64
#: Format -> the fields that an event's hash covers. A released format never changes.
FIELDS = {
    1: (
        "seq", "prev_hash", "version", "action", "actor", "reason", "from_state", "to_state",
        "generation", "evidence_sha256", "policy_sha256", "idempotency_key", "at",
    ),
    2: (
        "seq", "format", "prev_hash", "policy", "version", "action", "actor", "reason",
        "from_state", "to_state", "generation", "evidence_sha256", "policy_sha256",
        "idempotency_key", "at",
    ),
}  # fmt: skip
FORMAT = 2


def event_hash(event: Event) -> str:
    """SHA-256 over the fields of the event's format; `prev_hash` makes it a chain.

    Raises `LedgerError` if this version of srghn does not know the format.
    """
    if event.format not in FIELDS:
        raise LedgerError(f"event {event.seq} has the unknown format {event.format}")
    return sha256_bytes(
        canonical_json({name: getattr(event, name) for name in FIELDS[event.format]})
    )


def read_events(
    connection: Connection,
    version: int | None = None,
    since: int = 0,
    *,
    limit: int | None = None,
    newest: bool = False,
    policy: str | None = None,
    before: int | None = None,
) -> Iterator[Event]:
    """Events after number `since` and before `before`, of one version, of a policy or of all.

    `newest`: the last first. At most `limit` events.
    """
    table = schema.events
    order = table.c.seq.desc() if newest else table.c.seq
    query = select(table).where(table.c.seq > since).order_by(order)
    if version is not None:
        query = query.where(table.c.version == version)
    if policy is not None:
        query = query.where(table.c.policy == policy)
    if before is not None:
        query = query.where(table.c.seq < before)
    if limit is not None:
        query = query.limit(limit)
    for row in connection.execute(query):
        yield Event(**row._mapping)


@dataclass
class Replay:
    """The states and champions that a sequence of events leads to; `take` adds the next event."""

    previous: str = GENESIS
    count: int = 0
    format: int = 1
    states: dict[int, str] = field(default_factory=dict)
    policies: dict[int, str] = field(default_factory=dict)
    champions: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Add an event; raises `LedgerError` unless it follows from those before it."""
        problem = self._problem(event)
        if problem:
            raise LedgerError(f"event {event.seq} of the ledger is broken: {problem}")
        self.previous, self.count, self.format = event.hash, event.seq, event.format
        if event.version is None or event.to_state is None:
            return
        self.states[event.version] = event.to_state
        self.policies[event.version] = event.policy
        if event.to_state == State.CHAMPION:
            self.champions[event.policy] = (event.version, event.generation)

    def _problem(self, event: Event) -> str | None:
        if event.seq != self.count + 1:
            return f"expected seq {self.count + 1}, a row is missing or was added"
        if event.prev_hash != self.previous:
            return "it does not follow from the event before it"
        if event.hash != event_hash(event):
            return "its fields do not have the hash they were written with"
        if event.format < self.format:
            return f"its format {event.format} is older than that of the event before it"
        if event.format == 1 and event.policy != schema.POLICY:
            return f"it names policy {event.policy!r} in a format that has no policies"
        return self._state_problem(event)

    def _state_problem(self, event: Event) -> str | None:
        if event.version is None:
            both = (event.from_state, event.to_state)
            return None if both == (None, None) else "it has states and no version"
        start = self.states.get(event.version)
        if event.from_state != start or not possible(start, event.to_state):
            return f"{start} -> {event.to_state} is no step of the state machine"
        if self.policies.get(event.version, event.policy) != event.policy:
            return f"version {event.version} is of policy {self.policies[event.version]!r}"
        return None


def possible(start: str | None, end: str | None) -> bool:
    """Whether the state machine has a step from `start` to `end` (names of states, or None)."""
    known: dict[str | None, State | None] = {str(state): state for state in State}
    known[None] = None
    return start in known and end in TRANSITIONS[known[start]]


def replay(events: Iterable[Event]) -> Replay:
    """Replay events from the first on; raises `LedgerError` at the first broken one."""
    found = Replay()
    for event in events:
        found.take(event)
    return found


def verify(connection: Connection) -> int:
    """Recompute the chain and replay it; returns the number of events.

    Raises `LedgerError` that names the first broken event, or the version or champion whose row
    contradicts the events.
    """
    found = replay(read_events(connection))
    for row in connection.execute(select(schema.evidence)):
        if sha256_bytes(row.body.encode()) != row.sha256:
            seq = select(func.min(schema.events.c.seq)).where(
                schema.events.c.evidence_sha256 == row.sha256
            )
            at = connection.execute(seq).scalar()
            raise LedgerError(f"event {at}: its evidence {row.sha256[:16]}… was changed")
    _compare(connection, found)
    return found.count


def _compare(connection: Connection, found: Replay) -> None:
    rows = connection.execute(select(schema.versions.c.version, schema.versions.c.state))
    recorded = {row.version: row.state for row in rows}
    for version in sorted(recorded.keys() | found.states.keys()):
        if recorded.get(version) != found.states.get(version):
            raise LedgerError(
                f"version {version} is recorded as {recorded.get(version)}, but the events lead "
                f"to {found.states.get(version)}: events are missing or the table was changed"
            )
    rows = connection.execute(select(schema.champion))
    pointers = {row.policy: (row.version, row.generation) for row in rows}
    for policy in sorted(pointers.keys() | found.champions.keys()):
        if pointers.get(policy) != found.champions.get(policy):
            raise LedgerError(
                f"the champion's pointer (version, generation) of {policy!r} is "
                f"{pointers.get(policy)}, but the events lead to {found.champions.get(policy)}"
            )
