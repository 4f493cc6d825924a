"""Processes for the lab's runs: fresh ones, of one thread each, that end with this one."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from srghn.evaluation.engines.worker import SINGLE_THREADED
from srghn.parents import PARENT, die_with_parent, mark


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """So many workers; what was not begun is dropped where an error leaves the block."""
    before = dict(os.environ)
    os.environ.update(SINGLE_THREADED | {PARENT: mark()})
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, initializer=die_with_parent) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        os.environ.clear()
        os.environ.update(before)
