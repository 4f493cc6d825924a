"""Steps that lead to a verdict: registration, recall, evaluation.

Each function does the work of one step: it gets an open transaction and changes rows in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select, update

from serving.registry import guards, rows, schema, trials
from serving.registry.guards import CUT_OFF, EXPIRE
from serving.registry.records import Evaluation, Version
from serving.registry.states import VERDICTS, WON, State
from serving.registry.steps import Step
from srghn.errors import TransitionRefused
from srghn.files import canonical_json, sha256_bytes

LEASE_SECONDS = 3600.0
#: A pass that nobody acted on for this many seconds expires.
PASS_SECONDS = 30 * 24 * 3600.0


def register(
    step: Step,
    digest: str,
    env_fingerprint: str,
    mode: str,
    run_id: str,
    manifest: Mapping[str, Any],
    recall_of: int | None = None,
    submitter: str | None = None,
) -> int:
    """The version number of a candidate: a new one, or the one it has already."""
    table = schema.versions
    known = select(table.c.version).where(
        table.c.policy == step.policy,
        table.c.digest == digest,
        table.c.env_fingerprint == env_fingerprint,
        table.c.mode == mode,
        func.coalesce(table.c.recall_of, 0) == (recall_of or 0),
    )
    found = step.connection.execute(known).scalar()
    if found is not None:
        return int(found)
    guards.check_interface(step, manifest)
    last = step.connection.execute(select(func.max(table.c.version))).scalar()
    number, text = (last or 0) + 1, canonical_json(manifest)
    genome = str(manifest.get("genome_digest", digest))
    step.connection.execute(
        insert(table).values(
            version=number,
            policy=step.policy,
            digest=digest,
            genome=genome,
            recall_of=recall_of,
            env_fingerprint=env_fingerprint,
            mode=mode,
            run_id=run_id,
            manifest=text.decode(),
            state=State.REGISTERED,
            quarantined=False,
            attempt=0,
            incumbent_generation=0,
            registered_at=step.at,
        )
    )
    said = {
        "digest": digest,
        "genome": genome,
        "env_fingerprint": env_fingerprint,
        "mode": mode,
        "run_id": run_id,
        "recall_of": recall_of,
        "manifest_sha256": sha256_bytes(text),
    }
    by = {"submitted_by": submitter} if submitter else {}
    step.record(number, None, State.REGISTERED, {**said, **by})
    return number


def recall(
    step: Step, version: int, env_fingerprint: str, mode: str, changed: Mapping[str, Any]
) -> int:
    """Register a former champion as a new version, to be judged in this world and mode."""
    found = step.version(version)
    if found.quarantined or found.state is not State.RETIRED:
        quarantined = " and quarantined" if found.quarantined else ""
        raise TransitionRefused(
            f"version {version} is {found.state}{quarantined}; only a retired champion that was "
            f"not withdrawn is recalled"
        )
    guards.check_never_withdrawn(step, found)
    manifest = {**found.manifest, **changed}
    return register(step, found.digest, env_fingerprint, mode, found.run_id, manifest, version)


def begin(
    step: Step,
    version: int,
    suite_version: str,
    policy_digest: str,
    incumbent_digest: str | None,
    max_attempts: int,
    lease_seconds: float,
) -> dict[str, Any]:
    """Take the lease to judge a version, and freeze the tuple that its verdict will be about."""
    found = step.version(version)
    guards.check_interface(step, found.manifest)
    guards.check_incumbent(step, version, incumbent_digest)
    guards.check_unleased(found)
    mode = _mode(step, found)
    guards.check_genome(step.connection, found, mode)
    guards.check_attempts(step.connection, found, mode, max_attempts)
    frozen = {"suite_version": suite_version, "policy_digest": policy_digest}
    return _lease(step, version, found.attempt + 1, lease_seconds, frozen, max_attempts)


def resume(
    step: Step,
    version: int,
    attempt: int,
    suite_version: str,
    policy_digest: str,
    incumbent_digest: str | None,
    max_attempts: int,
    lease_seconds: float,
) -> dict[str, Any]:
    """Resume an interrupted attempt; if its tuple has changed, freeze the new one."""
    found = step.version(version)
    guards.check_incumbent(step, version, incumbent_digest)
    guards.check_unjudged(step.connection, found, attempt)
    mode = _mode(step, found)
    guards.check_genome(step.connection, found, mode)  # a copy may have failed
    guards.check_attempts(step.connection, found, mode, max_attempts, resumed=True)
    frozen = {"suite_version": suite_version, "policy_digest": policy_digest}
    now = {**frozen, "incumbent_generation": step.generation()}
    same = all(getattr(found, name) == value for name, value in now.items())
    if found.state is State.EVALUATING and same:
        until = _put_off(step, version, lease_seconds)
        return asdict(_evaluation(step, version, attempt, until))
    if found.state is State.EVALUATING:
        why = "champion, suite or rules changed while its evaluation was cut off"
        step.by_ledger(CUT_OFF, why).move(version, State.ERROR, deadline=None)
    return _lease(step, version, attempt, lease_seconds, frozen, max_attempts)


def renew(step: Step, version: int, attempt: int, seconds: float) -> None:
    """Keep the lease of an evaluation that is at work; one that is over is left as it is."""
    found = step.version(version)
    if found.attempt != attempt:
        return
    if found.state is State.EVALUATING:
        _put_off(step, version, seconds)
    else:
        _take_again(step, found, seconds)


def record_verdict(
    step: Step, version: int, verdict: Mapping[str, Any], report_path: Path, report_digest: str
) -> str:
    """End an evaluation. If the champion has changed since, a pass becomes stale at once."""
    _take_again(step, step.version(version), LEASE_SECONDS)
    found = step.version(version)
    guards.check_leased(step.connection, found)
    mode = rows.leased_mode(step.connection, version) or _mode(step, found)
    guards.check_verdict(found, verdict, mode)
    lease, written = _begun(step, version)
    guards.check_lease(lease, written, verdict)
    guards.check_report(report_path.parent, report_digest, verdict, written)
    state = VERDICTS[str(verdict["verdict"])]
    if state is State.PASSED:
        guards.check_genome(step.connection, found, mode)  # a copy may have failed meanwhile
    step.move(
        version,
        state,
        evidence=verdict,
        rules=found.policy_digest,
        deadline=step.now + PASS_SECONDS if state is State.PASSED else None,
        report_path=f"reports/{report_digest}/report.html",  # from the home, wherever it is
        report_digest=report_digest,
    )
    if state is State.PASSED and step.generation() != found.incumbent_generation:
        why = f"the champion changed to generation {step.generation()} during evaluation"
        step.by_ledger("outdate", why).move(version, State.STALE, deadline=None)
    return step.version(version).state


def _mode(step: Step, found: Version) -> str:
    """The mode to judge in: the served mode; a recall and a successor have their own mode."""
    if found.recall_of is not None or guards.succeeds(step, found):
        return found.mode
    return rows.served_mode(step.connection, found.policy) or found.mode


def move_mode(step: Step, before: str | None, mode: str) -> None:
    """End passes and evaluations in another mode than the new served mode.

    A pass becomes STALE, an evaluation ERROR. A successor with other observations is judged in
    its own environment, which has its own modes, so it is not affected.
    """
    served = "served mode" if before is None else f"served mode changed from {before} and"
    for found in step.in_state(*WON, State.EVALUATING):
        judging = found.state is State.EVALUATING
        judged = (rows.leased_mode if judging else rows.passed_mode)(step.connection, found.version)
        if judged in (None, mode) or guards.succeeds(step, found):
            continue
        if judging:
            why = f"the {served} is now {mode}, its evaluation was in mode {judged}"
            step.by_ledger(CUT_OFF, why).move(found.version, State.ERROR, deadline=None)
        else:
            why = f"the {served} is now {mode}, it passed in mode {judged}"
            trials.withdraw(step.by_ledger("outdate", why), found.version, State.STALE)


def overdue(step: Step, found: Version) -> None:
    """Write the end of a lease, of a pass, or of the time in which a trial may be repeated."""
    lease = found.state is State.EVALUATING
    why = "the lease of its evaluation ran out" if lease else "its pass expired"
    move = step.by_ledger(EXPIRE, why)
    move.move(found.version, State.ERROR if lease else State.STALE, deadline=None)


def _put_off(step: Step, version: int, seconds: float) -> float:
    """Let a lease run for so long from now on; returns when it ends."""
    until = step.now + seconds
    change = update(schema.versions).where(schema.versions.c.version == version)
    step.connection.execute(change.values(deadline=until))
    return until


def _take_again(step: Step, found: Version, seconds: float) -> None:
    """Take the lease again that ran out while its evaluation was at work, if its tuple holds.

    The host slept, or another host's clock is ahead. No other evaluation has begun since.
    """
    if not guards.ran_out(step.connection, found) or (
        step.generation() != found.incumbent_generation
        or rows.leased_mode(step.connection, found.version) != _mode(step, found)
    ):
        return
    frozen = {"suite_version": found.suite_version, "policy_digest": found.policy_digest}
    again = step.by_ledger("resume_evaluation", "its lease ran out while it was at work")
    _lease(again, found.version, found.attempt, seconds, frozen, None)


def _lease(
    step: Step,
    version: int,
    attempt: int,
    seconds: float,
    frozen: Mapping[str, Any],
    max_attempts: int | None,
) -> dict[str, Any]:
    """Write a lease and the tuple that its verdict will be about into the version's row.

    `max_attempts` None: as an earlier lease of the attempt says.
    """
    champion, until, found = step.champion(), step.now + seconds, step.version(version)
    incumbent = guards.incumbent(step, found)
    said = {"mode": _mode(step, found)} | ({"attempts": max_attempts} if max_attempts else {})
    step.move(
        version,
        State.EVALUATING,
        evidence=said,
        rules=frozen["policy_digest"],
        attempt=attempt,
        deadline=until,
        incumbent_digest=incumbent.digest if incumbent else None,
        incumbent_generation=champion.generation if champion else 0,
        **frozen,
    )
    return asdict(_evaluation(step, version, attempt, until))


def _begun(step: Step, version: int) -> tuple[str, int]:
    """Hash and format of the event that began the current attempt."""
    table = schema.events
    query = select(table.c.hash, table.c.format).where(
        table.c.version == version, table.c.action == "begin_evaluation"
    )
    row = step.connection.execute(query.order_by(table.c.seq.desc()).limit(1)).one()
    return str(row.hash), int(row.format)


def _evaluation(step: Step, version: int, attempt: int, until: float) -> Evaluation:
    champion, found = step.champion(), step.version(version)
    return Evaluation(
        version=version,
        attempt=attempt,
        incumbent_digest=found.incumbent_digest,
        incumbent_generation=champion.generation if champion else 0,
        lease_until=until,
        lease=_begun(step, version)[0],
    )
