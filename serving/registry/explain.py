"""Checks that the rows which decide what is served follow from the history. Others are not served.

Each check raises a `LedgerError` that names the row. The checks of one version, champion or trial
take a few look-ups by index, so a server makes them at every look.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select

from serving.registry import chain, reports, rows, schema
from serving.registry.records import Event, Version
from serving.registry.states import State
from srghn.errors import LedgerError
from srghn.files import sha256_bytes

#: Fields of a verdict that a version's columns must equal. Not its mode: that is the served mode,
#: which need not be the version's own.
_JUDGED = (
    "env_fingerprint", "suite_version", "policy_digest", "incumbent_digest", "report_digest"
)  # fmt: skip
#: Fields of a registration's event that a version's columns must equal.
_REGISTERED = ("digest", "genome", "env_fingerprint", "mode", "run_id", "recall_of")
#: Steps that quarantine the replaced champion.
ROLLBACKS = ("rollback", "rollback_by_holdback")
_HINT = "restore a backup with srghn restore, or find out who changed it"


def champion(connection: Connection, policy: str) -> None:
    """Check that the champion's row equals the last event that made a champion."""
    row = connection.execute(
        select(schema.champion).where(schema.champion.c.policy == policy)
    ).one_or_none()
    table = schema.events
    query = select(table).where(table.c.policy == policy, table.c.to_state == State.CHAMPION)
    last = connection.execute(query.order_by(table.c.seq.desc()).limit(1)).one_or_none()
    said = None if last is None else (last.version, last.generation, last.at, last.actor)
    held = None if row is None else (row.version, row.generation, row.since, row.by)
    if held != said:
        raise LedgerError(
            f"the champion's pointer (version, generation) of {policy!r} is {_shown(held)}, but "
            f"the events lead to {_shown(said)}; {_HINT}"
        )


def _shown(pointer: tuple[Any, ...] | None) -> str:
    return "None" if pointer is None else str(pointer[:2])


def trial(connection: Connection, policy: str) -> None:
    """Check that the trial's row equals the events that began and changed it."""
    row = connection.execute(
        select(schema.trial).where(schema.trial.c.policy == policy)
    ).one_or_none()
    on_trial = rows.in_state(connection, policy, [State.CANARY])
    if row is None and not on_trial:
        return
    found = f"the trial's row of {policy!r}"
    if row is None:
        raise LedgerError(f"{found} is missing: version {on_trial[0].version} is CANARY; {_HINT}")
    if [version.version for version in on_trial] != [row.version]:
        raise LedgerError(f"{found} names version {row.version}, which is no canary; {_HINT}")
    events = list(chain.read_events(connection, row.version, since=row.epoch - 1))
    said = _trial_said(connection, events)
    if said is None or events[0].seq != row.epoch or events[0].policy != policy:
        raise LedgerError(f"{found} is not what an event began; {_HINT}")
    held = {"weight": row.weight, "status": row.status, "params": json.loads(row.params)}
    for name, value in held.items():
        if value != said[name]:
            raise LedgerError(
                f"{found} has {name} {value!r}, the events say {said[name]!r}; {_HINT}"
            )


def _trial_said(connection: Connection, events: list[Event]) -> dict[str, Any] | None:
    """Weight, status and parameters from a trial's events; None if the first begins no trial."""
    if not events or events[0].action != "start_canary":
        return None
    said: dict[str, Any] = {"status": "running"}
    for event in events:
        check_hash(event)
        if event.evidence_sha256 is not None:
            said |= rows.find_evidence(connection, event.evidence_sha256)
    return said


def check_hash(event: Event) -> None:
    if chain.event_hash(event) != event.hash:
        raise LedgerError(
            f"event {event.seq} is broken: its fields do not have the hash they were written with"
        )


def version(connection: Connection, number: int) -> list[Event]:
    """Check that a version's row equals its events and their evidence; returns its events."""
    found = rows.find_version(connection, number)
    events = list(chain.read_events(connection, number))
    state: str | None = None
    for event in events:
        check_hash(event)
        _check_neighbours(connection, event)
        if event.from_state != state or not chain.possible(state, event.to_state):
            raise LedgerError(
                f"event {event.seq} is broken: {state} -> {event.to_state} is no step of the "
                f"state machine"
            )
        if event.policy != found.policy:
            raise LedgerError(
                f"version {number} is recorded for policy {found.policy!r}, event {event.seq} "
                f"says {event.policy!r}; {_HINT}"
            )
        state = event.to_state
        if event.evidence_sha256 is not None:
            _check_evidence(connection, found, event, events)
    if found.quarantined != any(_quarantines(event) for event in events):
        raise LedgerError(
            f"version {number} is recorded as {'' if found.quarantined else 'not '}quarantined, "
            f"which its events do not say; {_HINT}"
        )
    if found.state != state:
        raise LedgerError(
            f"version {number} is recorded as {found.state}, but the events lead to {state}: "
            f"events are missing or the table was changed"
        )
    return events


