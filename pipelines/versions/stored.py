"""What the ledger refers to, in the artefact store that hosts share: checked, pushed, pulled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.versions.release import Release
from serving.registry import reports
from serving.registry.artefacts import CANDIDATES, REPORTS, ArtefactStore
from serving.registry.remote import Remote, StoreAway
from srghn.errors import ArtefactError, ConfigError


@dataclass(frozen=True)
class Cited:
    """A folder of a candidate, or of a report with the verdict that names its files."""

    kind: str
    digest: str
    verdict: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.digest}"


@dataclass(frozen=True)
class Stored:
    """The candidates and reports of a ledger; raises `ConfigError` without a shared store."""

    release: Release

    @property
    def store(self) -> ArtefactStore:
        return self.release.store

    @property
    def remote(self) -> Remote:
        found = self.store.remote
        if found is None:
            raise ConfigError(
                "no artefact store is shared: set SRGHN_STORE_URL, such as s3://BUCKET/PREFIX or "
                "file:///FOLDER"
            )
        return found

    def cited(self) -> Iterator[Cited]:
        """Each candidate that is a version, and each report of a verdict that there ever was."""
        ledger = self.release.ledger
        for digest in dict.fromkeys(version.digest for version in ledger.versions()):
            yield Cited(CANDIDATES, digest)
        judged = [event for event in ledger.events() if event.action == "record_verdict"]
        verdicts = [ledger.evidence(str(event.evidence_sha256)) for event in judged]
        for digest, verdict in {str(each["report_digest"]): each for each in verdicts}.items():
            yield Cited(REPORTS, digest, verdict)

    def absent(self) -> tuple[list[str], int]:
        """Names of folders that the shared store lacks, and how many there must be.

        Two listings; no object is read.
        """
        there = {f"{kind}/{n}" for kind in (CANDIDATES, REPORTS) for n in self.remote.names(kind)}
        names = [each.name for each in self.cited()]
        return [name for name in names if name not in there], len(names)

    def problems(self) -> tuple[list[str], int]:
        """What is wrong in the shared store, with every object read, and of how many folders.

        Raises `StoreAway` where the store does not answer.
        """
        assert self.remote
        found = [(each, self.problem(each)) for each in self.cited()]
        return [wrong for _, wrong in found if wrong is not None], len(found)

    def problem(self, cited: Cited) -> str | None:
        """What is wrong with one folder in the shared store, or None."""
        try:
            if cited.kind == CANDIDATES:
                self.store.read(cited.digest)
            else:
                self.store.read_report(cited.verdict)
        except StoreAway:
            raise
        except ArtefactError as error:
            return str(error)
        return None

    def push(self) -> tuple[list[str], list[str]]:
        """Write what is wrong there and whole here; returns names, and what stays wrong.

        Raises `StoreAway`.
        """
        assert self.remote
        pushed, wrong = [], []
        for each in self.cited():
            there = self.problem(each)
            if there is None:
                continue
            if not self._whole_here(each):
                wrong.append(there)
                continue
            if each.kind == CANDIDATES:
                self.store.push(each.digest)
            else:
                self.store.push_report(each.digest)
            pushed.append(each.name)
        return pushed, wrong

    def pull(self) -> int:
        """Have all of it in this home; returns how many folders that is. Raises `ArtefactError`."""
        assert self.remote
        count = 0
        for count, each in enumerate(self.cited(), start=1):  # noqa: B007
            if each.kind == CANDIDATES:
                self.store.load(each.digest)
            else:
                self.store.report(each.verdict)
        return count

    def _whole_here(self, cited: Cited) -> bool:
        if cited.kind == REPORTS:
            folder = reports.folder(self.release.settings.home, cited.digest)
            return reports.problem(folder, cited.verdict) is None
        return self.store.is_whole_here(cited.digest)
