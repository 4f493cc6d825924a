"""Candidates and reports by digest, in a home's folders and in the store that hosts may share.

A candidate is copied to a temporary folder, verified, synced and renamed to its digest. So a folder
with a digest's name is always complete. It is verified again at every read. If hosts share a store,
everything is written there before the ledger refers to it, and what is missing or damaged in this
home is fetched from there and checked by its digests.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.registry import reports
from serving.registry.remote import ObjectMissing, Remote
from srghn.candidates.candidate import FILES, MANIFEST, Candidate
from srghn.errors import ArtefactError
from srghn.files import atomic_write, one_at_a_time, sync_folder

if TYPE_CHECKING:
    from serving.registry.records import Version
    from serving.settings import Settings

logger = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Folders in a home and in a shared store.
CANDIDATES, REPORTS, WORLDS = "artefacts", "reports", "envs"


class ArtefactStore:
    """`put` a candidate's folder, get its `path` by digest; the same for reports.

    `folder` is the home's folder of candidates; reports lie beside it.
    """

    def __init__(self, folder: Path, remote: Remote | None = None) -> None:
        self.folder, self.remote = folder, remote
        self._home = folder.parent

    # -------------------------------------------------------------------------- candidates

    def put(self, source: Path) -> str:
        """Store a candidate; returns its digest. Storing it again mends it, if it is damaged here.

        Raises `ArtefactError` if a file is missing or was changed, or if a store cannot be written.
        """
        try:
            with _aside(self.folder) as aside:
                digest = self._put(source, aside)
        except OSError as error:
            raise ArtefactError(
                f"cannot store {source} in {self.folder}: {error.strerror or error}; check that "
                f"the folder can be written and has room"
            ) from error
        self.push(digest)
        return digest

    def path(self, digest: str) -> Path:
        """The folder of a stored candidate, verified now; raises `ArtefactError`."""
        return self.load(digest).path

    def load(self, digest: str) -> Candidate:
        """A stored candidate, with every file checked against `digest`; raises `ArtefactError`."""
        if not _DIGEST.fullmatch(digest):
            raise ArtefactError(f"a digest is 64 hexadecimal digits, got {digest!r}")
        try:
            return self._checked(digest)
        except ArtefactError as error:
            if self.remote is None:
                raise
            if self.has_here(digest):
                logger.warning("%s; it is fetched again from %s", error, self.remote.url)
        self._install(self.folder / digest, self.read(digest))
        return self._checked(digest)

    def has_here(self, digest: str) -> bool:
        """Whether this home has its folder, whole or not."""
        return (self.folder / digest).is_dir()

    def is_whole_here(self, digest: str) -> bool:
        """Whether this home has it, unchanged."""
        try:
            self._checked(digest)
        except ArtefactError:
            return False
        return True

    def has(self, digest: str) -> bool:
        """Whether this home or the shared store has it."""
        if self.has_here(digest):
            return True
        return self.remote is not None and bool(self.remote.names(f"{CANDIDATES}/{digest}"))

    def push(self, digest: str) -> None:
        """Write a candidate of this home to the shared store, if there is one; manifest last."""
        if self.remote is not None:
            self._upload(CANDIDATES, self._checked(digest).path, (*FILES, MANIFEST))

    def read(self, digest: str) -> dict[str, bytes]:
        """The files of a candidate in the shared store, each checked; raises `ArtefactError`."""
        assert self.remote is not None
        where = f"{CANDIDATES}/{digest}"
        manifest = self.remote.get(f"{where}/{MANIFEST}", digest)
        said = json.loads(manifest)
        files = {n: self.remote.get(f"{where}/{n}", str(said.get(key))) for n, key in FILES.items()}
        return {**files, MANIFEST: manifest}

    # ----------------------------------------------------------------------------- reports

    def report(self, verdict: Mapping[str, Any]) -> Path:
        """The folder of the report that a verdict of the ledger names.

        What is not here as the verdict says is fetched. Without a shared store, or where that one
        has no report of this digest, the folder is whatever it is here.
        """
        folder = reports.folder(self._home, str(verdict.get("report_digest")))
        if self.remote is None or reports.problem(folder, verdict) is None:
            return folder
        try:
            self._install(folder, self.read_report(verdict))
        except ObjectMissing:
            if folder.is_dir():  # written before there was a shared store
                return folder
            raise
        return folder

    def push_report(self, digest: str) -> None:
        """Write a report of this home to the shared store, if there is one: the page last."""
        if self.remote is not None:
            folder = reports.folder(self._home, digest)
            names = sorted(path.name for path in folder.iterdir() if path.name != reports.PAGE)
            self._upload(REPORTS, folder, (*names, reports.PAGE))

    def read_report(self, verdict: Mapping[str, Any]) -> dict[str, bytes]:
        """The files of a report in the shared store, each that the verdict names checked.

        A verdict of version 0.2 names the page alone, which vouches for the files beside it.
        """
        assert self.remote is not None
        where, known = f"{REPORTS}/{verdict.get('report_digest')}", reports.digests(verdict)
        others = () if verdict.get("evidence") else set(self.remote.names(where)) - set(known)
        files = {name: self.remote.get(f"{where}/{name}", sha) for name, sha in known.items()}
        return files | {name: self.remote.get(f"{where}/{name}", None) for name in others}

    # ------------------------------------------------------------------------------ worlds

    def push_world(self, fingerprint: str) -> None:
        """Write a pinned environment of this home to the shared store, if there is one."""
        if self.remote is not None:
            self._upload("", self._home / WORLDS, (f"{fingerprint}.json",))

    def world(self, fingerprint: str) -> Path:
        """The file of a pinned environment, fetched if it is not here; it checks itself."""
        path = self._home / WORLDS / f"{fingerprint}.json"
        if self.remote is not None and not path.exists():
            atomic_write(path, self.remote.get(f"{WORLDS}/{path.name}", None))
        return path

    def judged_in(self, found: Version) -> Path:
        """The file of a version's environment: its own, or the one that it was recalled to.

        Raises `ArtefactError`.
        """
        own = self.path(found.digest) / "env_version.json"
        if found.recall_of is None:
            return own
        here = json.loads(own.read_bytes()).get("fingerprint") == found.env_fingerprint
        return own if here else self.world(found.env_fingerprint)

    def modes(self, found: Version) -> tuple[str, ...]:
        """The modes of a version's environment; empty if they cannot be read."""
        try:
            said = json.loads(self.judged_in(found).read_bytes())
            return tuple(map(str, said["modes"]))
        except (OSError, ValueError, LookupError, TypeError, ArtefactError):
            return ()

    def _upload(self, kind: str, folder: Path, names: tuple[str, ...]) -> None:
        assert self.remote is not None
        for name in names:
            self.remote.put(
                f"{kind}/{folder.name}/{name}".lstrip("/"), (folder / name).read_bytes()
            )

    def _checked(self, digest: str) -> Candidate:
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

    def _install(self, target: Path, files: Mapping[str, bytes]) -> None:
        """Put fetched files in their place, and in the place of a damaged folder."""
        try:
            with _aside(target.parent) as aside:
                for name, data in files.items():
                    atomic_write(aside / name, data)
                replace(target, aside)
            sync_folder(target.parent)
        except OSError as error:
            if target.is_dir():
                return  # another process fetched it first
            raise ArtefactError(
                f"cannot keep {target}: {error.strerror or error}; check that the folder can be "
                "written and has room"
            ) from error

    def _put(self, source: Path, aside: Path) -> str:
        for name in (MANIFEST, *FILES):
            if not (source / name).is_file():
                raise ArtefactError(f"{source / name} is missing from the candidate")
            shutil.copyfile(source / name, aside / name)
        sync_tree(aside)
        digest = Candidate.load(aside).digest
        with storing(self._home):
            try:
                aside.chmod(0o755)
                os.rename(aside, self.folder / digest)
            except OSError:
                if not self.has_here(digest):
                    raise
                if self.is_whole_here(digest):
                    touch(self.folder / digest / MANIFEST)
                else:
                    said = "candidate %s… was damaged here; it is stored again"
                    logger.warning(said, digest[:16])
                    replace(self.folder / digest, aside)
        sync_folder(self.folder)
        return digest


