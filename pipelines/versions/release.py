"""From a judged candidate to what is served: the steps between the pipeline and the ledger.

Each step carries an idempotency key made of the run's id, so a run that is started again after a
crash repeats none of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Literal

from pipelines.runs.target import DEFAULT_TARGET, Target
from pipelines.runs.workspaces import Workspace, find_workspace
from pipelines.tracking.store import artifacts, prepare_store
from pipelines.versions.people import actor
from serving.control import release as steps
from serving.registry.artefacts import ArtefactStore, store_of
from serving.registry.database import Database
from serving.registry.guards import check_change
from serving.registry.interfaces import SUCCESSOR, difference
from serving.registry.ledger import Ledger
from serving.registry.mirror import Mirror
from serving.registry.names import DEFAULT
from serving.registry.records import Champion, Version, Who
from serving.registry.states import WON, State, check_step
from serving.settings import Settings
from srghn.candidates.candidate import Candidate
from srghn.config import CanaryParams, RunParams
from srghn.envs import EnvVersion, verify
from srghn.errors import FingerprintMismatch, ServiceError, TransitionRefused
from srghn.inference.verdict import Verdict

logger = logging.getLogger(__name__)

Approval = Literal["auto", "manual"]
PIPELINE, POLICY = "pipeline", "policy:auto"
#: The sections of the parameters that decide the bytes of a candidate.
MAKE_A_CANDIDATE = ("env", "network", "ghn", "evolution", "evaluate")


@dataclass(frozen=True)
class Release:
    """The ledger and the stores of one home folder, or those that hosts share."""

    settings: Settings

    @cached_property
    def ledger(self) -> Ledger:
        database = Database(self.settings.database_url, home=self.settings.home)
        return Ledger(database, witness_key=self.settings.witness_key)

    @property
    def store(self) -> ArtefactStore:
        return store_of(self.settings)

    def mirror(self) -> Mirror:
        """MLflow as a window on the ledger; an embedded store's folder is made.

        Raises `ServiceError` where an embedded store cannot be used.
        """
        prepare_store(self.settings)
        root = artifacts(self.settings) if self.settings.mlflow_is_embedded else None
        return Mirror(self.ledger, self.settings.mlflow_uri, store=self.store, artifacts=root)

    def deliver(self) -> None:
        """Show in MLflow what the ledger has. Where that fails, one line says why.

        It follows steps that were taken, so it stops nobody.
        """
        try:
            mirror = self.mirror()
        except ServiceError as error:
            logger.warning("what was done stands, and is not shown in MLflow yet: %s", error)
        else:
            mirror.deliver()  # tells the same of any other failure

    def reports(self, digest: str) -> Path:
        return self.settings.reports / digest

    def report_page(self, version: int) -> Path | None:
        """A version's report in this home, wherever the version was judged; None before that."""
        verdict = self.ledger.verdict(version)
        return self.store.report(verdict) / "report.html" if verdict else None

    def world(self, found: Version) -> EnvVersion:
        """The world that a version is judged in: its own, or the one that it was recalled to."""
        return EnvVersion.load(self.store.judged_in(found))

    def require_world(self, version: int) -> EnvVersion:
        """The world that a version was evolved in, once it is known to be still the one here.

        The server cannot: it has no environments. So it is done before each step that leads a
        version towards service; a rollback, which must work in an emergency, needs it not. Raises
        `FingerprintMismatch` naming both fingerprints and what moved.
        """
        found = self.ledger.version(version)
        world = self.world(found)
        if world.fingerprint != found.env_fingerprint:
            raise FingerprintMismatch(
                f"version {version} is recorded for environment {found.env_fingerprint}, its "
                f"env_version.json is {world.fingerprint}; freeze the candidate again"
            )
        verify(world)
        return world

    def require_standing(self, version: int) -> None:
        """Refuse a pass whose environment, gate rules or suite changed; the latter make it STALE.

        The rules are those of the workspace that it was judged in; where that is gone, so is what
        could change. The server looks at neither: it has no environments and no workspaces.
        """
        world, found = self.require_world(version), self.ledger.version(version)
        own = found.run_id if found.recall_of is None else f"recall-{version}"
        workspace = find_workspace(self.settings, own)
        if workspace is None or found.state not in WON:
            return
        from regression_suite.suite import policy_digest, suite_version

        rules = workspace.params().gate
        now = {"gate rules": policy_digest(rules), "suite": suite_version(rules, world)}
        then = {"gate rules": found.policy_digest, "suite": found.suite_version}
        moved = " and ".join(name for name, digest in now.items() if digest != then[name])
        if moved:
            why = f"its {moved} changed since it passed"
            self.ledger.mark_stale(version, who=Who(PIPELINE, why))
            raise TransitionRefused(
                f"version {version} is STALE: {why}; judge it again: srghn gate {version}"
            )

    # ------------------------------------------------------------------------------ register

    def register(
        self,
        candidate_dir: Path,
        run_id: str,
        params: RunParams,
        target: Target = DEFAULT_TARGET,
    ) -> int:
        """Store a candidate by its digest and give it a version number under its policy.

        `params` are its run's: they say how its trial will run, and the ledger keeps that, so a
        workspace may go. The user of this process submits it: where the rules want two persons,
        another one approves it.
        """
        world = EnvVersion.load(candidate_dir / "env_version.json")
        trial = trial_rules(params, world)
        ledger = self.ledger  # before the store: a store without its ledger is a lost ledger
        digest = self.store.put(candidate_dir)
        candidate = Candidate.load(candidate_dir)
        manifest = {**candidate.manifest, **trial}
        if target.successor:
            manifest[SUCCESSOR] = True
        made = Who(PIPELINE, f"run {run_id} evolves for it")
        ledger.add_policy(target.policy, who=made)
        return ledger.register(
            digest,
            env_fingerprint=candidate.env_fingerprint,
            mode=candidate.mode,
            run_id=run_id,
            manifest=manifest,
            who=Who(PIPELINE, f"candidate of run {run_id}"),
            submitter=actor(),
            policy=target.policy,
        )

    def incumbent(self, policy: str = DEFAULT) -> Champion | None:
        return self.ledger.champion(policy)

    def rival(self, version: int) -> Champion | None:
        """Whom a version is judged against: its policy's champion, if they see the same things."""
        found = self.ledger.version(version)
        served, own = self.ledger.interface(found.policy), found.manifest.get("interface")
        if found.manifest.get(SUCCESSOR) and difference(served, own) is not None:
            return None
        return self.incumbent(found.policy)

    def require_interface(self, target: Target, interface: Mapping[str, Any]) -> None:
        """Refuse an interface that the policy's clients do not know, and say the ways out.

        Raises `TransitionRefused`. A policy that is yet to be made takes any.
        """
        if target.policy in {policy.name for policy in self.ledger.policies()}:
            served = self.ledger.interface(target.policy)
            check_change(target.policy, served, interface, target.successor)

    # ------------------------------------------------------------------------------- release

    def canary_rules(self, version: int) -> CanaryParams:
        """How a version's trial runs: as registered with it, or as its run's workspace says.

        Raises `TransitionRefused` where neither is there: before anything is recorded.
        """
        found = self.ledger.version(version)
        if steps.CANARY in found.manifest:
            return steps.canary_rules(found)
        workspace = find_workspace(self.settings, found.run_id)
        if workspace is None:
            return steps.canary_rules(found)
        from regression_suite.suite import trial_of

        return trial_of(workspace.params(), self.world(found))

    def release(self, version: int, key: str) -> None:
        """What the policy does with a pass: approve it, then first champion or canary."""
        state = self.ledger.version(version).state
        if state is State.PASSED:
            self.approve(version, POLICY, "passed the gate; policy: approve", key)
        elif state is State.APPROVED:
            self.require_standing(version)
            who = Who(POLICY, "approved; policy: introduce", key)
            steps.introduce(self.ledger, self.store, version, self.canary_rules(version), who)

    def approve(self, version: int, actor: str, reason: str, key: str | None = None) -> State:
        """Approve a pass; the first champion is promoted at once, a later one goes on trial."""
        found = self.ledger.version(version)
        check_step(version, found.state, State.APPROVED)
        rules = self.canary_rules(version)
        self.require_standing(version)
        return steps.approve(
            self.ledger,
            self.store,
            version,
            rules,
            report_digest=str(found.report_digest),
            who=Who(actor, reason, key),
        )

    def promote(self, version: int, actor: str, reason: str, key: str | None = None) -> Champion:
        self.require_standing(version)
        champion = self.incumbent(self.ledger.version(version).policy)
        return self.ledger.promote(
            version,
            expected_generation=champion.generation if champion else 0,
            who=Who(actor, reason, f"{key}:promote" if key else None),
        )

    def start_canary(
        self, version: int, actor: str, reason: str, weight: float | None = None
    ) -> None:
        """Begin the trial of an approved version, with its own share of episodes or `weight`."""
        check_step(version, self.ledger.version(version).state, State.CANARY)
        rules = self.canary_rules(version)
        if weight is not None:
            rules = rules.model_copy(update={"weight": weight})
        self.require_standing(version)
        who = Who(actor, reason)
        steps.start_canary(self.ledger, self.store, version, rules, who)

    def start_shadow(self, version: int, actor: str, reason: str) -> None:
        """An approved version answers a copy of the traffic."""
        check_step(version, self.ledger.version(version).state, State.SHADOW)
        self.require_standing(version)
        steps.start_shadow(self.ledger, self.store, version, Who(actor, reason))


