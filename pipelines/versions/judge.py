"""From a candidate to its verdict in the ledger: the one way, for runs, `srghn gate` and the demo.

Begin takes a lease in the ledger and writes it to `data/lease.json`; the gate stage judges under
it; record keeps the report and writes the verdict. Each step carries an idempotency key, so an
evaluation that was killed goes on as the same attempt, on the same episodes.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.runs.workspaces import Workspace
from pipelines.versions.lease import Lease
from pipelines.versions.release import PIPELINE, Release
from serving.registry.artefacts import storing, sync_tree, touch
from serving.registry.judging import LEASE_SECONDS, PASS_SECONDS
from serving.registry.ledger import Ledger
from serving.registry.records import Event, Version, Who
from serving.registry.reports import CLOCK, TIMINGS
from serving.registry.states import TRANSITIONS, State
from serving.settings import Settings
from srghn.config import GateParams
from srghn.errors import SrghnError, TransitionRefused
from srghn.files import sha256_file, sync_folder
from srghn.inference.verdict import Verdict

logger = logging.getLogger(__name__)

#: Runs the gate stage in a workspace.
Sit = Callable[[Workspace, Settings], None]
#: What the report tells of an event.
SHOWN = ("seq", "version", "from_state", "to_state", "actor", "reason")


def through_dvc(workspace: Workspace, settings: Settings) -> None:
    workspace.run_stage("gate", settings)


def judge_version(
    release: Release, version: int, workspace: Workspace, key: str, sit: Sit = through_dvc
) -> Verdict:
    """Judge a version by its workspace's gate rules, against the current champion.

    With the `key` of an evaluation that was cut off before its verdict, that one goes on. Raises
    `TransitionRefused` where the version's state or its number of attempts allows no evaluation,
    `FingerprintMismatch` where its environment is no longer the pinned one.
    """
    lease = begin(release, version, workspace.params().gate, key)
    lease.save(workspace.lease)
    with _renewed(release, version, lease.attempt):
        sit(workspace, release.settings)
    return record(release, version, workspace.report, key)


@contextmanager
def _renewed(release: Release, version: int, attempt: int) -> Iterator[None]:
    """Keep the lease while the block runs: a gate may take longer than a lease."""
    over, who = threading.Event(), Who(PIPELINE, "judging is at work")
    ledger = release.ledger

    def renew() -> None:
        while not over.wait(LEASE_SECONDS / 3):
            try:
                ledger.renew_evaluation(
                    version, attempt=attempt, who=who, lease_seconds=LEASE_SECONDS
                )
            except SrghnError as error:  # away for a while; the next time may succeed
                logger.warning("cannot renew the lease of version %s: %s", version, error)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def require_judgeable(found: Version) -> None:
    """Raise `TransitionRefused` unless the version's state allows an evaluation, or has one."""
    if found.state is State.EVALUATING or State.EVALUATING in TRANSITIONS[found.state]:
        return
    if State.STALE in TRANSITIONS[found.state]:
        then = f"; if its pass no longer holds: srghn stale {found.version} --reason ..."
    else:
        then = "; evolve another candidate: srghn run"
    raise TransitionRefused(f"version {found.version} is {found.state} and is not judged{then}")


def begin(release: Release, version: int, rules: GateParams, key: str) -> Lease:
    """Take the lease to judge a version against the current champion, or resume it."""
    require_judgeable(release.ledger.version(version))
    world = release.require_world(version)
    from regression_suite.suite import policy_digest, suite_version

    champion = release.rival(version)
    frozen: dict[str, Any] = {
        "suite_version": suite_version(rules, world),
        "policy_digest": policy_digest(rules),
        "incumbent_digest": champion.digest if champion else None,
        "max_attempts": rules.attempts,
        "lease_seconds": LEASE_SECONDS,
    }
    attempt = _begun(release.ledger.events(version), key)
    if attempt is not None:
        who = Who(PIPELINE, "resume judging: the process that held the lease has ended")
        release.ledger.resume_evaluation(version, attempt=attempt, who=who, **frozen)
    else:
        who = Who(PIPELINE, "judge the frozen candidate on fresh episodes", f"{key}:begin")
        attempt = release.ledger.begin_evaluation(version, who=who, **frozen).attempt
    return _lease(release, version, attempt)


