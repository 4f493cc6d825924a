"""Processes forked from this one: it has imported everything, so that they cost no import."""

from __future__ import annotations

import faulthandler
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

_fork = multiprocessing.get_context("fork")
#: One that takes longer hangs.
SECONDS = 900.0


def forked(work: Callable[..., object], *given: Any) -> BaseProcess:
    """Begin work in a forked process; one that hangs says where, and ends with exit code 1."""

    def child() -> None:
        _alone()
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
        work(*given)

    process = _fork.Process(target=child)
    process.start()
    return process


def _alone() -> None:
    """One thread for torch: a forked process has none of its parent's, and would wait for them."""
    import torch

    torch.set_num_threads(1)
