"""Measures on a shared machine: CPU time in rounds, of which the fastest counts.

Contestants of a work take turns, so that a disturbance affects all of them. CPU time leaves out
waiting, but not the effect of a busy sibling core. That effect only slows, so the fastest round
counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from pipelines.lab.bench.loops import Play


@contextmanager
def one_core() -> Iterator[None]:
    """Run on one core: threads and processes that begin in the block share this thread's core.

    Torch has one thread; a second one would compete with it for the core by spinning.
    """
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(before)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, before)


def rates(contestants: Mapping[str, Play], rounds: int, seconds: float) -> dict[str, float]:
    """Contestant -> steps per CPU-second of its fastest round; a round takes about `seconds`."""
    budgets = {name: _budget(play, seconds) for name, play in contestants.items()}
    best = dict.fromkeys(contestants, 0.0)
    for _ in range(rounds):
        for name, play in contestants.items():
            best[name] = max(best[name], _rate(play, budgets[name])[0])
    return best


def _budget(play: Play, seconds: float) -> int:
    """Steps that take about `seconds`, found by doubling; also warms caches and compilers."""
    play(1)
    steps = 256
    while True:
        rate, took = _rate(play, steps)
        if took > seconds / 8:
            return max(1, int(rate * seconds))
        steps *= 4


def _rate(play: Play, least: int) -> tuple[float, float]:
    """Steps per CPU-second, and the CPU-seconds used."""
    begun = time.process_time()
    steps = play(least)
    took = max(time.process_time() - begun, 1e-9)
    return steps / took, took
