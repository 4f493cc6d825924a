"""How large a lineage grows, and how long it takes to load.

    python -m tests.benchmarks.lineage [--generations 10000] [--children 56] [--survivors 8]

Rows are written as a run writes them, part by part, with seeds, rates and returns that do not
compress. The aim: 10,000 generations of 64 under 100 MB, loaded in about a second. The time is
printed beside that of reading the same bytes from the disk cache, measured in the same run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from srghn.config import EvolutionParams
from srghn.evolution import lineage, tables
from tests.tiny import record_of

EPISODES, NODES = 8, 12


def generation(number: int, children: int, survivors: int) -> pa.Table:
    """The rows of one generation, made up: survivors are of the last one, as are the parents."""
    rng = np.random.default_rng(number)
    count = children + survivors
    first = survivors + number * children
    ids = np.append(first - survivors + np.arange(survivors), first + np.arange(children))
    returns = rng.normal(size=(count, EPISODES)) * 100
    played = record_of(
        number,
        returns,
        rates=rng.random((count, NODES), np.float32),
        ids=ids,
        parents=np.maximum(ids - children, -1),
        noise_seeds=rng.integers(0, 2**63, count),
        births=np.append(np.full(survivors, max(number - 1, 0)), np.full(children, number)),
    )
    return lineage.table([played], "f" * 64)


def least(work: Callable[[], object], repeats: int = 5) -> float:
    """The least seconds of several tries."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, default=10_000)
    parser.add_argument("--children", type=int, default=56)
    parser.add_argument("--survivors", type=int, default=8)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="srghn-lineage-") as folder:
        run = Path(folder)
        every = EvolutionParams().checkpoint_every
        for first in range(0, chosen.generations, every):
            numbers = range(first, min(first + every, chosen.generations))
            rows = [generation(g, chosen.children, chosen.survivors) for g in numbers]
            tables.write(run / "lineage", rows)
        files = sorted((run / "lineage").iterdir())
        size = sum(file.stat().st_size for file in files)
        raw = least(lambda: [file.read_bytes() for file in files])
        load = least(lambda: lineage.load(run))
        found = lineage.load(run)
        born = int(found.id.max())
        chain = least(lambda: found.chain(born), repeats=2)
        print(f"{chosen.generations} generations of {chosen.children + chosen.survivors}:")  # noqa: T201
        print(f"  {len(found)} rows in {len(files)} files, {size / 1e6:.1f} MB")  # noqa: T201
        print(f"  loaded in {load:.2f} s; reading the bytes alone takes {raw:.3f} s")  # noqa: T201
        print(f"  ancestors of the last one ({len(found.chain(born))} births) in {chain:.2f} s")  # noqa: T201


if __name__ == "__main__":
    main()
