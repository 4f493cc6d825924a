"""Every error a user can meet.

A message says what was wrong, what was expected, what it got, and what to do next. The command line
prints it as one line and exits with `exit_code`. A bug is any other exception.
"""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: What users' code (environments, networks) may raise without ending the run.
FAILURES = (Exception, SystemExit)


class SrghnError(Exception):
    """Base of all errors meant for a user's eyes."""

    exit_code: int = 3


class ConfigError(SrghnError):
    """A setting or parameter is unknown, mistyped or out of range."""


class GraphError(SrghnError):
    """A module cannot be read as a computational graph."""


class ArchitectureMismatch(GraphError):
    """A checkpoint or genome was made for another architecture."""


class EnvVersionError(SrghnError):
    """An environment cannot be built, pinned or run as described."""


class FingerprintMismatch(EnvVersionError):
    """Results of two different environments were about to be mixed."""


class ObservationError(SrghnError):
    """An observation is not of the shape, the names or the values that its environment gives."""


class EvaluationError(SrghnError):
    """Episodes could not be evaluated."""


class CheckpointError(SrghnError):
    """A checkpoint is missing, torn or tampered with."""


class ArtefactError(SrghnError):
    """A stored file is missing or does not have the digest it should have."""


class ReplayMismatch(SrghnError):
    """A rebuilt individual differs from the recorded one."""

    exit_code = 1


class GateError(SrghnError):
    """The gate cannot judge: its attempts are used up, or its inputs contradict each other."""


class LedgerError(SrghnError):
    """The ledger cannot be read or written."""


class TransitionRefused(LedgerError):
    """The state machine does not allow this step; nothing was changed."""

    exit_code = 1


class StaleGeneration(TransitionRefused):
    """The champion changed since the caller last looked (compare-and-set failed)."""


class ServiceError(SrghnError):
    """A server this process needs did not start, or cannot be reached."""


def expect(value: object, kind: type[T], what: str, hint: str) -> T:
    """The value, if it is of that kind; raises `ConfigError` that names both and tells the hint."""
    if isinstance(value, kind):
        return value
    raise ConfigError(f"{what}: expected {kind.__name__}, got {type(value).__name__}; {hint}")


def expect_function(value: object, what: str) -> None:
    """Raises `ConfigError`, which names `what`, for a callback, if any, that cannot be called."""
    if value is not None and not callable(value):
        raise ConfigError(f"{what}: expected a function, got {value!r}")


def one_line(error: BaseException) -> str:
    """An exception's words without line breaks, at most 300 characters; without any, its place."""
    text = " ".join(str(error).split()) or _place(error)
    return text if len(text) <= 300 else f"{text[:297]}..."


def first_line(error: BaseException) -> str:
    """The first line of an exception's words, where the rest is detail; without any, its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def is_full(error: BaseException | None) -> bool:
    """Whether an exception, or one behind it, tells of a disk or a quota without room."""
    while error is not None:
        number, name = getattr(error, "errno", None), getattr(error, "sqlite_errorname", "")
        if number in (errno.ENOSPC, errno.EDQUOT) or name == "SQLITE_FULL":
            return True
        if isinstance(error, OSError) and "No space left on device" in str(error):
            return True  # pyarrow's has no number
        error = error.__cause__ or error.__context__
    return False


def _place(error: BaseException) -> str:
    """Where an exception that says nothing was raised, such as a bare assertion's."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "no reason given"
    last = frames[-1]
    return f"{last.line} ({Path(last.filename).name}, line {last.lineno})"
