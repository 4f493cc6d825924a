"""Tables that grow by whole Parquet files, the same bytes however often a run was interrupted.

A part covers generations `first` to `last` and is named by them. Sixteen parts of one level become
one of the next, so a run of 10,000 generations has a few dozen. The checkpoint names its parts with
their digests: what it does not name is removed when the run goes on from it, and parts that were
merged stay until no kept checkpoint names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from srghn.errors import CheckpointError
from srghn.files import atomic_write, sha256_bytes, sha256_file, sweep

FAN = 16


@dataclass(frozen=True)
class Part:
    """One file of a table: its name in the table's folder, SHA-256, and level of merging."""

    name: str
    digest: str
    level: int

    @property
    def span(self) -> tuple[int, int]:
        return _span(self.name)


def _span(name: str) -> tuple[int, int]:
    first, last = name.removesuffix(".parquet").split("-")
    return int(first), int(last)


def append(
    folder: Path, parts: Sequence[Part], table: pa.Table, first: int, last: int
) -> list[Part]:
    """Write rows of generations `first` to `last`; merge what is due. Gives the new list of parts.

    Nothing is removed: see `prune`.
    """
    grown = [*parts, _write(folder, table, first, last, level=0)]
    while len(tail := _tail(grown)) == FAN:
        merged = pa.concat_tables([pq.read_table(folder / part.name) for part in tail])
        whole = _write(folder, merged, tail[0].span[0], last, level=tail[0].level + 1)
        grown = [*grown[:-FAN], whole]
    return grown


def _tail(parts: Sequence[Part]) -> list[Part]:
    """The parts at the end that share the last one's level."""
    same = [part for part in parts if part.level == parts[-1].level]
    return same[-FAN:]


def _write(folder: Path, table: pa.Table, first: int, last: int, level: int) -> Part:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(),
        sink,
        compression="zstd" if level else "lz4",  # of a part that will be merged, be quick
        use_dictionary=[field.name for field in table.schema if field.type == pa.string()],
        write_statistics=False,  # nobody looks for rows by them
    )
    data = sink.getvalue().to_pybytes()
    name = f"{first:08d}-{last:08d}.parquet"
    atomic_write(folder / name, data)
    return Part(name, sha256_bytes(data), level)


def verify(folder: Path, parts: Iterable[Part]) -> None:
    """Raise `CheckpointError` naming the first part that is missing or has other bytes."""
    for part in parts:
        path = folder / part.name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        if (found := sha256_file(path)) != part.digest:
            raise CheckpointError(
                f"{path}: expected sha256 {part.digest}, found {found}; "
                "the file was torn or changed"
            )


def prune(folder: Path, named: Iterable[Part]) -> None:
    """Remove every file that no kept checkpoint names, and what killed writes left aside."""
    keep = {part.name for part in named}
    sweep(folder)
    for path in folder.glob("*.parquet"):
        if path.name not in keep:
            path.unlink()


def read(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The whole table, in order of generation; a part that lies within another is left out.

    Raises `CheckpointError` if there is no part at all.
    """
    spans = sorted((_span(p.name) for p in folder.glob("[0-9]*.parquet")), key=_widest_first)
    if not spans:
        raise CheckpointError(f"{folder} holds no table yet; the run wrote no checkpoint")
    chosen, end = [], -1
    for first, last in spans:
        if first > end:
            chosen.append(folder / f"{first:08d}-{last:08d}.parquet")
            end = last
    return pa.concat_tables(
        [pq.read_table(path, columns=list(columns) if columns else None) for path in chosen]
    )


def _widest_first(span: tuple[int, int]) -> tuple[int, int]:
    return span[0], -span[1]
