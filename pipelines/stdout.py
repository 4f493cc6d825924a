"""Stdout for a command's own words alone: what an environment of a user prints goes to stderr.

A line on stdout that is not the command's would break its JSON, or the file that it is piped into.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

_kept: TextIO | None = None


def stdout() -> TextIO:
    """Where a command writes what it was asked for."""
    return _kept or sys.stdout


@contextmanager
def kept_stdout() -> Iterator[None]:
    """Give everything but `stdout()` to stderr, while a command runs."""
    global _kept
    _kept = _apart(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
        _kept.flush()  # a pipe that nobody reads any more is then met where it can be handled
    finally:
        sys.stdout, _kept = _kept, None


def _apart(stream: TextIO) -> TextIO:
    """A stream in place of this one, whose file descriptor is stderr's from then on.

    Code in C and child processes write to the descriptor. It is not given back, for what such code
    still has in a buffer is written when the process ends.
    """
    try:
        old, new = stream.fileno(), sys.stderr.fileno()
    except OSError:  # no file: in tests
        return stream
    stream.flush()
    apart = open(  # noqa: SIM115  open until the process ends
        os.dup(old), "w", encoding=stream.encoding, errors=stream.errors, closefd=False
    )
    os.dup2(new, old)
    return apart