def trial_rules(params: RunParams, world: EnvVersion) -> dict[str, Any]:
    """What the ledger's record of a version says of its trial: a range is a world's."""
    from regression_suite.suite import trial_of

    return {steps.CANARY: trial_of(params, world).model_dump(mode="json")}


def made_before(
    release: Release,
    params: RunParams,
    fingerprint: str,
    architecture: str,
    policy: str = DEFAULT,
) -> Version | None:
    """The version that a run of these parameters made in this environment; None where none did.

    `architecture` is the digest of the strategy that they name now: own code may have changed under
    the same name. Gate and canary rules do not matter, but for the cells by which its finalist was
    chosen. One that was made by another version of srghn is not looked at.
    """
    here = (fingerprint, architecture)
    for found in reversed(release.ledger.versions(policy)):
        manifest = found.manifest
        there = (found.env_fingerprint, manifest.get("architecture_digest"))
        if here != there or "params" not in manifest:
            continue
        same_code = manifest.get("packages", {}).get("srghn") == package_version("srghn")
        before = RunParams.model_validate(manifest["params"])
        same = all(getattr(before, s) == getattr(params, s) for s in MAKE_A_CANDIDATE)
        if same_code and same and _same_cells(release, found, params):
            return found
    return None


def _same_cells(release: Release, found: Version, params: RunParams) -> bool:
    """Whether its finalist was chosen by the cells that these parameters would choose by."""
    from regression_suite.suite import chosen_cells

    if not params.evaluate.cell_episodes:
        return True
    cells = chosen_cells(release.world(found), found.mode, params.gate) or ()
    before: list[str] = found.manifest.get("validation", {}).get("cells", [])
    return [cell.name for cell in cells] == before


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
        "policy": version.policy,
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
