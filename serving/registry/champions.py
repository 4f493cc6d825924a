"""Steps that decide which version is served (approval, promotion, rollback), and policy steps."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from serving.registry import guards, holdbacks, judging, reports, rows, schema, trials
from serving.registry.names import check_name
from serving.registry.records import Champion, Version
from serving.registry.rules import current_rules
from serving.registry.states import TRANSITIONS, State
from serving.registry.steps import Step
from srghn.errors import ConfigError, TransitionRefused


def add(step: Step, name: str) -> None:
    """Make a policy and its secret."""
    try:
        check_name(name)
    except ConfigError as error:
        raise TransitionRefused(str(error)) from error
    row = {"name": name, "secret": secrets.token_hex(32), "created_at": step.at}
    step.connection.execute(insert(schema.policies).values(row))
    Step(step.connection, step.action, step.who, step.now, name).record(
        None, None, None, {"name": name}
    )


def set_mode(step: Step, mode: str) -> None:
    """Record the present mode of the policy's world; passes in other modes become stale."""
    before = rows.served_mode(step.connection, step.policy)
    _write_mode(step, mode)
    if mode != before:
        judging.move_mode(step, before, mode)


def _write_mode(step: Step, mode: str) -> None:
    step.record(None, None, None, {"mode": mode})
    change = update(schema.policies).where(schema.policies.c.name == step.policy)
    step.connection.execute(change.values(service_mode=mode))


def approve(step: Step, version: int, report_digest: str, home: Path | None) -> None:
    """Approve a pass, by the digest of the report that was read.

    If there is a home, the report's files are compared with the verdict once more.
    """
    found = step.version(version)
    if found.state is not State.PASSED:  # of a shadow it is the step that ends it
        raise TransitionRefused(
            f"version {version} is {found.state} and cannot become APPROVED; only a version that "
            f"is PASSED is approved"
        )
    if found.report_digest != report_digest:
        raise TransitionRefused(
            f"the report of version {version} is {guards.short(found.report_digest)}, the approval "
            f"names {guards.short(report_digest)}; read the current report"
        )
    guards.check_approver(step, found, current_rules(step.connection, step.policy))
    if home is not None:
        guards.check_files(reports.folder(home, report_digest), _verdict(step, version))
    evidence = {"report_digest": report_digest}
    step.move(version, State.APPROVED, evidence=evidence, deadline=None)


def _verdict(step: Step, version: int) -> dict[str, Any]:
    table = schema.events
    query = select(table.c.evidence_sha256).where(
        table.c.version == version, table.c.to_state == State.PASSED
    )
    digest = step.connection.execute(query.order_by(table.c.seq.desc()).limit(1)).scalar()
    return rows.find_evidence(step.connection, str(digest))


def promote(step: Step, version: int, expected_generation: int) -> Champion:
    """Promote a version: the first champion from APPROVED, every later one from a won trial."""
    evidence, champion = None, step.champion()
    if champion is not None and step.version(version).state is not State.CANARY:
        raise TransitionRefused(_no_promotion(step.version(version)))
    running = step.canary()
    if running is not None and running.version == version:
        evidence = guards.check_trial(step, running)
        if champion is not None:
            evidence |= holdbacks.offer(step, champion, running)
    crowned = _crown(step, version, expected_generation, evidence)
    said = rows.find_policy(step.connection, step.policy).service_mode
    judged = rows.passed_mode(step.connection, version)
    if said is not None and judged is not None and judged != said:
        why = f"version {version} was promoted, which passed in this mode"
        _write_mode(step.by_ledger("set_mode", why), judged)
    return crowned


def _no_promotion(found: Version) -> str:
    """Why a version that is not on trial is not promoted over a champion, and what to do."""
    number, said = found.version, f"version {found.version} is {found.state}"
    if found.state is State.CHAMPION:
        return f"{said} already"
    only = f"{said}; only the first champion skips the trial"
    if found.state is State.PASSED:
        return f'{only}: approve it, and its trial begins (srghn approve {number} --reason "...")'
    if found.state in (State.APPROVED, State.SHADOW, State.EXPIRED):
        return f'{only}: begin it with srghn canary start {number} --reason "..."'
    if found.state is State.RETIRED:
        return (
            f"{only}. It was champion before: bring it back with srghn rollback --to {number}, or "
            f"have it judged again with srghn recall {number}"
        )
    if State.EVALUATING in TRANSITIONS[found.state] or found.state is State.EVALUATING:
        return f"{only}, and it has not passed the gate: srghn gate {number} judges it"
    return f"{only}, and it cannot go on trial any more; evolve another candidate: srghn run"


def rollback(step: Step, to_version: int | None, expected_generation: int | None) -> Champion:
    """Bring a retired champion back; the present one is quarantined."""
    champion = step.champion()
    if champion is None:
        raise TransitionRefused("there is no champion to roll back from")
    step.expect(expected_generation)
    target = guards.rollback_target(step, champion, to_version)
    return _bring_back(step, champion, target, {})


def rollback_held(step: Step) -> Champion:
    """Bring back the predecessor that a holdback shows to be better; this ends the window.

    In whichever environment it passed: it answers its share in the present one.
    """
    window, decision = holdbacks.check_harm(step)
    champion = step.champion()
    assert champion is not None  # without a champion there is no window
    return _bring_back(step, champion, window.predecessor, {"decision": decision.to_json()})


def _bring_back(step: Step, champion: Champion, target: int, evidence: dict[str, Any]) -> Champion:
    said = {"from": champion.version, "to": target, **evidence}
    crowned = _crown(step, target, champion.generation, said)
    gone = update(schema.versions).where(schema.versions.c.version == champion.version)
    step.connection.execute(gone.values(quarantined=True))
    return crowned


def revoke(step: Step, version: int) -> None:
    """Take a version out of service for good; if it is served, a predecessor replaces it first."""
    champion = step.champion()
    if champion is None or champion.version != version:
        trials.withdraw(step, version, State.REVOKED, quarantined=True)
        return
    target = guards.rollback_target(step, champion, None)
    step.move(version, State.REVOKED, quarantined=True)
    _crown(step, target, champion.generation, {"from": version, "to": target})


def _crown(step: Step, version: int, expected: int, evidence: dict[str, Any] | None) -> Champion:
    crowned = step.crown(version, expected, evidence)
    interface = step.version(version).manifest.get("interface")
    if interface is not None:
        change = update(schema.policies).where(schema.policies.c.name == step.policy)
        step.connection.execute(change.values(interface=json.dumps(interface)))
    return crowned
