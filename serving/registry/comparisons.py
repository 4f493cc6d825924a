"""Counts from copies of requests: a shadow or canary compared with the champion."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from serving.registry import schema
from serving.trial.compared import NAMES, Compared, Given, Posted, within_shares

SHADOW, CANARY = "start_shadow", "start_canary"
_table = schema.compared


def add(
    connection: Connection, policy: str, epoch: int, copies: Sequence[Posted], share: float
) -> None:
    """Add a worker's copies since its last call; no poster gives more than `share` of them all."""
    given = {} if share == 1 else _given(connection, policy, epoch)
    seen, after = within_shares(copies, given, share)
    if share < 1:
        _keep(connection, policy, epoch, after)
    mine = (_table.c.policy == policy) & (_table.c.epoch == epoch)
    added = {name: _table.c[name] + getattr(seen, name) for name in NAMES}
    if connection.execute(update(_table).where(mine).values(added)).rowcount == 0:
        connection.execute(insert(_table).values(policy=policy, epoch=epoch, **vars(seen)))


def _given(connection: Connection, policy: str, epoch: int) -> Given:
    """The numbers by poster. They lie beside the trials' states, under the number -epoch.

    A trial or shadow begins with the tokens of the one before: whoever has none could otherwise end
    it before they send their first requests. Tokens of earlier ones are no longer in use: they
    would keep the guards of a service without tokens from ever having enough copies.
    """
    table = schema.trial_state
    query = select(table.c.trial, table.c.state).where(
        table.c.policy == policy, table.c.trial < 0, table.c.trial >= -epoch
    )
    row = connection.execute(query.order_by(table.c.trial).limit(1)).one_or_none()
    if row is None:
        return {}
    found: Given = json.loads(row.state)
    if row.trial == -epoch:
        return found
    return {kind: {name: 0 for name, n in counts.items() if n} for kind, counts in found.items()}


def _keep(connection: Connection, policy: str, epoch: int, given: Given) -> None:
    table, said = schema.trial_state, {"state": json.dumps(given)}
    mine = (table.c.policy == policy) & (table.c.trial == -epoch)
    if connection.execute(update(table).where(mine).values(said)).rowcount == 0:
        row = {"policy": policy, "trial": -epoch, "n": 0, "generation": 0}
        connection.execute(insert(table).values({**row, **said}))


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
