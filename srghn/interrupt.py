"""Ctrl-C as `KeyboardInterrupt`, also where it lands in compiled code.

Ctrl-C that lands while numba passes arguments reaches Python as a `SystemError` with the interrupt
behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Around what calls compiled code."""
    try:
        yield
    except SystemError as error:
        raise_interrupt(error)
        raise


def raise_interrupt(error: BaseException) -> None:
    """Raise the `KeyboardInterrupt` behind a `SystemError`, where there is one.

    For what catches the failures of users' code: Ctrl-C is none of them.
    """
    behind: BaseException | None = error if isinstance(error, SystemError) else None
    while behind is not None:
        if isinstance(behind, KeyboardInterrupt):
            raise behind from None
        behind = behind.__cause__ or behind.__context__
