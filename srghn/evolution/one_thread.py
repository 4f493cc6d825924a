"""BLAS in one thread: with more it adds in another order, and the same seeds give other bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

_LOCK = Lock()
#: How many threads each BLAS had, one entry for each that is inside: the number is the process's.
_INSIDE: list[list[int]] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """Products of matrices in one thread, here and in what is called; also a decorator.

    The number of threads is the process's own: the first to enter sets it, the last to leave
    sets it back. That takes a tenth of a millisecond, and to enter again inside nothing.
    """
    with _LOCK:
        _INSIDE.append(_INSIDE[0] if _INSIDE else [library.num_threads for library in _blas()])
        if len(_INSIDE) == 1:
            _set([1] * len(_blas()))
    try:
        yield
    finally:
        with _LOCK:
            before = _INSIDE.pop()
            if not _INSIDE:
                _set(before)


def _set(threads: list[int]) -> None:
    for library, count in zip(_blas(), threads, strict=True):
        library.set_num_threads(count)


@cache
def _blas() -> tuple[Any, ...]:
    """Every BLAS that is loaded: NumPy's is, before anyone has an array to multiply."""
    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)