def store_of(settings: Settings, patience: float | None = None) -> ArtefactStore:
    """The store of a home, with the shared one if a setting names it.

    `patience`: seconds that a shared one which is away is waited for; default the setting's.
    """
    waits = settings.store_seconds if patience is None else patience
    remote = Remote(settings.store_url, waits) if settings.store_url else None
    return ArtefactStore(settings.artefacts, remote)


@contextmanager
def storing(home: Path) -> Iterator[None]:
    """Look whether a home has something and date it now, while `srghn prune` removes nothing.

    What is fetched needs it not: it can be fetched again. Raises `ConfigError` if another process
    keeps the lock.
    """
    with one_at_a_time(home / ".store.lock"):
        yield


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder to write in; what is left of it is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".put.", dir=folder))
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def replace(target: Path, aside: Path) -> None:
    """Put a folder that was written aside in its place, and in the place of a damaged one."""
    aside.chmod(0o755)
    damaged = aside.with_name(f"{aside.name}.old")
    if target.is_dir():
        os.rename(target, damaged)
    os.rename(aside, target)
    shutil.rmtree(damaged, ignore_errors=True)


def touch(path: Path) -> None:
    """Date a file now: `srghn prune` leaves what is young, and the ledger is about to cite it."""
    with suppress(OSError):  # another user's
        os.utime(path)


def sync_tree(folder: Path) -> None:
    """Make a folder with all that is in it last through a power cut, before it is renamed."""
    for path in (*folder.rglob("*"), folder):
        sync_folder(path)  # a file is synced by the same call
