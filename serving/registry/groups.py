"""Writes starts and outcomes of episodes in groups: a few statements for the whole group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from serving.registry import schema
from serving.registry.episodes import UnknownEpisode, counts, to_outcome
from serving.registry.records import Outcome, Start, StartRow
from srghn.errors import TransitionRefused

# These statements are given to the driver as they are. Every episode runs them, and composing a
# statement takes longer than running it. A question mark is a value.
_START = tuple(field.name for field in fields(Start))
_COLUMNS = tuple(column.name for column in schema.starts.columns)
_INSERT = (
    f"INSERT INTO starts ({', '.join(_START)}, moved) "
    f"VALUES ({', '.join('?' * len(_START))}, ?) ON CONFLICT DO NOTHING RETURNING n"
)
_BY_NAME = "SELECT {} FROM starts WHERE policy = ? AND episode = ?".format(
    ", ".join(f'"{name}"' for name in _COLUMNS)
)
_LAST = "SELECT max(arrived) FROM starts"
_ENDED = ("arrived", "ended_at", "return", "length", "terminated", "poster", "counted")
_END = "UPDATE starts SET {} WHERE n = ?".format(", ".join(f'"{name}" = ?' for name in _ENDED))
_SAID = tuple("return_" if name == "return" else name for name in _ENDED)
_OPEN: dict[str, Any] = dict.fromkeys(_SAID)
# An outcome that has arrived keeps its weight: decisions may have been taken with it.
_SPOIL = "UPDATE starts SET moved = ? WHERE policy = ? AND episode = ? AND arrived IS NULL"
_FLAGS = ("moved", "terminated", "counted")  # SQLite stores them as numbers


@dataclass(frozen=True)
class Spoilt:
    """Episodes that are no evidence any more: they moved, or a request lacked their token."""

    policy: str
    names: tuple[str, ...]


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


def write(
    connection: Connection, items: Sequence[Start | Spoilt | Ending], now: float
) -> list[StartRow | Outcome | Exception | None]:
    """Write starts as `begin` does, then what is spoilt, then endings as `end` does.

    Returns the results in the order of `items`; None for `Spoilt`.
    """
    begun = iter(begin(connection, [item for item in items if isinstance(item, Start)]))
    spoil(connection, [item for item in items if isinstance(item, Spoilt)])
    endings = [item for item in items if not isinstance(item, Start | Spoilt)]
    ended = iter(end(connection, endings, now) if endings else ())
    results: list[StartRow | Outcome | Exception | None] = []
    for item in items:
        if isinstance(item, Spoilt):
            results.append(None)
        else:
            results.append(next(begun) if isinstance(item, Start) else next(ended))
    return results


def spoil(connection: Connection, spoilt: Sequence[Spoilt]) -> None:
    """Mark starts as no evidence, unless their outcome has arrived."""
    driver = _Driver(connection)
    for some in spoilt:
        for name in some.names:
            driver.run(_SPOIL, (True, some.policy, name))


def begin(connection: Connection, starts: Sequence[Start]) -> list[StartRow]:
    """Write starts in their order; an episode that was started before keeps its first start.

    Returns the stored rows, in the order of `starts`.
    """
    driver = _Driver(connection)
    return [_begin(driver, start) for start in starts]


def _begin(driver: _Driver, start: Start) -> StartRow:
    said = vars(start)
    new = driver.row(_INSERT, (*(said[name] for name in _START), False))
    if new is not None:
        return StartRow(n=new[0], **said, moved=False, **_OPEN)
    found = _find(driver, start.policy, start.episode)
    assert found is not None, "a start conflicted, but no such start was found"
    return found


def end(connection: Connection, endings: Sequence[Ending], now: float) -> list[Outcome | Exception]:
    """Record outcomes, each once; a repeat returns the first outcome.

    An item of the result may instead be `UnknownEpisode`, or `TransitionRefused` for a repeat that
    differs from the first.
    """
    driver = _Driver(connection)
    arrived = driver.row(_LAST, ())[0] or 0
    results: list[Outcome | Exception] = []
    for ending in endings:
        row = _find(driver, ending.policy, ending.name)
        if row is None:
            results.append(UnknownEpisode(f"no start of episode {ending.name!r} is recorded"))
        elif row.arrived is not None:
            results.append(_again(row, ending))
        else:
            arrived += 1
            counted = ending.evidence and counts(row)
            row = _ended(row, ending, arrived, now, counted)
            driver.run(_END, (*(getattr(row, name) for name in _SAID), row.n))
            results.append(to_outcome(row))
    return results


class _Driver:
    """The driver's own cursor in a transaction; its errors are raised as SQLAlchemy's."""

    def __init__(self, connection: Connection) -> None:
        self._cursor: Any = connection.connection.cursor()
        self._dialect = connection.dialect

    def row(self, statement: str, values: tuple[Any, ...]) -> Any:
        """The first row, or None."""
        self.run(statement, values)
        return self._cursor.fetchone()

    def run(self, statement: str, values: tuple[Any, ...]) -> None:
        if self._dialect.paramstyle != "qmark":
            statement = statement.replace("?", "%s")
        errors: Any = self._dialect.dbapi
        try:
            self._cursor.execute(statement, values)
        except errors.Error as error:
            raise DBAPIError.instance(statement, None, error, errors.Error) from error


def _find(driver: _Driver, policy: str, episode: str) -> StartRow | None:
    found = driver.row(_BY_NAME, (policy, episode))
    if found is None:
        return None
    row = dict(zip(_COLUMNS, found, strict=True))
    row["return_"] = row.pop("return")
    row |= {name: bool(row[name]) for name in _FLAGS if row[name] is not None}
    return StartRow(**row)


def _ended(row: StartRow, ending: Ending, arrived: int, now: float, counted: bool) -> StartRow:
    return replace(
        row,
        arrived=arrived,
        ended_at=now,
        return_=ending.return_,
        length=ending.length,
        terminated=ending.terminated,
        poster=ending.poster,
        counted=counted,
    )


def _again(row: StartRow, ending: Ending) -> Outcome | Exception:
    known = (row.return_, row.length, row.terminated)
    if known == (ending.return_, ending.length, ending.terminated):
        return to_outcome(row)
    return TransitionRefused(
        f"episode {row.episode!r} already ended with return {row.return_:g} after {row.length} "
        f"steps; an outcome is posted once"
    )
