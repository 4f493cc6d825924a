"""Candidates by digest, in a folder that nothing else writes to.

A candidate is copied aside, verified there, synced and renamed to its digest; so a folder of that
name is whole, whatever happened while it was made. It is verified again whenever it is asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from srghn.candidates.candidate import FILES, MANIFEST, Candidate
from srghn.errors import ArtefactError
from srghn.files import sync_folder

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtefactStore:
    """`put` a candidate's folder, get its `path` by digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, source: Path) -> str:
        """Store a candidate; returns its digest. Storing it again changes nothing.

        Raises `ArtefactError` if a file is missing or tampered with, or the store cannot be
        written; then nothing is stored.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=".put.", dir=self.folder))
            try:
                return self._put(source, aside)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        except OSError as error:
            raise ArtefactError(
                f"cannot store {source} in {self.folder}: {error.strerror or error}; check that "
                f"the folder can be written and has room"
            ) from error

    def path(self, digest: str) -> Path:
        """The folder of a stored candidate, verified now; raises `ArtefactError`."""
        return self.load(digest).path

    def load(self, digest: str) -> Candidate:
        """A stored candidate, every file of it checked against `digest`."""
        if not _DIGEST.fullmatch(digest):
            raise ArtefactError(f"a digest is 64 hexadecimal digits, got {digest!r}")
        folder = self.folder / digest
        if not folder.is_dir():
            raise ArtefactError(
                f"candidate {digest[:16]}… is not in {self.folder}; restore the folder from a "
                f"backup, or store the candidate again"
            )
        candidate = Candidate.load(folder)
        if candidate.digest != digest:
            raise ArtefactError(
                f"{folder / MANIFEST} was changed: expected sha256 {digest}, "
                f"got {candidate.digest}; restore it, or store the candidate again"
            )
        return candidate

    def _put(self, source: Path, aside: Path) -> str:
        for name in (MANIFEST, *FILES):
            if not (source / name).is_file():
                raise ArtefactError(f"{source / name} is missing from the candidate")
            shutil.copyfile(source / name, aside / name)
            _sync(aside / name)
        sync_folder(aside)
        digest = Candidate.load(aside).digest
        try:
            aside.chmod(0o755)
            os.rename(aside, self.folder / digest)
        except OSError:
            if not (self.folder / digest).is_dir():
                raise
            self.load(digest)  # stored before: whole, or an error that names what is wrong
        sync_folder(self.folder)
        return digest


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
