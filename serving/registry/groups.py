"""Starts and outcomes of episodes a group at a time: a few statements, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, func, select, text, update

from serving.registry import schema
from serving.registry.episodes import UnknownEpisode, counts, to_outcome, to_start
from serving.registry.records import Outcome, Start, StartRow
from srghn.errors import TransitionRefused

_table = schema.starts
_BY_NAME = select(_table).where(
    _table.c.policy == bindparam("of"), _table.c.episode.in_(bindparam("names", expanding=True))
)
_LAST = select(func.max(_table.c.arrived))
_END = update(_table).where(_table.c.n == bindparam("at"))
_FIELDS = (*(field.name for field in fields(Start)), "moved")
_INSERT = text(
    f"INSERT INTO starts ({', '.join(_FIELDS)}) "
    f"VALUES ({', '.join(f':{name}' for name in _FIELDS)}) ON CONFLICT DO NOTHING"
)


class Ending(Protocol):
    """How an episode ended; `evidence`: it may count in its trial."""

    @property
    def policy(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def return_(self) -> float: ...
    @property
    def length(self) -> int: ...
    @property
    def terminated(self) -> bool: ...
    @property
    def poster(self) -> str | None: ...
    @property
    def evidence(self) -> bool: ...


def begin(connection: Connection, starts: Sequence[Start]) -> list[StartRow]:
    """Write starts in their order; an episode that was started before keeps its first start.

    Returns the rows that hold, in the order of `starts`.
    """
    connection.execute(_INSERT, [{**vars(start), "moved": False} for start in starts])
    rows = _find(connection, [(start.policy, start.episode) for start in starts])
    return [rows[start.policy, start.episode] for start in starts]


def end(connection: Connection, endings: Sequence[Ending], now: float) -> list[Outcome | Exception]:
    """Record outcomes, each once: a repeat answers as the first post did.

    In the place of an outcome stands `UnknownEpisode`, or `TransitionRefused` for a repeat that
    says something else.
    """
    rows = _find(connection, [(ending.policy, ending.name) for ending in endings])
    arrived = connection.execute(_LAST).scalar() or 0
    results: list[Outcome | Exception] = []
    changes: list[dict[str, Any]] = []
    for ending in endings:
        key = (ending.policy, ending.name)
        row = rows.get(key)
        if row is None:
            results.append(UnknownEpisode(f"no start of episode {ending.name!r} is recorded"))
        elif row.arrived is not None:
            results.append(_again(row, ending))
        else:
            arrived += 1
            counted = ending.evidence and counts(connection, row, ending.poster)
            said = _said(ending, arrived, now, counted)
            changes.append({"at": row.n, **said})
            rows[key] = _with(row, said)
            results.append(to_outcome(rows[key]))
    if changes:
        connection.execute(_END, changes)
    return results


def _find(
    connection: Connection, names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], StartRow]:
    found: dict[tuple[str, str], StartRow] = {}
    for policy in {policy for policy, _ in names}:
        wanted = [name for of, name in names if of == policy]
        rows = connection.execute(_BY_NAME, {"of": policy, "names": wanted}).mappings()
        found |= {(policy, row["episode"]): to_start(row) for row in rows}
    return found


def _said(ending: Ending, arrived: int, now: float, counted: bool) -> dict[str, Any]:
    return {
        "arrived": arrived,
        "ended_at": now,
        "return": ending.return_,
        "length": ending.length,
        "terminated": ending.terminated,
        "poster": ending.poster,
        "counted": counted,
    }


def _with(row: StartRow, said: dict[str, Any]) -> StartRow:
    fields = {**vars(row), **said}
    fields["return_"] = fields.pop("return")
    return StartRow(**fields)


def _again(row: StartRow, ending: Ending) -> Outcome | Exception:
    known = (row.return_, row.length, row.terminated)
    if known == (ending.return_, ending.length, ending.terminated):
        return to_outcome(row)
    return TransitionRefused(
        f"episode {row.episode!r} already ended with return {row.return_:g} after {row.length} "
        f"steps; an outcome is posted once"
    )
