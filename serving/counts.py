"""What one worker counts, in memory that its siblings can read: no lock, no write to a disk.

Each worker has a small file of its own (or anonymous memory, where it is the only one) mapped into
memory; counting is one addition to a number in it. A worker is one thread as far as counting goes.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from serving.registry.schema import POLICY

BUCKETS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)
ROUTES = ("champion", "canary", "trial", "holdback", "draining", "none")
CODES = (200, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503)
#: Names of what is counted beside requests, one number each.
COUNTERS = (
    "load_failures", "ledger_errors", "unpinned_episodes", "refused_connections", "shadow_dropped",
)  # fmt: skip
GAUGES = ("inflight", "generation")
_SECONDS, _GAUGE = len(BUCKETS) + 1, len(BUCKETS) + 2
_COUNTER = _GAUGE + len(GAUGES)
_REQUEST = _COUNTER + len(COUNTERS)
_SIZE = 8 * (_REQUEST + len(ROUTES) * len(CODES))
_CODE = {code: number for number, code in enumerate(CODES)}
_ROUTE = {route: number * len(CODES) for number, route in enumerate(ROUTES)}


class Numbers(Protocol):
    """A memoryview of doubles, as its stub says it only in part."""

    def __getitem__(self, at: int, /) -> float: ...
    def __setitem__(self, at: int, value: float, /) -> None: ...
    def __iter__(self) -> Iterator[float]: ...


class Counts:
    """One worker's numbers of a policy; in `folder` workers of one server find each other's."""

    def __init__(self, folder: Path | None = None, policy: str = POLICY) -> None:
        self._folder, self._policy = folder, policy
        own = f"{os.getpid()}{_ending(policy)}"
        self._values = _map(None if folder is None else folder / own)

    def request(self, route: str, code: int, seconds: float) -> None:
        """One request was answered after so many seconds."""
        values = self._values
        values[bisect_left(BUCKETS, seconds)] += 1.0
        values[_SECONDS] += seconds
        values[_REQUEST + _ROUTE[route] + _CODE.get(code, _CODE[500])] += 1.0

    def inflight(self, change: int) -> None:
        self._values[_GAUGE] += change

    def add(self, name: str, count: int = 1) -> None:
        self._values[_COUNTER + COUNTERS.index(name)] += count

    def generation(self, generation: int) -> None:
        """The champion generation that this worker has loaded."""
        self._values[_GAUGE + 1] = generation

    def total(self) -> Total:
        """The sum over all workers, dead ones too (of those, what they counted alone)."""
        if self._folder is None:
            return Total([(os.getpid(), True, self._values)])
        return Total(list(_siblings(self._folder, self._policy)))


class Total:
    """Sums over workers, taken at one moment."""

    def __init__(self, workers: list[tuple[int, bool, Numbers]]) -> None:
        lists = [list(values) for _, _, values in workers]
        self._sums: list[float] = [sum(column) for column in zip(*lists, strict=True)]
        self.generations = {
            pid: int(values[_GAUGE + 1])
            for (pid, alive, _), values in zip(workers, lists, strict=True)
            if alive
        }
        self.inflight = sum(
            values[_GAUGE] for (_, alive, _), values in zip(workers, lists, strict=True) if alive
        )

    @property
    def seconds(self) -> float:
        return self._sums[_SECONDS]

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound as text -> requests that took at most so long."""
        bounds, running, found = [*map(str, BUCKETS), "+Inf"], 0.0, []
        for bound, count in zip(bounds, self._sums, strict=False):
            running += count
            found.append((bound, running))
        return found

    def counter(self, name: str) -> float:
        return self._sums[_COUNTER + COUNTERS.index(name)]

    def requests(self) -> Iterator[tuple[str, int, float]]:
        """Route, code and count of every pair that was seen."""
        for route, start in _ROUTE.items():
            for code, number in _CODE.items():
                count = self._sums[_REQUEST + start + number]
                if count:
                    yield route, code, count


def _ending(policy: str) -> str:
    """What a file's name has after the process's number."""
    return ".counts" if policy == POLICY else f"-{policy}.counts"


def _siblings(folder: Path, policy: str) -> Iterator[tuple[int, bool, Numbers]]:
    ending = _ending(policy)
    for file in sorted(folder.glob(f"*{ending}")):
        number, data = file.name.removesuffix(ending), file.read_bytes()
        if number.isdecimal() and len(data) == _SIZE:
            pid = int(number)
            yield pid, Path(f"/proc/{pid}").exists(), _doubles(data)


def _map(file: Path | None) -> Numbers:
    """The numbers, in a shared file or in memory of this process alone."""
    if file is None:
        return _doubles(bytearray(_SIZE))
    aside = file.with_name(f"{file.name}.new")
    aside.write_bytes(bytes(_SIZE))
    with aside.open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), _SIZE)
    aside.rename(file)  # a sibling sees all of it or nothing
    return _doubles(mapped)


def _doubles(memory: Any) -> Numbers:
    view: Any = memoryview(memory).cast("d")
    found: Numbers = view
    return found
