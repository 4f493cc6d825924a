"""The ledger: the only thing that says what may be served.

Each step of the state machine is one database transaction that writes the event (hash-chained,
append-only), the rows it changes, the champion's pointer and the outbox. A step that is not allowed
raises `TransitionRefused` and changes nothing. There is no step from a version that did not pass
the gate to what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import insert, update

from serving.registry import guards, schema
from serving.registry.judging import LedgerJudging
from serving.registry.records import Canary, Champion
from serving.registry.states import State
from serving.registry.steps import Step
from srghn.config import CanaryParams
from srghn.errors import TransitionRefused


class Ledger(LedgerJudging):
    """Versions, their states, the champion and the canary. Safe to use from many processes.

    Every method that takes a step wants `actor` (who), `reason` (why) and, to be safe against
    being sent twice, `idempotency_key`: the same key with the same request answers as the first
    time and does nothing; with another request it is refused.
    """

    # ------------------------------------------------------------------------------ review

    def approve(
        self,
        version: int,
        *,
        report_digest: str,
        actor: str,
        reason: str,
        expected_generation: int | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Approve a pass, by the digest of the report that was read."""

        def work(step: Step) -> None:
            step.expect(expected_generation)
            found = step.version(version)
            if found.state is State.PASSED and found.report_digest != report_digest:
                raise TransitionRefused(
                    f"the report of version {version} is {guards.short(found.report_digest)}, the "
                    f"approval names {guards.short(report_digest)}; read the report that is there"
                )
            evidence = {"report_digest": report_digest}
            step.move(version, State.APPROVED, evidence=evidence, deadline=None)

        request = {"version": version, "report": report_digest}
        self._step("approve", actor, reason, idempotency_key, request, work)

    def reject(
        self,
        version: int,
        *,
        actor: str,
        reason: str,
        expected_generation: int | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Turn a pass or an approval down, for good."""

        def work(step: Step) -> None:
            step.expect(expected_generation)
            step.move(version, State.REJECTED, quarantined=True, deadline=None)

        self._step("reject", actor, reason, idempotency_key, {"version": version}, work)

    def mark_stale(
        self, version: int, *, actor: str, reason: str, idempotency_key: str | None = None
    ) -> None:
        """A pass, approval or trial that no longer holds: the environment or the suite changed."""

        def work(step: Step) -> None:
            running = step.canary()
            step.move(version, State.STALE, deadline=None)
            if running is not None and running.version == version:
                step.end_canary()

        self._step("mark_stale", actor, reason, idempotency_key, {"version": version}, work)

    # ------------------------------------------------------------------------------ canary

    def start_canary(
        self,
        version: int,
        *,
        params: CanaryParams,
        loaded: Mapping[str, Any],
        actor: str,
        reason: str,
        weight: float | None = None,
        idempotency_key: str | None = None,
    ) -> Canary:
        """Begin the trial of an approved version on a share of episodes.

        `loaded` is the proof that the serving code loaded it: `{"digest": ..., "golden": n}`
        with the candidate's digest and the number of golden outputs that matched
        (`serving.control.loading.proof`).
        """
        share = params.weight if weight is None else weight

        def work(step: Step) -> None:
            found, running = step.version(version), step.canary()
            if running is not None:
                raise TransitionRefused(
                    f"version {running.version} is on trial; one canary at a time: wait, or "
                    f"abort it (srghn canary abort {running.version})"
                )
            if step.champion() is None:
                raise TransitionRefused(
                    f"there is no champion to try version {version} against; promote it "
                    f"(srghn promote {version})"
                )
            guards.check_weight(share)
            if loaded.get("digest") != found.digest or not loaded.get("golden"):
                raise TransitionRefused(
                    f"version {version} was not shown to load: expected digest {found.digest} and "
                    f"golden outputs that match, came {dict(loaded)}"
                )
            evidence = {"loaded": dict(loaded), "params": params.model_dump(mode="json")}
            epoch = step.move(
                version, State.CANARY, evidence={**evidence, "weight": share}, deadline=None
            )
            step.connection.execute(
                insert(schema.canary).values(
                    id=1,
                    version=version,
                    epoch=epoch,
                    weight=share,
                    params=params.model_dump_json(),
                    since=step.at,
                )
            )

        request = {"version": version, "weight": share, "params": params.model_dump(mode="json")}
        self._step("start_canary", actor, reason, idempotency_key, request, work)
        running = self.canary()
        if running is None or running.version != version:
            raise TransitionRefused(f"the trial of version {version} is over already")
        return running

    def set_canary_weight(
        self, weight: float, *, actor: str, reason: str, idempotency_key: str | None = None
    ) -> None:
        """Change the canary's share of new episodes, in [0, 1)."""

        def work(step: Step) -> None:
            guards.check_weight(weight)
            running = guards.running_canary(step)
            step.move(running.version, State.CANARY, evidence={"weight": weight})
            step.connection.execute(update(schema.canary).values(weight=weight))

        self._step("set_canary_weight", actor, reason, idempotency_key, {"weight": weight}, work)

    def abort_canary(
        self,
        *,
        actor: str,
        reason: str,
        version: int | None = None,
        evidence: Mapping[str, Any] | None = None,
        expected_generation: int | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """End the trial; the digest is quarantined. Returns the version that was on trial."""

        def work(step: Step) -> int:
            step.expect(expected_generation)
            running = guards.running_canary(step)
            if version is not None and running.version != version:
                raise TransitionRefused(
                    f"version {version} is not on trial, version {running.version} is"
                )
            step.move(running.version, State.ABORTED, evidence=evidence, quarantined=True)
            step.end_canary()
            return running.version

        request = {"version": version}
        return int(self._step("abort_canary", actor, reason, idempotency_key, request, work))

    # ---------------------------------------------------------------------------- champion

    def promote(
        self,
        version: int,
        *,
        expected_generation: int,
        actor: str,
        reason: str,
        idempotency_key: str | None = None,
    ) -> Champion:
        """Make a version champion, if the champion is still the one of `expected_generation`.

        The first champion comes straight from APPROVED (`expected_generation=0`). Every later one
        comes from its trial: the ledger decides again on the outcomes it holds and refuses
        unless they speak for the promotion. Raises `StaleGeneration` if the champion changed.
        """

        def work(step: Step) -> None:
            evidence = None
            if step.champion() is not None and step.version(version).state is not State.CANARY:
                raise TransitionRefused(
                    f"version {version} is {step.version(version).state}; only the first champion "
                    f"skips the trial: approve it, then srghn canary start {version}"
                )
            running = step.canary()
            if running is not None and running.version == version:
                evidence = guards.check_trial(step.connection, running)
            step.crown(version, expected_generation, evidence)

        request = {"version": version, "expected_generation": expected_generation}
        return self._crown("promote", actor, reason, idempotency_key, request, work)

    def rollback(
        self,
        *,
        actor: str,
        reason: str,
        to_version: int | None = None,
        expected_generation: int | None = None,
        idempotency_key: str | None = None,
    ) -> Champion:
        """Bring a retired champion back: the one named, or the last that was not rolled back.

        The champion that goes is quarantined, so that no retry brings it again.
        """

        def work(step: Step) -> None:
            champion = step.champion()
            if champion is None:
                raise TransitionRefused("there is no champion to roll back from")
            target = guards.rollback_target(step, champion, to_version)
            expected = champion.generation if expected_generation is None else expected_generation
            step.crown(target, expected, {"from": champion.version, "to": target})
            gone = update(schema.versions).where(schema.versions.c.version == champion.version)
            step.connection.execute(gone.values(quarantined=True))

        request = {"to_version": to_version, "expected_generation": expected_generation}
        return self._crown("rollback", actor, reason, idempotency_key, request, work)

    def revoke(
        self, version: int, *, actor: str, reason: str, idempotency_key: str | None = None
    ) -> None:
        """Take a champion, present or past, out of service for good.

        Revoking the champion rolls back in the same transaction, and is refused where nothing is
        left to roll back to: the champion's place is never empty.
        """

        def work(step: Step) -> None:
            champion = step.champion()
            if champion is not None and champion.version == version:
                target = guards.rollback_target(step, champion, None)
                step.move(version, State.REVOKED, quarantined=True)
                step.crown(target, champion.generation, {"from": version, "to": target})
            else:
                step.move(version, State.REVOKED, quarantined=True)

        self._step("revoke", actor, reason, idempotency_key, {"version": version}, work)

    # ------------------------------------------------------------------------------- inner

    def _crown(
        self,
        action: str,
        actor: str,
        reason: str,
        key: str | None,
        request: Mapping[str, Any],
        work: Callable[[Step], None],
    ) -> Champion:
        def crowned(step: Step) -> dict[str, Any]:
            work(step)
            champion = step.champion()
            assert champion is not None
            return asdict(champion)

        return Champion(**self._step(action, actor, reason, key, request, crowned))
