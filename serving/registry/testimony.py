"""Compares the witness with the history, and verifies the whole ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, select

from serving.registry import chain, explain, holdbacks, reports, rows, schema
from serving.registry.database import Database
from serving.registry.faults import unadvised
from serving.registry.heads import Head
from serving.registry.records import Event, Who
from serving.registry.states import State
from serving.registry.witness import Entry, Kind, Witness, valid
from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

_WAY_BACK = "to return to an earlier state, use srghn restore FILE --reason ..."


class Testimony:
    """Signs heads of the chain, and checks the history against them.

    Without a home folder (PostgreSQL by its URL alone) nothing is signed, and every check covers
    the whole history.
    """

    def __init__(
        self,
        database: Database,
        home: Path | None,
        key: Path | None,
        clock: Callable[[], float],
    ) -> None:
        self._database, self._clock = database, clock
        self._witness = None if home is None else Witness(home, key)

    def head(self, kind: Kind, who: Who) -> None:
        """Append the signed head of the chain. A failure is logged; the next step signs again.

        The step is committed by now, so not even a failure to read the head may make it an error.
        """
        if self._witness is None:
            return
        try:
            with self._database.read() as connection:
                last = next(chain.read_events(connection, limit=1, newest=True), None)
            at = rows.iso(self._clock())
            seq, digest = (last.seq, last.hash) if last else (0, chain.GENESIS)
            entry = Entry(kind, seq, digest, at, who.actor, who.reason, "", "", "")
            self._witness.append(entry)
        except (OSError, LedgerError) as error:
            if kind == "restore":
                raise
            said = "the witness %s could not be written: %s"
            logger.warning(said, self._witness.file, unadvised(error))

    def last(self) -> Entry | None:
        entries = self._entries(recent=True)
        return entries[-1] if entries else None

    def newest(self) -> Entry | None:
        """What was signed of the latest event since the last restore; None without any."""
        return max(valid(self._entries(recent=True)), key=lambda entry: entry.seq, default=None)

    def verify(self) -> int:
        """Check chain, evidence, rows and the whole witness; returns the number of events.

        Raises `LedgerError`.
        """
        entries = self._entries()
        with self._database.read() as connection:
            count = chain.verify(connection)
            for entry in valid(entries):
                _compare(connection, entry)
            for name in _names(connection):
                _explain_policy(connection, name)
            for number in connection.execute(select(schema.versions.c.version)).scalars().all():
                explain.version(connection, number)
        return count

    def verify_served(self) -> int:
        """Check the served versions and the events since the last signature; returns their number.

        Raises `LedgerError`.
        """
        newest = self.newest()
        with self._database.read() as connection:
            if newest is not None:
                _compare(connection, newest)
                count = _verify_since(connection, newest)
            else:
                count = chain.verify(connection)
            for name in _names(connection):
                _explain_policy(connection, name)
                for number in _served(connection, name):
                    self._explain_served(connection, number)
        return count

    def signed_head(self) -> Head | None:
        """The last head in the witness, signed, to be kept in another place."""
        entries = self._entries()
        if self._witness is None or not entries:
            return None
        last, restores = entries[-1], sum(entry.kind == "restore" for entry in entries)
        head = Head(restores, last.seq, last.hash, last.at, self._witness.public)
        return replace(head, signature=self._witness.sign(head.signed()))

    def compare(self, heads: Sequence[Head]) -> None:
        """Hold the history against heads that were kept elsewhere; raises `LedgerError`."""
        if self._witness is None or not heads:
            return
        for head in heads:
            if not self._witness.signed(head.signed(), head.signature, head.key):
                raise LedgerError(
                    f"MLflow's head of event {head.seq} is signed with key {head.key[:16]}…, "
                    f"this home's is {self._witness.public[:16]}…, or was changed: put the right "
                    "key back. If it was lost for good: srghn sync --key-lost. If not, somebody "
                    f"wrote to MLflow: compare the ledger with a backup, then delete tag {head.tag}"
                )
        restores = sum(entry.kind == "restore" for entry in self._entries())
        most = max(head.restores for head in heads)
        if most > restores:
            raise LedgerError(
                f"MLflow knows of {most} restores, the witness of {restores}: the witness "
                f"{self._witness.file} was wound back; put it back from a copy"
            )
        with self._database.read() as connection:
            for head in heads:
                if head.restores == restores:
                    _compare(connection, head, "MLflow")

    def foreign(self, heads: Sequence[Head]) -> list[Head]:
        """Heads that were kept elsewhere and another key signed, if the history agrees with them.

        A restore voids earlier ones. Raises `LedgerError` if the history is another one.
        """
        if self._witness is None:
            return []
        found = [head for head in heads if head.key != self._witness.public]
        most = max((head.restores for head in found), default=0)
        with self._database.read() as connection:
            for head in found:
                if head.restores == most:
                    _compare(connection, head, "MLflow")
        return found

    def report_problems(self, here: bool) -> list[str]:
        """The problems with the reports in this home, version by version; see `Ledger`."""
        home = self._database.home
        if home is None:
            return []
        with self._database.read() as connection:
            numbers = connection.execute(select(schema.versions.c.version)).scalars().all()
            found = [
                explain.report(connection, list(chain.read_events(connection, number)), home, here)
                for number in sorted(numbers)
            ]
        return [problem for problem in found if problem is not None]

    def _explain_served(self, connection: Connection, number: int) -> None:
        """Explain a version's row; a report in this home must be the one that was approved."""
        events, home = explain.version(connection, number), self._database.home
        digest = rows.find_version(connection, number).report_digest
        if home is None or digest is None or not reports.folder(home, digest).exists():
            return
        wrong = explain.report(connection, events, home)
        if wrong is not None:
            raise LedgerError(f"{wrong}; put it back from a backup")

    def _entries(self, recent: bool = False) -> list[Entry]:
        return [] if self._witness is None else self._witness.entries(recent=recent)