def record(release: Release, version: int, report_dir: Path, key: str) -> Verdict:
    """Keep the report under its digest, then the verdict that cites it in the ledger."""
    verdict = Verdict.from_json((report_dir / "verdict.json").read_bytes())
    kept = release.reports(verdict.report_digest)
    with storing(release.settings.home):
        here = kept.exists()
        if here:
            touch(kept / "report.html")
    if not here:
        _copy_whole(report_dir, kept)
    release.store.push_report(verdict.report_digest)
    release.ledger.record_verdict(
        version,
        verdict.to_dict() | _clock(kept),
        report_path=kept / "report.html",
        report_digest=verdict.report_digest,
        who=Who("gate", verdict.summary, f"{key}:verdict"),
    )
    return verdict


def recorded(release: Release, version: int) -> Verdict | None:
    """The verdict of the last evaluation; None while it is without one, or was never begun."""
    steps = ("begin_evaluation", "record_verdict")
    judging = [e for e in release.ledger.events(version) if e.action in steps]
    if not judging or judging[-1].action != "record_verdict":
        return None
    evidence = release.ledger.evidence(str(judging[-1].evidence_sha256))
    return Verdict.from_dict({k: v for k, v in evidence.items() if k != TIMINGS})


def _clock(kept: Path) -> dict[str, str]:
    """The digest of the timings, which differ each time: the event alone names it."""
    timings = kept / CLOCK
    return {TIMINGS: sha256_file(timings)} if timings.is_file() else {}


def _begun(events: Sequence[Event], key: str) -> int | None:
    """The attempt that was begun with this key."""
    begun = [event for event in events if event.action == "begin_evaluation"]
    for attempt, event in enumerate(begun, start=1):
        if event.idempotency_key == f"{key}:begin":
            return attempt
    return None


def _lease(release: Release, version: int, attempt: int) -> Lease:
    """The lease as the ledger holds it; a resumed attempt keeps the event that began it."""
    found, events = release.ledger.version(version), release.ledger.events(version)
    began = [event for event in events if event.action == "begin_evaluation"][attempt - 1]
    earlier = [event for event in events if event.seq < began.seq]
    return Lease(
        policy=found.policy,
        version=version,
        attempt=attempt,
        lease=began.hash,
        incumbent=found.incumbent_digest,
        mode=release.ledger.leased_mode(version) or found.mode,
        history=tuple({name: getattr(event, name) for name in SHOWN} for event in earlier),
        tried=_tried(release.ledger, found.policy, began),
        recalled=found.recall_of is not None,
        approval=_approval(release, found.policy),
    )


def _approval(release: Release, policy: str) -> str:
    """Who may approve a pass, by the policy's deployment rules, and how long it holds."""
    rules = release.ledger.deployment_rules(policy)
    who = "A person with the scope review"
    if rules.approver == "anyone":
        who += ", or a run with --approve auto"
    if rules.two_persons:
        who += "; not whoever registered or judged it"
    return (
        f"{who}. The pass holds for {PASS_SECONDS / 86400:.0f} days from its event in the ledger."
    )


def _tried(ledger: Ledger, policy: str, began: Event) -> int:
    """Other versions that were judged against the same champion before, whenever it was served.

    A rollback brings its count back with it, or each would give a whole alpha to the next one; and
    so does a recall, under another number. Another policy's promotion is none of this one's.
    """
    champion: str | None = None
    judged: dict[str | None, set[int | None]] = {}
    genomes = {version.version: version.genome for version in ledger.versions(policy)}
    for event in ledger.events(policy=policy, before=began.seq + 1):
        if event.to_state == State.CHAMPION:
            assert event.version is not None
            champion = genomes[event.version]
        elif event.action == "begin_evaluation":
            judged.setdefault(champion, set()).add(event.version)
    return len(judged.get(champion, set()) - {began.version})


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a folder so that `target` is whole or absent, and its files young, as `touch` says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".report.", dir=target.parent))
    shutil.copytree(source, aside, copy_function=shutil.copyfile, dirs_exist_ok=True)
    aside.chmod(0o755)
    sync_tree(aside)  # a server whose report a power cut damaged does not start
    try:
        aside.rename(target)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)  # another process put it there first
        if not target.is_dir():
            raise
    sync_folder(target.parent)
