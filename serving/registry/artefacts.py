"""Stores candidates by digest, in a folder that nothing else writes to.

A candidate is copied to a temporary folder, verified, synced and renamed to its digest. So a folder
with a digest's name is always complete. It is verified again at every read.
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

        Raises `ArtefactError`, and stores nothing, if a file is missing or was changed, or if the
        store cannot be written.
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
        """A stored candidate, with every file checked against `digest`; raises `ArtefactError`."""
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
            self.load(digest)  # stored before: check it; an error names the bad file
        sync_folder(self.folder)
        return digest


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
