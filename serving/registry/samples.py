"""Stored observations from service: only the latest of each policy are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import RowMapping, delete, func, insert, select

from serving.registry import schema
from serving.registry.database import Database


@dataclass(frozen=True)
class Sample:
    """A policy's observation at one step of an episode: float32, little-endian bytes."""

    version: int
    generation: int
    episode: str
    step: int
    at: float
    observation: bytes

    @property
    def values(self) -> NDArray[np.float32]:
        """The observation (d,)."""
        return np.frombuffer(self.observation, "<f4")


def keep(database: Database, policy: str, samples: Sequence[Sample], most: int) -> None:
    """Add samples, and delete the oldest beyond `most`."""
    table = schema.samples
    with database.write() as connection:
        connection.execute(insert(table), [{**vars(each), "policy": policy} for each in samples])
        oldest = select(table.c.n).where(table.c.policy == policy).order_by(table.c.n.desc())
        edge = connection.execute(oldest.offset(most).limit(1)).scalar()
        if edge is not None:
            connection.execute(delete(table).where(table.c.policy == policy, table.c.n <= edge))


def newest(database: Database, policy: str) -> int:
    """The number of a policy's latest sample; 0 if there is none."""
    table = schema.samples
    with database.read() as connection:
        found = connection.execute(select(func.max(table.c.n)).where(table.c.policy == policy))
        return int(found.scalar() or 0)


def oldest(database: Database, policy: str) -> float:
    """When a policy's oldest stored sample was taken, in Unix seconds; 0 if there is none."""
    table = schema.samples
    query = select(table.c.at).where(table.c.policy == policy).order_by(table.c.n)
    with database.read() as connection:
        return float(connection.execute(query.limit(1)).scalar() or 0.0)


def latest(
    database: Database, policy: str, version: int, generation: int, most: int
) -> list[Sample]:
    """The latest samples of a champion, the last one first."""
    table = schema.samples
    query = select(table).where(
        table.c.policy == policy, table.c.version == version, table.c.generation == generation
    )
    with database.read() as connection:
        found = connection.execute(query.order_by(table.c.n.desc()).limit(most)).mappings().all()
    return [_sample(row) for row in found]


def kept(database: Database, policy: str, episodes: Sequence[str] | None = None) -> list[Sample]:
    """A policy's samples in order, of the given episodes or of all."""
    table = schema.samples
    query = select(table).where(table.c.policy == policy).order_by(table.c.n)
    with database.read() as connection:
        rows = connection.execute(query).mappings().all()
    wanted = None if episodes is None else set(episodes)
    return [_sample(row) for row in rows if wanted is None or row["episode"] in wanted]


def _sample(row: RowMapping) -> Sample:
    return Sample(**{name: row[name] for name in Sample.__dataclass_fields__})
