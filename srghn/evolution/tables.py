"""Tables that grow by whole Parquet files, the same bytes however often a run was interrupted.

A part is named by the generations of its first and last row, and a checkpoint names its parts with
their digests: what it does not name is removed when the run resumes from it, and made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from srghn.errors import CheckpointError
from srghn.files import atomic_write, sha256_bytes, sha256_file, sweep


@dataclass(frozen=True)
class Part:
    """One file of a table: its name in the table's folder, and SHA-256."""

    name: str
    digest: str

    @property
    def last(self) -> int:
        """The generation that it ends with."""
        return int(self.name.removesuffix(".parquet").split("-")[1])


def write(folder: Path, rows: Sequence[pa.Table]) -> Part:
    """Write rows, in order of their column `generation`, as one part."""
    table = pa.concat_tables(rows).combine_chunks()  # the bytes do not depend on the chunks
    first, last = table["generation"][0].as_py(), table["generation"][-1].as_py()
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=[field.name for field in table.schema if field.type == pa.string()],
        write_statistics=False,  # nobody looks for rows by them
    )
    data = sink.getvalue().to_pybytes()
    name = f"{first:08d}-{last:08d}.parquet"
    atomic_write(folder / name, data)
    return Part(name, sha256_bytes(data))


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
    """Remove every file that is not named, and what killed writes left aside."""
    keep = {part.name for part in named}
    sweep(folder)
    for path in folder.glob("*.parquet"):
        if path.name not in keep:
            path.unlink()


def read(folder: Path, parts: Iterable[Part] | None = None, *more: pa.Table) -> pa.Table:
    """Rows of these parts, by default of all there are, in order of generation, and `more` of them.

    Raises `CheckpointError` if there is nothing at all.
    """
    if parts is None:
        paths = sorted(folder.glob("[0-9]*.parquet"))
    else:
        paths = [folder / part.name for part in parts]
    found = [*map(pq.read_table, paths), *more]
    if not found:
        raise CheckpointError(
            f"{folder} holds no table yet; the run has not written its first part"
        )
    return pa.concat_tables(found)