def _names(connection: Connection) -> list[str]:
    return list(connection.execute(select(schema.policies.c.name)).scalars())


def _explain_policy(connection: Connection, name: str) -> None:
    explain.policy(connection, name)
    explain.champion(connection, name)
    explain.trial(connection, name)


def _served(connection: Connection, name: str) -> list[int]:
    """Versions that are served by a pointer or by their own row."""
    states = (State.CHAMPION, State.CANARY, State.SHADOW)
    found = {version.version for version in rows.in_state(connection, name, states)}
    for table in (schema.champion, schema.trial):
        query = select(table.c.version).where(table.c.policy == name)
        found.update(connection.execute(query).scalars())
    window = holdbacks.find(connection, name)
    found |= set() if window is None else {window.predecessor}
    return sorted(found)


def _compare(connection: Connection, entry: Entry | Head, by: str = "the witness") -> None:
    """Check that the event which the witness, or another keeper, signed is unchanged."""
    query = select(schema.events.c.hash).where(schema.events.c.seq == entry.seq)
    found = connection.execute(query).scalar() if entry.seq else chain.GENESIS
    if found is None:
        last = next(chain.read_events(connection, limit=1, newest=True), None)
        raise LedgerError(
            f"the history ends with event {last.seq if last else 0}, {by} saw event "
            f"{entry.seq} on {entry.at}: the ledger was wound back; {_WAY_BACK}"
        )
    if found != entry.hash:
        raise LedgerError(
            f"event {entry.seq} has hash {found[:16]}…, {by} saw {entry.hash[:16]}… on "
            f"{entry.at}: the history was rewritten; {_WAY_BACK}"
        )


def _verify_since(connection: Connection, entry: Entry) -> int:
    """Replay the events after a signed head; each version continues from its last event before."""
    found = chain.Replay(previous=entry.hash, count=entry.seq)
    last = next(chain.read_events(connection, since=entry.seq - 1, limit=1), None)
    if last is not None and last.seq == entry.seq:
        explain.check_hash(last)
        found.format = last.format
    for event in chain.read_events(connection, since=entry.seq):
        if event.version is not None and event.version not in found.states:
            _recall_state(connection, found, event)
        found.take(event)
    return found.count - entry.seq


def _recall_state(connection: Connection, found: chain.Replay, event: Event) -> None:
    table = schema.events
    query = select(table.c.to_state, table.c.policy).where(
        table.c.version == event.version, table.c.seq < event.seq
    )
    before = connection.execute(query.order_by(table.c.seq.desc()).limit(1)).one_or_none()
    if before is not None and event.version is not None:
        found.states[event.version] = before.to_state
        found.policies[event.version] = before.policy
