"""Queries of the ledger. Each reads one consistent snapshot and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from sqlalchemy import func, select

from serving.registry import chain, explain, guards, holdbacks, rows, schema
from serving.registry.database import Database
from serving.registry.records import Canary, Champion, Event, Holdback, Policy, Version
from serving.registry.rules import DeploymentRules, current_rules
from serving.registry.states import State
from serving.trial.rules import TrialRules
from srghn.config import CanaryParams
from srghn.errors import LedgerError


class Reader:
    """Versions, events and pointers, as records. Lists are paged: `after`, `limit`, `newest`."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    def policies(self) -> list[Policy]:
        with self._database.read() as connection:
            query = select(schema.policies).order_by(schema.policies.c.name)
            return [rows.to_policy(row) for row in connection.execute(query).mappings()]

    def policy(self, name: str = schema.POLICY) -> Policy:
        """A policy by its name; raises `LedgerError`, with the known names, if it is unknown."""
        with self._database.read() as connection:
            return rows.find_policy(connection, name)

    def secret(self, policy: str) -> bytes:
        """The policy's 32 secret random bytes, from which keys are derived."""
        with self._database.read() as connection:
            rows.find_policy(connection, policy)
            query = select(schema.policies.c.secret).where(schema.policies.c.name == policy)
            return bytes.fromhex(connection.execute(query).scalar_one())

    def deployment_rules(self, policy: str = schema.POLICY) -> DeploymentRules:
        with self._database.read() as connection:
            return current_rules(connection, policy)

    def champion(self, policy: str = schema.POLICY) -> Champion | None:
        with self._database.read() as connection:
            return rows.find_champion(connection, policy)

    def canary(self, policy: str = schema.POLICY) -> Canary | None:
        """The version on trial, if any."""
        with self._database.read() as connection:
            return rows.find_canary(connection, policy)

    def shadow(self, policy: str = schema.POLICY) -> Version | None:
        """The version that answers a copy of the traffic, if any."""
        with self._database.read() as connection:
            found = rows.in_state(connection, policy, [State.SHADOW])
        return found[0] if found else None

    def holdback(self, policy: str = schema.POLICY) -> Holdback | None:
        """The open window of a fresh champion, if any."""
        with self._database.read() as connection:
            return holdbacks.find(connection, policy)

    def served(self, policy: str = schema.POLICY) -> tuple[Champion | None, Canary | None]:
        """Champion and canary at one moment.

        Raises `LedgerError` if one of their rows does not follow from the history.
        """
        with self._database.read() as connection:
            explain.champion(connection, policy)
            explain.trial(connection, policy)
            return rows.find_champion(connection, policy), rows.find_canary(connection, policy)

    def former(self, policy: str = schema.POLICY, most: int = 20) -> list[int]:
        """Champions that a rollback may bring back; the first, the last in time, is the default."""
        with self._database.read() as connection:
            found = guards.former(connection, policy)
            return [version.version for version in islice(found, most)]

    def interface(self, policy: str = schema.POLICY) -> Mapping[str, Any] | None:
        """The interface of a policy's clients; None before its first champion."""
        with self._database.read() as connection:
            return rows.find_interface(connection, policy)

    def service_mode(self, policy: str = schema.POLICY) -> str | None:
        """The mode of the policy's world: set by an event, else by the champion's promotion."""
        with self._database.read() as connection:
            return rows.served_mode(connection, policy)

    def leased_mode(self, version: int) -> str | None:
        """The mode in which a version's last lease has it judged; None without one."""
        with self._database.read() as connection:
            return rows.leased_mode(connection, version)

    def version(self, version: int) -> Version:
        """A version by its number; raises `LedgerError`, with the known range, if it is unknown."""
        with self._database.read() as connection:
            return rows.find_version(connection, version)

    def versions(
        self,
        policy: str | None = None,
        *,
        states: tuple[State, ...] = (),
        digest: str | None = None,
        after: int = 0,
        before: int | None = None,
        limit: int | None = None,
        newest: bool = False,
    ) -> list[Version]:
        """Versions of a policy (None: of all) with numbers above `after` and below `before`.

        `newest`: the last first.
        """
        table = schema.versions
        query = select(table).where(table.c.version > after).limit(limit)
        query = query.order_by(table.c.version.desc() if newest else table.c.version)
        if policy is not None:
            query = query.where(table.c.policy == policy)
        if digest is not None:
            query = query.where(table.c.digest == digest)
        if before is not None:
            query = query.where(table.c.version < before)
        if states:
            query = query.where(table.c.state.in_(states))
        with self._database.read() as connection:
            return [rows.to_version(row) for row in connection.execute(query).mappings()]

    def events(
        self,
        version: int | None = None,
        since: int = 0,
        *,
        limit: int | None = None,
        newest: bool = False,
        policy: str | None = None,
        before: int | None = None,
    ) -> list[Event]:
        """Events after `since` and before `before`, of a version, a policy or all.

        `newest`: the last first.
        """
        with self._database.read() as connection:
            return list(
                chain.read_events(
                    connection,
                    version,
                    since,
                    limit=limit,
                    newest=newest,
                    policy=policy,
                    before=before,
                )
            )

    def notes(self, policy: str, *actions: str, since: int = 0) -> list[Event]:
        """A policy's events of these actions after number `since`, in order."""
        table = schema.events
        query = select(table).where(
            table.c.policy == policy, table.c.action.in_(actions), table.c.seq > since
        )
        with self._database.read() as connection:
            found = connection.execute(query.order_by(table.c.seq)).mappings()
            return [Event(**row) for row in found]

    def count(self, policy: str | None = None) -> int:
        """The number of events, of a policy or of all."""
        query = select(func.count()).select_from(schema.events)
        if policy is not None:
            query = query.where(schema.events.c.policy == policy)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one()

    def evidence(self, sha256: str) -> dict[str, Any]:
        """The evidence with this SHA-256; raises `LedgerError` if it is missing or was changed."""
        with self._database.read() as connection:
            return rows.find_evidence(connection, sha256)

    def passed(self, version: int) -> tuple[Event, dict[str, Any]]:
        """The latest PASSED event and its verdict.

        Raises `LedgerError` if there is none, or if the version's row and events disagree.
        """
        with self._database.read() as connection:
            for event in reversed(explain.version(connection, version)):
                if event.to_state == State.PASSED and event.evidence_sha256:
                    return event, rows.find_evidence(connection, event.evidence_sha256)
        raise LedgerError(f"version {version} never passed the gate")

    def verdict(self, version: int) -> dict[str, Any] | None:
        """The verdict that ended the version's last evaluation; None before the first."""
        table = schema.events
        query = select(table.c.evidence_sha256).where(
            table.c.version == version, table.c.action == "record_verdict"
        )
        with self._database.read() as connection:
            digest = connection.execute(query.order_by(table.c.seq.desc()).limit(1)).scalar()
            return None if digest is None else rows.find_evidence(connection, digest)

    def propose_trial(
        self, version: int, params: CanaryParams, weight: float | None = None
    ) -> TrialRules:
        """The rules with which a trial of this version would begin or continue now."""
        from serving.registry import trials

        with self._database.read() as connection:
            found = rows.find_version(connection, version)
            proposed = trials.propose(connection, found, params, self._clock(), weight)
            return trials.continued(proposed, trials.carried(connection, found))[0]

    def carried(self, version: int) -> int:
        """Episodes of evidence that a trial of this version would continue with."""
        from serving.registry import trials

        with self._database.read() as connection:
            before = trials.carried(connection, rows.find_version(connection, version))
            return 0 if before is None else before[1].episodes

    def pending(self) -> list[Event]:
        """Events that the mirror has not delivered yet, in order."""
        query = select(schema.events).join(schema.outbox).where(~schema.outbox.c.delivered)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(schema.events.c.seq)).mappings()
            return [Event(**row) for row in found]
