"""The gain from a second worker: two processes against one, and two Dask workers against these.

It is measured in wall-clock time, so the machine's cores must be free. The speed of two separate
evaluations at once is measured too; it bounds the first ratio.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from pipelines.lab.bench.works import Work
from serving.settings import Settings
from srghn.evaluation.base import Evaluator, make_evaluator
from srghn.evaluation.engines.worker import SINGLE_THREADED

WORKERS = 2
#: As in docs/settings.md: Dask's own profiler takes some 7% of a busy worker's time.
NO_PROFILER = {"distributed.worker.profile.enabled": False}


@dataclass(frozen=True)
class Gain:
    """Throughput of two workers on one evaluation of a population, as ratios.

    seconds    wall-clock seconds of the evaluation in one process
    processes  two processes to one
    machine    two separate evaluations at once, one process each, to one of them alone
    dask       Dask with two workers to the two processes; None if Dask is not installed
    """

    work: str
    seconds: float
    processes: float
    machine: float
    dask: float | None


def enough_cores() -> bool:
    return len(os.sched_getaffinity(0)) >= WORKERS


def gain(work: Work, rounds: int) -> Gain:
    """Measure processes first, then Dask, because even an idle cluster uses some CPU."""
    with ExitStack() as stack:
        one, other = (stack.enter_context(_processes(work, 1)) for _ in range(2))
        two = stack.enter_context(_processes(work, WORKERS))
        pool = stack.enter_context(ThreadPoolExecutor(2))

        def both() -> None:
            for done in [pool.submit(_play, work, evaluator) for evaluator in (one, other)]:
                done.result()

        alone, at_once, shared = _fastest(
            (partial(_play, work, one), both, partial(_play, work, two)), rounds
        )
        dask = None
        if find_spec("distributed"):
            cluster = partial(_play, work, stack.enter_context(_dask(work)))
            beside, clustered = _fastest((partial(_play, work, two), cluster), rounds)
            dask = beside / clustered
    return Gain(
        work=work.name,
        seconds=alone,
        processes=alone / shared,
        machine=2 * alone / at_once,
        dask=dask,
    )


def _fastest(contestants: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    """Wall-clock seconds of each contestant's fastest round; contestants take turns."""
    best = [math.inf] * len(contestants)
    for round_ in range(rounds + 1):
        for place, play in enumerate(contestants):
            begun = time.perf_counter()
            play()
            if round_:  # the first one starts the workers
                best[place] = min(best[place], time.perf_counter() - begun)
    return best


def _play(work: Work, evaluator: Evaluator) -> None:
    evaluator.evaluate(work.population, work.task)


def _processes(work: Work, workers: int) -> Evaluator:
    return make_evaluator(Settings(engine="processes", workers=workers), work.version, work.network)


@contextmanager
def _dask(work: Work) -> Iterator[Evaluator]:
    """An evaluator over a local cluster on loopback, which ends with the evaluator."""
    import dask
    import distributed

    local: Any = distributed.LocalCluster  # its type stubs lack its arguments
    with (
        dask.config.set(NO_PROFILER),  # a local cluster's workers use this process's settings
        local(
            n_workers=WORKERS, threads_per_worker=1, host="127.0.0.1", env=SINGLE_THREADED,
            dashboard_address="127.0.0.1:0",  # None would be port 8787, which may be taken
        ) as cluster,
        make_evaluator(
            Settings(engine="dask", dask_address=cluster.scheduler_address),
            work.version,
            work.network,
        ) as evaluator,
    ):  # fmt: skip
        yield evaluator