def _quarantines(event: Event) -> bool:
    gone = event.action in ROLLBACKS and event.to_state == State.RETIRED
    return gone or event.to_state in (State.ABORTED, State.REJECTED, State.REVOKED)


def _check_neighbours(connection: Connection, event: Event) -> None:
    """Check the links to the event before and the event after."""
    table = schema.events
    query = select(table.c.seq, table.c.hash, table.c.prev_hash).where(
        table.c.seq.in_([event.seq - 1, event.seq + 1])
    )
    around = {row.seq: row for row in connection.execute(query)}
    before, after = around.get(event.seq - 1), around.get(event.seq + 1)
    expected = before.hash if before else chain.GENESIS if event.seq == 1 else None
    if event.prev_hash != expected or (after is not None and after.prev_hash != event.hash):
        raise LedgerError(
            f"event {event.seq} is broken: it does not follow from the event before it"
        )


def _check_evidence(
    connection: Connection, found: Version, event: Event, events: list[Event]
) -> None:
    assert event.evidence_sha256 is not None
    try:
        said = rows.find_evidence(connection, event.evidence_sha256)
    except LedgerError as error:
        raise LedgerError(f"event {event.seq}: its {error}") from error
    if event.action in ("register", "recall"):
        _compare(found, {name: getattr(found, name) for name in _REGISTERED}, said)
        if sha256_bytes(_manifest(connection, found.version)) != said["manifest_sha256"]:
            raise LedgerError(f"the manifest of version {found.version} was changed; {_HINT}")
    last = [one for one in events if one.action == "record_verdict"][-1:]
    begun_since = any(one.seq > event.seq and one.to_state == State.EVALUATING for one in events)
    if event.action == "record_verdict" and [event] == last and not begun_since:
        held = {name: getattr(found, name) for name in _JUDGED}
        _compare(found, {**held, "candidate_digest": found.digest}, said)


def _manifest(connection: Connection, number: int) -> bytes:
    query = select(schema.versions.c.manifest).where(schema.versions.c.version == number)
    return str(connection.execute(query).scalar_one()).encode()


def _compare(found: Version, held: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    for name, value in held.items():
        if value != said.get(name):
            raise LedgerError(
                f"version {found.version} is recorded with {name} {value!r}, its evidence says "
                f"{said.get(name)!r}; {_HINT}"
            )


def policy(connection: Connection, name: str) -> None:
    """Check that mode and deployment rules are those of the last events that set them."""
    row = connection.execute(select(schema.policies).where(schema.policies.c.name == name)).one()
    mode = _last(connection, name, "set_mode")
    said = None if mode is None else rows.find_evidence(connection, mode.evidence_sha256)["mode"]
    if row.service_mode != said:
        raise LedgerError(
            f"policy {name!r} has service mode {row.service_mode!r}, the events say {said!r}"
        )
    rules = _last(connection, name, "set_deployment_rules")
    digest = None if rules is None else rules.evidence_sha256
    if row.rules_sha256 != digest:
        raise LedgerError(f"policy {name!r} has deployment rules that no event set; {_HINT}")


def _last(connection: Connection, name: str, action: str) -> Row[Any] | None:
    table = schema.events
    query = select(table).where(table.c.policy == name, table.c.action == action)
    return connection.execute(query.order_by(table.c.seq.desc()).limit(1)).one_or_none()


def report(
    connection: Connection, events: list[Event], home: Path, here: bool = False
) -> str | None:
    """The problem with the report of a version's last verdict; None without a problem or report.

    With `here`, a report that is not in this home is not a problem.
    """
    judged = [event for event in events if event.action == "record_verdict"][-1:]
    for event in judged:
        verdict = rows.find_evidence(connection, str(event.evidence_sha256))
        where = reports.folder(home, str(verdict.get("report_digest")))
        wrong = None if here and not where.is_dir() else reports.problem(where, verdict)
        return None if wrong is None else f"the report of version {event.version}: {wrong}"
    return None
