"""Starts and outcomes of episodes, as rows.

The version of an outcome is that of the start which the server committed when the episode began,
never one that the caller names. So it counts for the arm that was drawn then, and only once.
Starts are numbered in the order of their commits, and so are outcomes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, delete, func, insert, select, update

from serving.registry import schema
from serving.registry.records import (
    CANARY_ARM,
    CHAMPION_ARM,
    HELD_ARM,
    Outcome,
    Running,
    Start,
    StartRow,
)
from srghn.errors import LedgerError, TransitionRefused

_ROUTES = {CHAMPION_ARM: "champion", CANARY_ARM: "canary", HELD_ARM: "holdback"}

#: Latest episodes on which the share of missing outcomes is measured, and the least number needed.
LOOKED_AT, MEASURED = 1000, 200
#: Largest share that a trial is planned with; it is far beyond any that can be decided.
MOST_MISSING = 0.9


class UnknownEpisode(LedgerError):
    """No action was ever requested in this episode, so it can have no outcome."""


def start(connection: Connection, rows: Sequence[Start]) -> list[int]:
    """Write starts in their order; returns their numbers.

    An episode that was started before keeps its first start; then that number is returned.
    """
    known = _known(connection, rows)
    new = [row for row in rows if (row.policy, row.episode) not in known]
    fresh = list({(row.policy, row.episode): row for row in new}.values())
    if fresh:
        connection.execute(insert(schema.starts), [{**vars(row), "moved": False} for row in fresh])
        known |= _known(connection, fresh)
    return [known[row.policy, row.episode] for row in rows]


def _known(connection: Connection, rows: Sequence[Start]) -> dict[tuple[str, str], int]:
    table, found = schema.starts, {}
    for policy in {row.policy for row in rows}:
        names = [row.episode for row in rows if row.policy == policy]
        query = select(table.c.episode, table.c.n).where(
            table.c.policy == policy, table.c.episode.in_(names)
        )
        found.update({(policy, row.episode): row.n for row in connection.execute(query)})
    return found


def find_start(connection: Connection, policy: str, episode: str) -> StartRow | None:
    table = schema.starts
    query = select(table).where(table.c.policy == policy, table.c.episode == episode)
    row = connection.execute(query).mappings().one_or_none()
    return to_start(row) if row else None


def to_start(row: RowMapping) -> StartRow:
    fields = dict(row)
    fields["return_"] = fields.pop("return")
    return StartRow(**fields)


def stale(
    connection: Connection, policy: str, before: float, now: float, newest: int, limit: int
) -> list[int]:
    """Numbers of a policy's first `limit` episodes without an outcome that are to be forgotten.

    They were started before a moment (Unix seconds), or are past their deadline and not among the
    `newest` of the policy. Episodes of a trial are kept, because a missing outcome is evidence too.
    """
    table = schema.starts
    mine = select(table.c.n).where(table.c.policy == policy)
    surplus = mine.order_by(table.c.n.desc()).limit(1).offset(newest).scalar_subquery()
    old = (table.c.started_at < before) | ((table.c.n <= surplus) & (table.c.deadline < now))
    query = mine.where(table.c.arrived.is_(None), table.c.trial.is_(None), old)
    return list(connection.scalars(query.order_by(table.c.n).limit(limit)))


def forget(connection: Connection, numbers: Sequence[int]) -> None:
    """Delete the episodes with these numbers that have no outcome by now."""
    table = schema.starts
    connection.execute(delete(table).where(table.c.n.in_(numbers), table.c.arrived.is_(None)))


def record_outcome(
    connection: Connection,
    policy: str,
    episode: str,
    said: tuple[float, int, bool],
    poster: str | None,
    now: float,
) -> Outcome:
    """Store how an episode ended (return, length, terminated); a repeat returns the first outcome.

    Raises `UnknownEpisode`, and `TransitionRefused` if a repeat differs from the first.
    """
    found = find_start(connection, policy, episode)
    if found is None:
        raise UnknownEpisode(
            f"no action was asked for in episode {episode!r}; send the same episode_id with "
            f"/v1/act, then post its outcome"
        )
    if found.arrived is not None:
        if (found.return_, found.length, found.terminated) != said:
            raise TransitionRefused(
                f"episode {episode!r} already ended with return {found.return_:g} after "
                f"{found.length} steps; an outcome is posted once"
            )
        return to_outcome(found)
    table = schema.starts
    last = connection.execute(select(func.max(table.c.arrived))).scalar() or 0
    return_, length, terminated = said
    ended = {
        "arrived": last + 1,
        "ended_at": now,
        "return": return_,
        "length": length,
        "terminated": terminated,
        "poster": poster,
        "counted": counts(found),
    }
    connection.execute(update(table).where(table.c.n == found.n).values(ended))
    stored = find_start(connection, policy, episode)
    assert stored is not None
    return to_outcome(stored)


def counts(found: StartRow) -> bool:
    """Whether an outcome can be evidence: in a trial, and on one version.

    Its poster's share is seen where evidence is counted, since that is in order of start.
    """
    return found.trial is not None and not found.moved


def to_outcome(row: StartRow) -> Outcome:
    assert row.arrived is not None
    return Outcome(
        n=row.arrived,
        episode_id=row.episode,
        version=row.version,
        route=_ROUTES[row.arm],
        epoch=row.trial,
        return_=float(row.return_ or 0.0),
        length=int(row.length or 0),
        terminated=bool(row.terminated),
        counted=bool(row.counted),
        generation=row.generation,
        poster=row.poster,
        policy=row.policy,
    )


def outcomes(
    connection: Connection, policy: str | None, version: int | None, since: int, limit: int | None
) -> list[Outcome]:
    """Outcomes after number `since`, in order of arrival."""
    table = schema.starts
    query = select(table).where(table.c.arrived > since).order_by(table.c.arrived).limit(limit)
    if policy is not None:
        query = query.where(table.c.policy == policy)
    if version is not None:
        query = query.where(table.c.version == version)
    return [to_outcome(to_start(row)) for row in connection.execute(query).mappings()]


def resolved(
    connection: Connection,
    policy: str,
    trial: int,
    after: int,
    now: float,
    limit: int | None = None,
) -> list[StartRow]:
    """The longest prefix, in order of start, of episodes that ended or passed their deadline.

    One that moved is resolved, too: whatever its outcome will be, it is no evidence. The prefix
    begins after start `after` and has at most `limit` rows.
    """
    table = schema.starts
    query = select(table).where(table.c.policy == policy, table.c.trial == trial, table.c.n > after)
    found = []
    for row in connection.execute(query.order_by(table.c.n).limit(limit)).mappings():
        if row["arrived"] is None and not row["moved"] and row["deadline"] >= now:
            break
        found.append(to_start(row))
    return found


def after(connection: Connection, policy: str, n: int, limit: int) -> list[StartRow]:
    """A policy's first `limit` starts after number `n`, in order of start."""
    table = schema.starts
    query = select(table).where(table.c.policy == policy, table.c.n > n).order_by(table.c.n)
    return [StartRow(*row) for row in connection.execute(query.limit(limit))]


