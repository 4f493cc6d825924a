"""Asking the ledger, and its bookkeeping around the state machine: outbox, deadlines, episodes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from serving.registry import chain, episodes, schema
from serving.registry.database import Database
from serving.registry.records import Canary, Champion, Event, Outcome, Pin, Version
from serving.registry.states import State
from serving.registry.steps import Step, find_canary, find_champion, find_version, to_version
from srghn.errors import LedgerError
from srghn.files import sha256_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LedgerBook:
    """The ledger without the steps that people and gates take (`Ledger` adds those)."""

    def __init__(self, database: str | Database, *, clock: Callable[[], float] = time.time) -> None:
        """A ledger by its URL, or on a database that is open; raises `LedgerError`."""
        self._database = Database(database) if isinstance(database, str) else database
        self._clock = clock

    def close(self) -> None:
        self._database.close()

    def champion(self) -> Champion | None:
        with self._database.read() as connection:
            return find_champion(connection)

    def canary(self) -> Canary | None:
        with self._database.read() as connection:
            return find_canary(connection)

    def served(self) -> tuple[Champion | None, Canary | None]:
        """Champion and canary of one moment."""
        with self._database.read() as connection:
            return find_champion(connection), find_canary(connection)

    def version(self, version: int) -> Version:
        with self._database.read() as connection:
            return find_version(connection, version)

    def versions(self) -> list[Version]:
        with self._database.read() as connection:
            query = select(schema.versions).order_by(schema.versions.c.version)
            return [to_version(row) for row in connection.execute(query).mappings()]

    def events(self, version: int | None = None, since: int = 0) -> list[Event]:
        """Events after number `since`, of one version or of all, in order."""
        with self._database.read() as connection:
            return list(chain.read_events(connection, version, since))

    def evidence(self, sha256: str) -> dict[str, Any]:
        """What an event's `evidence_sha256` stands for; raises `LedgerError` if it was changed."""
        with self._database.read() as connection:
            query = select(schema.evidence.c.body).where(schema.evidence.c.sha256 == sha256)
            body = connection.execute(query).scalar()
        if body is None or sha256_bytes(body.encode()) != sha256:
            raise LedgerError(f"evidence {sha256[:16]}… is missing or was changed")
        found: dict[str, Any] = json.loads(body)
        return found

    def passed(self, version: int) -> tuple[Event, dict[str, Any]]:
        """The latest PASSED event and its verdict; raises `LedgerError` if there is none."""
        for event in reversed(self.events(version)):
            if event.to_state == State.PASSED and event.evidence_sha256:
                if chain.event_hash(event) != event.hash:
                    raise LedgerError(
                        f"event {event.seq}, the pass of version {version}, is broken"
                    )
                return event, self.evidence(event.evidence_sha256)
        raise LedgerError(f"version {version} never passed the gate")

    def verify(self) -> int:
        """Check storage, chain, evidence and pointers; returns the number of events.

        Raises `LedgerError` naming the first event that is broken.
        """
        self._database.check_storage()
        with self._database.read() as connection:
            return chain.verify(connection)

    def pending(self) -> list[Event]:
        """Events that the mirror has not delivered yet, in order."""
        with self._database.read() as connection:
            query = select(schema.events).join(schema.outbox).where(~schema.outbox.c.delivered)
            rows = connection.execute(query.order_by(schema.events.c.seq)).mappings()
            return [Event(**row) for row in rows]

    def ack(self, seq: int) -> None:
        """Every event up to `seq` was delivered."""
        with self._database.write() as connection:
            change = update(schema.outbox).where(schema.outbox.c.seq <= seq)
            connection.execute(change.values(delivered=True))

    def expire(self) -> list[int]:
        """Turn evaluations whose lease ran out into ERROR, and old passes STALE; their versions."""
        now, table = self._clock(), schema.versions
        overdue = select(table.c.version).where(
            table.c.deadline < now, table.c.state.in_([State.EVALUATING, State.PASSED])
        )
        with self._database.read() as connection:
            if connection.execute(overdue).first() is None:
                return []
        with self._database.write() as connection:
            found = list(connection.execute(overdue.order_by(table.c.version)).scalars())
            for version in found:
                lease = find_version(connection, version).state is State.EVALUATING
                why = "the lease of its evaluation ran out" if lease else "its pass expired"
                step = Step(connection, "expire", "ledger", why, None, now)
                step.move(version, State.ERROR if lease else State.STALE, deadline=None)
        return found

    def pin(self, wanted: Pin, old: Pin | None = None) -> Pin:
        """Pin a new episode, or move one off its `old` pin; returns the pin that holds."""
        with self._database.write() as connection:
            if old is None:
                return episodes.pin(connection, wanted)
            return episodes.repin(connection, old, wanted)

    def find_pin(self, episode_id: str) -> Pin | None:
        with self._database.read() as connection:
            return episodes.find_pin(connection, episode_id)

    def prune_pins(self, older_than: float) -> int:
        """Forget pins made more than so many seconds ago; returns how many."""
        with self._database.write() as connection:
            return episodes.prune(connection, self._clock() - older_than)

    def record_outcome(
        self, episode_id: str, *, return_: float, length: int, terminated: bool
    ) -> Outcome:
        """Store how an episode ended, once; its version and route are those it was pinned to."""
        with self._database.write() as connection:
            return episodes.record_outcome(connection, episode_id, return_, length, terminated)

    def outcomes(self, version: int | None = None, since: int = 0) -> list[Outcome]:
        """Outcomes with number above `since`, in order of arrival."""
        with self._database.read() as connection:
            return episodes.outcomes(connection, version, since)

    def arms(self, epoch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns counted in a trial, as they came: (champion's, canary's)."""
        with self._database.read() as connection:
            return episodes.arms(connection, epoch)
