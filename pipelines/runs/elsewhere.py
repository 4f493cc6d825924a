"""The folder that worlds and networks work in: a run's own, not the one a command was given in."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from srghn.errors import SrghnError

#: How Python says that a relative path leads nowhere.
_RELATIVE = re.compile(r"No such file or directory: ['\"](?!/)")


def explained(said: str, folder: str = "a folder of their own") -> str:
    """An error's words; where a file was sought by a relative path, with what to do."""
    if not _RELATIVE.search(said):
        return said
    return f"{said}; runs work in {folder}: open files relative to __file__"


@contextmanager
def elsewhere() -> Iterator[None]:
    """Work in an empty folder, as a run's stages do.

    The whole process does, so this is for a command that does nothing beside it. What is raised
    says more where a file was not found by a relative path.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        try:
            yield
        except SrghnError as error:
            error.args = (explained(str(error)), *error.args[1:])
            raise
