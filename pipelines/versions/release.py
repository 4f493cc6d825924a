"""From a judged candidate to what is served: the steps between the pipeline and the ledger.

Each step carries an idempotency key made of the run's id, so a run that is started again after a
crash repeats none of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipelines.runs.workspaces import Workspace
from pipelines.tracking.store import prepare_store
from serving.registry.artefacts import ArtefactStore
from serving.registry.database import Database
from serving.registry.ledger import Ledger
from serving.registry.mirror import Mirror
from serving.registry.records import Champion, Version, Who
from serving.registry.states import State
from serving.settings import Settings
from srghn.candidates.candidate import Candidate
from srghn.config import CanaryParams, GateParams
from srghn.envs import EnvVersion, verify
from srghn.errors import FingerprintMismatch
from srghn.files import sync_folder
from srghn.inference.verdict import Verdict

Approval = Literal["auto", "manual"]
PIPELINE, POLICY = "pipeline", "policy:auto"


@dataclass(frozen=True)
class Release:
    """The ledger and the stores of one home folder."""

    settings: Settings

    @cached_property
    def ledger(self) -> Ledger:
        database = Database(self.settings.database_url, home=self.settings.home)
        return Ledger(database, witness_key=self.settings.witness_key)

    @property
    def store(self) -> ArtefactStore:
        return ArtefactStore(self.settings.artefacts)

    def mirror(self) -> Mirror:
        """MLflow as a window on the ledger; an embedded store's folder is made."""
        prepare_store(self.settings)
        return Mirror(self.ledger, self.settings.mlflow_uri)

    def reports(self, digest: str) -> Path:
        return self.settings.reports / digest

    def report_page(self, version: int) -> Path | None:
        """A version's report in this home, wherever the version was judged; None before that."""
        digest = self.ledger.version(version).report_digest
        return self.reports(digest) / "report.html" if digest else None

    def require_world(self, version: int) -> None:
        """Check that the world here is still the one that a version was evolved in.

        The server cannot: it has no environments. So it is done before each step that leads a
        version towards service; a rollback, which must work in an emergency, needs it not. Raises
        `FingerprintMismatch` naming both fingerprints and what moved.
        """
        found = self.ledger.version(version)
        world = EnvVersion.load(self.store.path(found.digest) / "env_version.json")
        if world.fingerprint != found.env_fingerprint:
            raise FingerprintMismatch(
                f"version {version} is recorded for world {found.env_fingerprint}, its own record "
                f"of the world is {world.fingerprint}; freeze the candidate again"
            )
        verify(world)

    # ------------------------------------------------------------------------------ register

    def register(self, candidate_dir: Path, run_id: str) -> int:
        """Store a candidate by its digest and give it a version number."""
        ledger = self.ledger  # before the store: a store without its ledger is a lost ledger
        digest = self.store.put(candidate_dir)
        candidate = Candidate.load(candidate_dir)
        return ledger.register(
            digest,
            env_fingerprint=candidate.env_fingerprint,
            mode=candidate.mode,
            run_id=run_id,
            manifest=candidate.manifest,
            who=Who(PIPELINE, f"candidate of run {run_id}"),
        )

    def incumbent(self) -> Champion | None:
        return self.ledger.champion()

    # ------------------------------------------------------------------------------- verdict

    def begin(self, version: int, params: GateParams, key: str) -> int:
        """Take the lease to judge a version against the champion of now; returns the attempt.

        With the key of an attempt that was cut off before its verdict, that one goes on.
        """
        self.require_world(version)
        from regression_suite.gate import policy_digest
        from regression_suite.suite import SUITE_VERSION

        rules: dict[str, Any] = {
            "suite_version": SUITE_VERSION,
            "policy_digest": policy_digest(params),
        }
        rival = params.incumbent
        begun = [e for e in self.ledger.events(version) if e.action == "begin_evaluation"]
        for attempt, event in enumerate(begun, start=1):
            if event.idempotency_key == f"{key}:begin":
                why = "judge on: the process that held the lease is gone"
                self.ledger.resume_evaluation(
                    version,
                    attempt=attempt,
                    incumbent_digest=rival,
                    who=Who(PIPELINE, why),
                    **rules,
                )
                return attempt
        return self.ledger.begin_evaluation(
            version,
            incumbent_digest=rival,
            max_attempts=params.attempts,
            who=Who(PIPELINE, "judge the frozen candidate on fresh episodes", f"{key}:begin"),
            **rules,
        ).attempt

    def recorded(self, version: int) -> Verdict | None:
        """The verdict of the last evaluation; None while it is without one, or was never begun."""
        steps = ("begin_evaluation", "record_verdict")
        judging = [e for e in self.ledger.events(version) if e.action in steps]
        if not judging or judging[-1].evidence_sha256 is None:
            return None
        return Verdict.from_dict(self.ledger.evidence(judging[-1].evidence_sha256))

    def record(self, version: int, report_dir: Path, key: str) -> Verdict:
        """Keep the report under its digest, then the verdict that cites it in the ledger."""
        verdict = Verdict.from_json((report_dir / "verdict.json").read_bytes())
        kept = self.reports(verdict.report_digest)
        if not kept.exists():
            _copy_whole(report_dir, kept)
        self.ledger.record_verdict(
            version,
            verdict.to_dict(),
            report_path=kept / "report.html",
            report_digest=verdict.report_digest,
            who=Who("gate", verdict.summary, f"{key}:verdict"),
        )
        return verdict

    # ------------------------------------------------------------------------------- release

    def release(self, version: int, canary: CanaryParams, key: str) -> None:
        """What the policy does with a pass: approve it, then first champion or canary."""
        found = self.ledger.version(version)
        if found.state is State.PASSED:
            self.approve(version, POLICY, "passed the gate; policy: approve", f"{key}:approve")
        if self.ledger.version(version).state is State.APPROVED:
            self.introduce(version, canary, POLICY, "approved; policy: introduce", key)

    def approve(self, version: int, actor: str, reason: str, key: str | None = None) -> None:
        self.require_world(version)
        found = self.ledger.version(version)
        self.ledger.approve(
            version,
            report_digest=str(found.report_digest),
            who=Who(actor, reason, key),
        )

    def introduce(
        self, version: int, canary: CanaryParams, actor: str, reason: str, key: str | None = None
    ) -> State:
        """An approved version becomes the first champion, or goes on trial beside the champion."""
        if self.ledger.champion() is None:
            self.promote(version, actor, reason, key)
        else:
            self.start_canary(version, canary, actor, reason, key)
        return self.ledger.version(version).state

    def promote(self, version: int, actor: str, reason: str, key: str | None = None) -> Champion:
        self.require_world(version)
        champion = self.ledger.champion()
        return self.ledger.promote(
            version,
            expected_generation=champion.generation if champion else 0,
            who=Who(actor, reason, f"{key}:promote" if key else None),
        )

    def start_canary(
        self, version: int, canary: CanaryParams, actor: str, reason: str, key: str | None = None
    ) -> None:
        from serving.control.loading import proof

        self.require_world(version)
        candidate = self.store.load(self.ledger.version(version).digest)
        self.ledger.start_canary(
            version,
            params=canary,
            loaded=proof(candidate),
            who=Who(actor, reason, f"{key}:canary" if key else None),
        )


def outcome(
    workspace: Workspace,
    version: Version,
    verdict: Verdict,
    manifest: Mapping[str, Any],
    report: Path | None,
) -> dict[str, Any]:
    """The one JSON object that `srghn run --json` ends with."""
    return {
        "run_id": workspace.name,
        "version": version.version,
        "candidate_digest": version.digest,
        "genome_digest": manifest["genome_digest"],
        "lineage_digest": manifest["lineage_digest"],
        "env_fingerprint": version.env_fingerprint,
        "mode": version.mode,
        "generation": manifest["generation"],
        "verdict": verdict.verdict,
        "bound_by": verdict.bound_by,
        "summary": verdict.summary,
        "state": str(version.state),
        "report": str(report) if report else None,
        "workspace": str(workspace.root),
    }


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a folder so that `target` is whole or absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".report.", dir=target.parent))
    shutil.copytree(source, aside, dirs_exist_ok=True)
    aside.chmod(0o755)
    try:
        aside.rename(target)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)  # another process put it there first
        if not target.is_dir():
            raise
    sync_folder(target.parent)
