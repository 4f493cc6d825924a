"""Ctrl-C as `KeyboardInterrupt`, also where it lands in compiled code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Around what calls compiled code.

    Ctrl-C that lands while numba passes arguments reaches Python as a `SystemError` with the
    interrupt behind it.
    """
    try:
        yield
    except SystemError as error:
        behind: BaseException | None = error
        while behind is not None:
            if isinstance(behind, KeyboardInterrupt):
                raise behind from None
            behind = behind.__cause__ or behind.__context__
        raise
