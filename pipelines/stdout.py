"""Stdout for a command's own words alone: what an environment of a user prints goes to stderr.

A line on stdout that is not the command's would break its JSON, or the file that it is piped into.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

_kept: TextIO | None = None


class _Watched(io.FileIO):
    """A file that remembers that it did not take a write: a full buffer is lost with its error."""

    refused = False

    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except OSError:
            _Watched.refused = True
            raise


def stdout() -> TextIO:
    """Where a command writes what it was asked for."""
    return _kept or sys.stdout


def refused() -> bool:
    """Whether a command's words found no room, or nobody who reads them."""
    return _Watched.refused


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
    _Watched.refused = False
    raw = _Watched(os.dup(old), "w", closefd=False)  # open until the process ends
    apart = io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=raw.isatty()
    )
    os.dup2(new, old)
    return apart
