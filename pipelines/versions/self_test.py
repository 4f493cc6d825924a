"""`srghn gate VERSION --self-test`: would this gate, in this world, refuse what it must refuse?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from pipelines.runs.workspaces import open_workspace
from pipelines.versions.judge import recorded
from pipelines.versions.release import Release
from regression_suite.gate import judge
from regression_suite.known_bad.makers import KNOWN_BAD, Work, random_policy, seal
from regression_suite.known_bad.trial import Row, rules, try_gate
from regression_suite.suite import policy_digest, suite_version
from serving.registry.database import Database
from serving.registry.ledger import Ledger
from serving.registry.records import Who
from serving.settings import Settings
from srghn.candidates.candidate import Candidate
from srghn.config import GateParams
from srghn.errors import ArtefactError, TransitionRefused

RETRY = "lucky by retry"
WHO = Who("self-test", "a known-bad candidate")


#: Candidates that are judged: the version itself, those that are made of it, and the retried one.
STEPS = len(KNOWN_BAD) + 2


def self_test(
    settings: Settings, version: int, say: Callable[[int, str], None] = lambda done, text: None
) -> list[Row]:
    """Judge known-bad candidates made of a version that passed, by its own rules, beside it.

    All of it happens in a folder that is removed, with a ledger of its own: this home's ledger is
    only read. Raises `TransitionRefused` for a version that never passed.
    """
    release = Release(settings)
    found, verdict = release.ledger.version(version), recorded(release, version)
    if verdict is None or not verdict.passed:
        raise TransitionRefused(
            f"version {version} is {found.state} and its last verdict is no pass; known-bad "
            "candidates are made of one that passed: srghn candidates"
        )
    if found.recall_of is not None:
        raise TransitionRefused(
            f"version {version} is a recall of {found.recall_of}; take one that was evolved"
        )
    world = release.require_world(version)
    workspace = open_workspace(settings, found.run_id)
    if not workspace.run.is_dir():
        raise ArtefactError(f"run {found.run_id} has no tables any more; take a later version")
    good = release.store.load(found.digest)
    work = Work(good, world, verdict.mode, workspace.params().gate)
    with tempfile.TemporaryDirectory(prefix="srghn-self-test-") as folder:
        scratch = Path(folder)
        rows = try_gate(work, workspace.run, scratch, say)
        say(STEPS - 1, RETRY)
        return [*rows, _retry(work, workspace.run, scratch)]


def _retry(work: Work, run_dir: Path, scratch: Path) -> Row:
    """A genome that failed, sent in again under a manifest with one more key."""
    ledger = Ledger(Database(f"sqlite:///{scratch / 'ledger.db'}", home=scratch))
    params, folder = rules(work, cells=False), scratch / "unlucky"
    random_policy(work, folder)
    number = _register(ledger, work, folder)
    state = _judged(ledger, work, params, run_dir, folder, number)
    seal(folder, {"note": "another manifest, the same genome"})
    again = _register(ledger, work, folder)
    what, must = "failed, sent in again with another manifest", "be refused by the ledger"
    try:
        _begin(ledger, work, params, again)
    except TransitionRefused as refusal:
        return Row(RETRY, what, must, "refused", state == "FAILED", str(refusal))
    return Row(RETRY, what, must, "taken", False, f"version 1 is {state}; 2 may be judged anew")


def _register(ledger: Ledger, work: Work, folder: Path) -> int:
    candidate = Candidate.load(folder)
    return ledger.register(
        candidate.digest,
        env_fingerprint=work.version.fingerprint,
        mode=work.mode,
        run_id="self-test",
        manifest=candidate.manifest,
        who=WHO,
    )


def _begin(ledger: Ledger, work: Work, params: GateParams, number: int) -> str:
    begun = ledger.begin_evaluation(
        number,
        suite_version=suite_version(params, work.version),
        policy_digest=policy_digest(params),
        who=WHO,
        max_attempts=params.attempts,
    )
    return str(begun.lease)


def _judged(
    ledger: Ledger, work: Work, params: GateParams, run_dir: Path, folder: Path, number: int
) -> str:
    """The state of a candidate after it was judged as a first champion: there is none here."""
    lease, out = _begin(ledger, work, params, number), folder.parent / "unlucky report"
    verdict = judge(
        folder,
        work.version,
        work.mode,
        params,
        out,
        incumbent_dir=None,
        run_dir=run_dir,
        lease=lease,
    )
    page = out / "report.html"
    ledger.record_verdict(
        number,
        verdict.to_dict(),
        report_path=page,
        report_digest=verdict.report_digest,
        who=WHO,
    )
    return str(ledger.version(number).state)
