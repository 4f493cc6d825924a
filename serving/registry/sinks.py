"""Sinks: the receivers of events, and the events that are still to be delivered to each, in order.

A delivery is written in the transaction of its event, so none is lost. The first undelivered one of
a sink is its head. A sender that has claimed the head may send it; none may skip it.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from serving.registry import rows, schema
from serving.registry.chain import read_events
from serving.registry.ledger import Ledger
from serving.registry.records import Event, Who
from serving.registry.texts import control_in
from srghn.errors import ConfigError

#: The events that sinks get; all other actions are internal to the ledger.
NOTABLE = (
    "drift", "drift_over", "missing", "missing_over", "blind", "diagnosis", "adapt", "run_failed",
    "record_verdict", "promote", "abort_canary", "expire_canary", "rollback",
    "rollback_by_holdback", "revoke",
)  # fmt: skip
_PRINTED = re.compile("[!-~]+")
#: A claimed delivery without a result is sent again after this many seconds.
CLAIM_SECONDS = 60.0
#: The longest pause before another attempt.
MOST_SECONDS = 3600.0
#: What waits for longer was put off by a wrong clock, not by another host's that is a bit ahead.
WRONG_SECONDS = 2 * MOST_SECONDS


@dataclass(frozen=True)
class Sink:
    """A receiver. `kinds` are actions of events; `secret` signs, in the form `whsec_...`."""

    name: str
    url: str
    kinds: tuple[str, ...]
    secret: str = field(repr=False)
    pending: int = 0
    failure: str | None = None


@dataclass(frozen=True)
class Delivery:
    """An event to deliver to a sink; `attempts` were made before."""

    sink: Sink
    event: Event
    attempts: int


class Sinks:
    """The sinks of one ledger. Adding and removing one are events themselves."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._database = ledger, ledger.database()

    def add(self, name: str, url: str, kinds: tuple[str, ...], who: Who) -> Sink:
        """Add a receiver; raises `ConfigError` for a bad URL or kind, or a name that exists."""
        _check(name, url, kinds)
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        table = schema.sinks

        def add(connection: Connection) -> None:
            if connection.execute(select(table.c.name).where(table.c.name == name)).first():
                raise ConfigError(f"there is a sink {name!r} already; give this one another --name")
            row = {"name": name, "url": url, "secret": secret, "kinds": json.dumps(kinds)}
            values = {**row, "enabled": True, "created_at": rows.iso(time.time())}
            connection.execute(insert(table).values(values))

        said = {"name": name, "url": url, "kinds": list(kinds)}
        self._ledger.note("add_sink", said, who=who, also=add)
        return Sink(name, url, kinds, secret)

    def remove(self, name: str, who: Who) -> None:
        """Remove a sink; its undelivered events are dropped."""
        self.find(name)

        def forget(connection: Connection) -> None:
            for table, column in (
                (schema.deliveries, schema.deliveries.c.sink),
                (schema.sinks, schema.sinks.c.name),
            ):
                connection.execute(delete(table).where(column == name))

        self._ledger.note("remove_sink", {"name": name}, who=who, also=forget)

    def find(self, wanted: str) -> Sink:
        """A sink by its name or URL; raises `ConfigError` with the known names."""
        known = self.all()
        for sink in known:
            if wanted in (sink.name, sink.url):
                return sink
        names = ", ".join(sink.name for sink in known) or "none"
        raise ConfigError(f"there is no sink {wanted!r}; there are: {names}")

    def all(self) -> list[Sink]:
        """Every sink, with its number of waiting events and the error of its last attempt."""
        with self._database.read() as connection:
            found = connection.execute(select(schema.sinks).order_by(schema.sinks.c.name))
            return [_sink(connection, row) for row in found.mappings().all()]

    # ----------------------------------------------------------------------------- delivery

    def due(self, now: float) -> list[str]:
        """Names of sinks whose head may be sent at `now` (Unix seconds).

        One that would wait for longer than any pause is due: the clock was put back.
        """
        table = schema.deliveries
        heads = (
            select(table.c.sink, func.min(table.c.seq).label("seq"))
            .where(~table.c.delivered)
            .group_by(table.c.sink)
            .subquery()
        )
        query = (
            select(table.c.sink)
            .join(heads, (table.c.sink == heads.c.sink) & (table.c.seq == heads.c.seq))
            .where((table.c.next_at <= now) | (table.c.next_at > now + WRONG_SECONDS))
        )
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def claim(self, name: str, now: float) -> Delivery | None:
        """Claim the head of a sink, so that only the caller sends it; None if nothing is due."""
        table = schema.deliveries
        with self._database.write() as connection:
            query = select(table).where(table.c.sink == name, ~table.c.delivered)
            head = connection.execute(query.order_by(table.c.seq).limit(1)).one_or_none()
            if head is None or now < head.next_at <= now + WRONG_SECONDS:
                return None
            change = update(table).where(
                table.c.sink == name,
                table.c.seq == head.seq,
                table.c.next_at == head.next_at,
                ~table.c.delivered,
            )
            claimed = change.values(next_at=now + CLAIM_SECONDS)
            if connection.execute(claimed).rowcount != 1:
                return None
            sinks = select(schema.sinks).where(schema.sinks.c.name == name)
            sink = _sink(connection, connection.execute(sinks).mappings().one())
            event = next(iter(read_events(connection, None, head.seq - 1, limit=1)))
            return Delivery(sink, event, head.attempts)

    def delivered(self, delivery: Delivery) -> None:
        self._mark(delivery, delivered=True, failure=None)

    def failed(self, delivery: Delivery, why: str, next_at: float) -> None:
        """Record a failed attempt; the next is at `next_at` (Unix seconds). Later events wait."""
        self._mark(delivery, next_at=next_at, failure=why[:500])

    def _mark(self, delivery: Delivery, **columns: Any) -> None:
        table = schema.deliveries
        with self._database.write() as connection:
            change = update(table).where(
                table.c.sink == delivery.sink.name, table.c.seq == delivery.event.seq
            )
            connection.execute(change.values(attempts=delivery.attempts + 1, **columns))


