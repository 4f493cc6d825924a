"""The hash chain over the ledger's events, and the check that finds the first broken one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from sqlalchemy import Connection, func, select

from serving.registry import schema
from serving.registry.records import Event
from serving.registry.states import TRANSITIONS, State
from srghn.errors import LedgerError
from srghn.files import canonical_json, sha256_bytes

GENESIS = "0" * 64


def event_hash(event: Event) -> str:
    """SHA-256 over everything in the event but the hash itself; `prev_hash` makes it a chain."""
    fields = asdict(event)
    del fields["hash"]
    return sha256_bytes(canonical_json(fields))


def read_events(
    connection: Connection, version: int | None = None, since: int = 0
) -> Iterator[Event]:
    table = schema.events
    query = select(table).where(table.c.seq > since).order_by(table.c.seq)
    if version is not None:
        query = query.where(schema.events.c.version == version)
    for row in connection.execute(query):
        yield Event(**row._mapping)


def verify(connection: Connection) -> int:
    """Recompute the chain and replay it; returns the number of events.

    Raises `LedgerError` naming the first event that is broken, or the version whose recorded state,
    or the champion whose pointer, is not what the events lead to.
    """
    count, states, champion = _replay(read_events(connection))
    for row in connection.execute(select(schema.evidence)):
        if sha256_bytes(row.body.encode()) != row.sha256:
            seq = select(func.min(schema.events.c.seq)).where(
                schema.events.c.evidence_sha256 == row.sha256
            )
            found = connection.execute(seq).scalar()
            raise LedgerError(f"event {found}: its evidence {row.sha256[:16]}… was changed")
    _compare(connection, states, champion)
    return count


def _replay(
    events: Iterable[Event],
) -> tuple[int, dict[int, str], tuple[int, int] | None]:
    """(events, version -> state, champion as (version, generation) or None)."""
    previous, count = GENESIS, 0
    states: dict[int, str] = {}
    champion: tuple[int, int] | None = None
    for count, event in enumerate(events, start=1):
        start = states.get(event.version)
        problem = (
            f"expected seq {count}, a row is missing or was added"
            if event.seq != count
            else "it does not follow from the event before it"
            if event.prev_hash != previous
            else "its fields do not have the hash they were written with"
            if event.hash != event_hash(event)
            else f"{start} -> {event.to_state} is no step of the state machine"
            if event.from_state != start or not _possible(start, event.to_state)
            else ""
        )
        if problem:
            raise LedgerError(f"event {event.seq} of the ledger is broken: {problem}")
        previous = event.hash
        states[event.version] = event.to_state
        if event.to_state == State.CHAMPION:
            champion = (event.version, event.generation)
    return count, states, champion


def _possible(start: str | None, end: str) -> bool:
    return end in TRANSITIONS[None if start is None else State(start)]


def _compare(
    connection: Connection, states: dict[int, str], champion: tuple[int, int] | None
) -> None:
    rows = connection.execute(select(schema.versions.c.version, schema.versions.c.state))
    recorded = {row.version: row.state for row in rows}
    for version in sorted(recorded.keys() | states.keys()):
        if recorded.get(version) != states.get(version):
            raise LedgerError(
                f"version {version} is recorded as {recorded.get(version)}, but the events lead "
                f"to {states.get(version)}: events are missing or the table was changed"
            )
    row = connection.execute(select(schema.champion)).one_or_none()
    pointer = (row.version, row.generation) if row else None
    if pointer != champion:
        raise LedgerError(
            f"the champion's pointer (version, generation) is {pointer}, "
            f"but the events lead to {champion}"
        )
