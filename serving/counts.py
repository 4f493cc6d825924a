"""One worker's counts, in memory that the other workers can read: no lock, no write to a disk.

Each worker maps its own small file into memory (anonymous memory if it is the only worker).
Counting adds to a number in it. Only one thread of a worker counts.
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
#: Names of the other counters, one number each.
COUNTERS = (
    "load_failures", "ledger_errors", "unpinned_episodes", "refused_connections", "shadow_dropped",
    "shadow_outside",
)  # fmt: skip
GAUGES = ("inflight", "generation")
_SECONDS, _GAUGE = len(BUCKETS) + 1, len(BUCKETS) + 2
_COUNTER = _GAUGE + len(GAUGES)
_REQUEST = _COUNTER + len(COUNTERS)
_SIZE = 8 * (_REQUEST + len(ROUTES) * len(CODES))
_CODE = {code: number for number, code in enumerate(CODES)}
_ROUTE = {route: number * len(CODES) for number, route in enumerate(ROUTES)}


class Numbers(Protocol):
    """A memoryview of doubles; its type stub is incomplete."""

    def __getitem__(self, at: int, /) -> float: ...
    def __setitem__(self, at: int, value: float, /) -> None: ...
    def __iter__(self) -> Iterator[float]: ...


class Counts:
    """One worker's counts for a policy; through `folder` the workers read each other's."""

    def __init__(self, folder: Path | None = None, policy: str = POLICY) -> None:
        self._folder, self._policy = folder, policy
        own = f"{os.getpid()}{_ending(policy)}"
        self._values = _map(None if folder is None else folder / own)

    def request(self, route: str, code: int, seconds: float) -> None:
        """Count one request that was answered after `seconds`."""
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
        """The sum over all workers. Of dead ones it includes counts, but not requests in flight."""
        if self._folder is None:
            return Total([(os.getpid(), True, self._values)])
        others = [each for each in _siblings(self._folder, self._policy) if each[0] != os.getpid()]
        return Total([(os.getpid(), True, self._values), *others])


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
        """Each bucket's upper bound in seconds, as text, and the requests within it."""
        bounds, running, found = [*map(str, BUCKETS), "+Inf"], 0.0, []
        for bound, count in zip(bounds, self._sums, strict=False):
            running += count
            found.append((bound, running))
        return found

    def counter(self, name: str) -> float:
        return self._sums[_COUNTER + COUNTERS.index(name)]

    def requests(self) -> Iterator[tuple[str, int, float]]:
        """Route, status code and count of every pair with a count."""
        for route, start in _ROUTE.items():
            for code, number in _CODE.items():
                count = self._sums[_REQUEST + start + number]
                if count:
                    yield route, code, count


def _ending(policy: str) -> str:
    """The part of a file's name after the process id."""
    return ".counts" if policy == POLICY else f"-{policy}.counts"


def _siblings(folder: Path, policy: str) -> Iterator[tuple[int, bool, Numbers]]:
    ending = _ending(policy)
    for file in sorted(folder.glob(f"*{ending}")):
        number, data = file.name.removesuffix(ending), file.read_bytes()
        if number.isdecimal() and len(data) == _SIZE:
            pid = int(number)
            yield pid, Path(f"/proc/{pid}").exists(), _doubles(data)


def _map(file: Path | None) -> Numbers:
    """The numbers, in a shared file or, without one, in this process's own memory."""
    if file is None:
        return _doubles(bytearray(_SIZE))
    file.parent.mkdir(mode=0o700, exist_ok=True)  # a cleaner of /tmp may have removed it
    aside = file.with_name(f"{file.name}.new")
    aside.write_bytes(bytes(_SIZE))
    with aside.open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), _SIZE)
    aside.rename(file)  # other workers see the whole file or none
    return _doubles(mapped)


def _doubles(memory: Any) -> Numbers:
    view: Any = memoryview(memory).cast("d")
    found: Numbers = view
    return found