def _sink(connection: Connection, row: RowMapping) -> Sink:
    table = schema.deliveries
    waiting = (table.c.sink == row["name"]) & ~table.c.delivered
    pending = connection.execute(select(func.count()).where(waiting)).scalar_one()
    head = select(table.c.failure).where(waiting).order_by(table.c.seq).limit(1)
    failure = connection.execute(head).scalar()
    kinds = tuple(json.loads(row["kinds"]))
    return Sink(row["name"], row["url"], kinds, row["secret"], pending, failure)


def _wrong_with(url: str) -> str | None:
    """Why nothing could ever be sent to a URL, or None."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks it
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return "it names no host of these two schemes"
        host = parts.hostname.encode("idna").decode()
    except UnicodeError:
        host = " "
    except ValueError as error:
        return str(error)
    if not _PRINTED.fullmatch(host):
        return "no host has such a name"
    if not _PRINTED.fullmatch(f"{parts.path}?{parts.query}"):
        return "spaces and letters beyond ASCII in its path are written as %XX of their UTF-8 bytes"
    return None


def _check(name: str, url: str, kinds: tuple[str, ...]) -> None:
    wrong = _wrong_with(url)
    if wrong is not None:
        raise ConfigError(f"a sink is an http:// or https:// URL, got {url!r}: {wrong}")
    if not name or len(name) > 100 or control_in(name):
        raise ConfigError(f"a sink's name has 1 to 100 letters, got {name!r}")
    unknown = sorted(set(kinds) - set(NOTABLE))
    if unknown:
        raise ConfigError(
            f"unknown kinds of events: {', '.join(unknown)}; known: {', '.join(NOTABLE)}"
        )