def newest(
    connection: Connection, policy: str, limit: int, last: int | None = None
) -> list[StartRow]:
    """A policy's latest `limit` starts (up to number `last`), the last one first."""
    table = schema.starts
    query = select(table).where(table.c.policy == policy).order_by(table.c.n.desc())
    if last is not None:
        query = query.where(table.c.n <= last)
    return [StartRow(*row) for row in connection.execute(query.limit(limit))]


def started(
    connection: Connection, policy: str, version: int, limit: int, after: int, since: float
) -> list[StartRow]:
    """A version's first `limit` episodes after start `after` and `since` (Unix seconds)."""
    table = schema.starts
    query = select(table).where(
        table.c.policy == policy,
        table.c.version == version,
        table.c.n > after,
        table.c.started_at > since,
        ~table.c.moved,
    )
    found = connection.execute(query.order_by(table.c.n).limit(limit)).mappings()
    return [to_start(row) for row in found]


def missing(connection: Connection, policy: str, deadline: float | None, now: float) -> float:
    """Share of episodes in service without an outcome `deadline` seconds after their start.

    None: without one by their own deadline. It is measured on the latest episodes outside trials
    whose deadline is past; 0 if there are fewer than MEASURED. `now` is in Unix seconds.
    """
    table = schema.starts
    until = table.c.deadline if deadline is None else table.c.started_at + deadline
    past = until < now if deadline is None else table.c.started_at < now - deadline
    query = select(table.c.ended_at, until.label("until")).where(
        table.c.policy == policy, table.c.trial.is_(None), past
    )
    found = connection.execute(query.order_by(table.c.n.desc()).limit(LOOKED_AT)).all()
    if len(found) < MEASURED:
        return 0.0
    gone = sum(row.ended_at is None or row.ended_at > row.until for row in found)
    return float(min(gone / len(found), MOST_MISSING))


# ------------------------------------------------------------------- running states


def find_running(connection: Connection, table: Table, policy: str, trial: int) -> Running | None:
    """The state of a trial (`schema.trial_state`), or of a policy's watch (`schema.watch`, 0)."""
    query = select(table).where(table.c.policy == policy)
    if "trial" in table.c:
        query = query.where(table.c.trial == trial)
    row = connection.execute(query).one_or_none()
    return Running(policy, trial, row.n, json.loads(row.state)) if row else None


def advance(
    connection: Connection,
    table: Table,
    policy: str,
    trial: int,
    from_n: int,
    to_n: int,
    state: Mapping[str, Any],
) -> bool:
    """Update a state from `from_n` to `to_n`; False if another worker did."""
    text = json.dumps(state, allow_nan=False)
    change = update(table).where(table.c.policy == policy, table.c.n == from_n)
    if "trial" in table.c:
        change = change.where(table.c.trial == trial)
    moved = change.values(n=to_n, state=text, generation=table.c.generation + 1)
    if connection.execute(moved).rowcount == 1:
        return True
    if find_running(connection, table, policy, trial) is not None or from_n != 0:
        return False
    key = {"trial": trial} if "trial" in table.c else {}
    connection.execute(insert(table).values(policy=policy, **key, n=to_n, state=text, generation=1))
    return True
