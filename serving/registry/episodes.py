"""Which version an episode runs on, and how it ended.

An outcome is attributed by the pin that the server wrote when the episode began, never by what
its caller says; so it counts for the arm of the trial that was open then, and only once.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, insert, select, update

from serving.registry import schema
from serving.registry.records import Outcome, Pin
from srghn.errors import LedgerError, TransitionRefused


class UnknownEpisode(LedgerError):
    """No action was ever asked for in this episode, so nothing can be said about its outcome."""


def find_pin(connection: Connection, episode_id: str) -> Pin | None:
    query = select(schema.pins).where(schema.pins.c.episode_id == episode_id)
    row = connection.execute(query).mappings().one_or_none()
    return Pin(**row) if row else None


def pin(connection: Connection, wanted: Pin) -> Pin:
    """Pin an episode, unless another worker was first; returns the pin that holds."""
    found = find_pin(connection, wanted.episode_id)
    if found is not None:
        return found
    connection.execute(insert(schema.pins).values(vars(wanted)))
    return wanted


def repin(connection: Connection, old: Pin, wanted: Pin) -> Pin:
    """Move an episode whose version is served no more; its outcome will count for neither."""
    found = find_pin(connection, old.episode_id)
    if found is not None and found != old:
        return found
    moved = replace(wanted, moved=True)
    change = update(schema.pins).where(schema.pins.c.episode_id == old.episode_id)
    connection.execute(change.values(vars(moved)))
    return moved


def prune(connection: Connection, before: float) -> int:
    """Forget pins made before a moment (Unix seconds); returns how many. Outcomes are kept."""
    old = delete(schema.pins).where(schema.pins.c.pinned_at < before)
    return connection.execute(old).rowcount


def record_outcome(
    connection: Connection, episode_id: str, return_: float, length: int, terminated: bool
) -> Outcome:
    """Store how an episode ended; a repeated post answers with what the first one stored.

    Raises `UnknownEpisode`, and `TransitionRefused` if a repeated post says something else.
    """
    said = (return_, length, terminated)
    found = _find_outcome(connection, episode_id)
    if found is not None:
        if (found.return_, found.length, found.terminated) != said:
            raise TransitionRefused(
                f"episode {episode_id!r} already ended with return {found.return_:g} after "
                f"{found.length} steps; an outcome is posted once"
            )
        return found
    held = find_pin(connection, episode_id)
    if held is None:
        raise UnknownEpisode(
            f"no action was asked for in episode {episode_id!r}; send the same episode_id with "
            f"/v1/act, then post its outcome"
        )
    change = update(schema.pins).where(schema.pins.c.episode_id == episode_id)
    connection.execute(change.values(over=True))
    row = {
        "episode_id": episode_id,
        "version": held.version,
        "route": held.route,
        "epoch": held.epoch,
        "return": return_,
        "length": length,
        "terminated": terminated,
        "counted": held.epoch is not None and not held.moved,
    }
    connection.execute(insert(schema.outcomes).values(row))
    stored = _find_outcome(connection, episode_id)
    assert stored is not None
    return stored


def outcomes(connection: Connection, version: int | None, since: int) -> list[Outcome]:
    """Outcomes after number `since`, in order of arrival."""
    query = select(schema.outcomes).where(schema.outcomes.c.n > since)
    if version is not None:
        query = query.where(schema.outcomes.c.version == version)
    rows = connection.execute(query.order_by(schema.outcomes.c.n)).mappings()
    return [_to_outcome(dict(row)) for row in rows]


def arms(connection: Connection, epoch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns of the trial that began with event `epoch`: (champion's, canary's), as they came."""
    table = schema.outcomes
    query = select(table.c.route, table.c["return"]).where(table.c.epoch == epoch, table.c.counted)
    rows = connection.execute(query.order_by(table.c.n)).all()
    champion = np.array([row[1] for row in rows if row[0] == "champion"], np.float64)
    canary = np.array([row[1] for row in rows if row[0] == "canary"], np.float64)
    return champion, canary


def _find_outcome(connection: Connection, episode_id: str) -> Outcome | None:
    query = select(schema.outcomes).where(schema.outcomes.c.episode_id == episode_id)
    row = connection.execute(query).mappings().one_or_none()
    return _to_outcome(dict(row)) if row else None


def _to_outcome(row: dict[str, object]) -> Outcome:
    row["return_"] = row.pop("return")
    return Outcome(**row)  # type: ignore[arg-type]
