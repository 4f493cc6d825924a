"""Counts from copies of requests: a shadow or canary compared with the champion."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from serving.registry import schema
from serving.trial.compared import NAMES, Compared

SHADOW, CANARY = "start_shadow", "start_canary"
_table = schema.compared


def add(connection: Connection, policy: str, epoch: int, seen: Compared) -> None:
    """Add a worker's counts since its last call."""
    mine = (_table.c.policy == policy) & (_table.c.epoch == epoch)
    added = {name: _table.c[name] + getattr(seen, name) for name in NAMES}
    if connection.execute(update(_table).where(mine).values(added)).rowcount == 0:
        connection.execute(insert(_table).values(policy=policy, epoch=epoch, **vars(seen)))


def find(connection: Connection, policy: str, epoch: int) -> Compared:
    """All counts of the shadow or trial that event `epoch` began."""
    columns = [_table.c[name] for name in NAMES]
    query = select(*columns).where(_table.c.policy == policy, _table.c.epoch == epoch)
    row = connection.execute(query).one_or_none()
    return Compared() if row is None else Compared(**row._mapping)


def epoch(connection: Connection, version: int, *actions: str) -> int | None:
    """The seq of a version's last event with one of these actions; None without one.

    The default actions are those that begin a shadow or a trial.
    """
    table = schema.events
    query = select(table.c.seq).where(
        table.c.version == version, table.c.action.in_(actions or (SHADOW, CANARY))
    )
    return connection.execute(query.order_by(table.c.seq.desc()).limit(1)).scalar()
