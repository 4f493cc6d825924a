"""The ledger's way to a verdict: from a digest to PASSED, or to the reason why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select, update

from serving.registry import guards, schema
from serving.registry.book import LedgerBook
from serving.registry.records import Evaluation
from serving.registry.states import VERDICTS, State
from serving.registry.steps import Step
from srghn.errors import TransitionRefused
from srghn.files import canonical_json, sha256_bytes

LEASE_SECONDS = 3600.0
#: A pass that nobody acted on for so long is judged again.
PASS_SECONDS = 30 * 24 * 3600.0


class LedgerJudging(LedgerBook):
    """Versions, their evaluations and verdicts (`Ledger` adds what a pass may lead to)."""

    def register(
        self,
        digest: str,
        *,
        env_fingerprint: str,
        mode: str,
        run_id: str,
        manifest: Mapping[str, Any],
        actor: str,
        reason: str,
        idempotency_key: str | None = None,
    ) -> int:
        """Give a candidate its version number; a known digest keeps the one it has."""

        def work(step: Step) -> int:
            table = schema.versions
            known = select(table.c.version).where(table.c.digest == digest)
            found = step.connection.execute(known).scalar()
            if found is not None:
                return int(found)
            last = step.connection.execute(select(func.max(table.c.version))).scalar()
            number = (last or 0) + 1
            step.connection.execute(
                insert(table).values(
                    version=number,
                    digest=digest,
                    env_fingerprint=env_fingerprint,
                    mode=mode,
                    run_id=run_id,
                    manifest=canonical_json(manifest).decode(),
                    state=State.REGISTERED,
                    quarantined=False,
                    attempt=0,
                    incumbent_generation=0,
                    registered_at=step.at,
                )
            )
            step.record(number, None, State.REGISTERED)
            return number

        request = {"digest": digest, "env_fingerprint": env_fingerprint, "mode": mode}
        return int(self._step("register", actor, reason, idempotency_key, request, work))

    def begin_evaluation(
        self,
        version: int,
        *,
        suite_version: str,
        policy_digest: str,
        actor: str,
        reason: str,
        incumbent_digest: str | None = None,
        max_attempts: int = 3,
        lease_seconds: float = LEASE_SECONDS,
        idempotency_key: str | None = None,
    ) -> Evaluation:
        """Take the lease to judge a version, and freeze what its verdict will hold for.

        `incumbent_digest` is who the caller means to judge against (`None`: nobody); it must be
        the champion as it is now. Raises `TransitionRefused` if it is not, if another evaluation
        holds the lease, or if `max_attempts` evaluations of this tuple were made.
        """

        def work(step: Step) -> dict[str, Any]:
            found = step.version(version)
            guards.check_incumbent(step, version, incumbent_digest)
            guards.check_unleased(found)
            guards.check_attempts(step.connection, version, max_attempts)
            frozen = {"suite_version": suite_version, "policy_digest": policy_digest}
            evaluation = _against_champion(step, version, found.attempt + 1, lease_seconds)
            _lease(step, evaluation, frozen)
            return asdict(evaluation)

        request = {"version": version, "suite": suite_version, "policy": policy_digest}
        return Evaluation(
            **self._step("begin_evaluation", actor, reason, idempotency_key, request, work)
        )

    def resume_evaluation(
        self,
        version: int,
        *,
        attempt: int,
        suite_version: str,
        policy_digest: str,
        actor: str,
        reason: str,
        incumbent_digest: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> Evaluation:
        """Go on with an attempt that was cut off before its verdict, with a lease anew.

        What its verdict will hold for is frozen anew where it changed, above all the champion: then
        the ledger first ends what was begun, as an ERROR, and nothing of it can be recorded. It
        stays the same attempt, on the same episodes, for nobody has seen what they came to. Raises
        `TransitionRefused` if the attempt has its verdict, or another one was begun.
        """

        def work(step: Step) -> dict[str, Any]:
            found = step.version(version)
            guards.check_incumbent(step, version, incumbent_digest)
            guards.check_unjudged(step.connection, found, attempt)
            frozen = {"suite_version": suite_version, "policy_digest": policy_digest}
            evaluation = _against_champion(step, version, attempt, lease_seconds)
            now = {**frozen, "incumbent_generation": evaluation.incumbent_generation}
            same = all(getattr(found, name) == value for name, value in now.items())
            if found.state is State.EVALUATING and same:
                change = update(schema.versions).where(schema.versions.c.version == version)
                step.connection.execute(change.values(deadline=evaluation.lease_until))
                return asdict(evaluation)
            if found.state is State.EVALUATING:
                why = "champion, suite or rules changed while its evaluation was cut off"
                step.by("ledger", "cut_off", why).move(version, State.ERROR, deadline=None)
            _lease(step, evaluation, frozen)
            return asdict(evaluation)

        return Evaluation(**self._step("resume_evaluation", actor, reason, None, {}, work))

    def record_verdict(
        self,
        version: int,
        verdict: Mapping[str, Any],
        *,
        report_path: Path | str,
        report_digest: str,
        actor: str,
        reason: str,
        idempotency_key: str | None = None,
    ) -> State:
        """End an evaluation with the gate's verdict; returns the version's new state.

        The verdict must be about the tuple that was frozen when the evaluation began, hold at
        least one check, name the report that lies at `report_path`, and come before the lease
        runs out. If the champion changed meanwhile, a pass is recorded and is stale at once.
        """

        def work(step: Step) -> str:
            found = step.version(version)
            guards.check_verdict(found, verdict)
            guards.check_report(Path(report_path), report_digest, verdict)
            state = VERDICTS[str(verdict["verdict"])]
            step.move(
                version,
                state,
                evidence=verdict,
                policy=found.policy_digest,
                deadline=step.now + PASS_SECONDS if state is State.PASSED else None,
                report_path=str(report_path),
                report_digest=report_digest,
            )
            if state is State.PASSED and step.generation() != found.incumbent_generation:
                why = f"the champion changed to generation {step.generation()} during evaluation"
                step.by("ledger", "outdate", why).move(version, State.STALE, deadline=None)
            return step.version(version).state

        request = {"version": version, "verdict": dict(verdict), "report": report_digest}
        return State(self._step("record_verdict", actor, reason, idempotency_key, request, work))

    def _step(
        self,
        action: str,
        actor: str,
        reason: str,
        key: str | None,
        request: Mapping[str, Any],
        work: Callable[[Step], Any],
    ) -> Any:
        """Run `work` in one transaction, once per idempotency key; returns its JSON result."""
        if not actor.strip() or not reason.strip():
            raise TransitionRefused(f"{action} needs an actor and a reason, and one is empty")
        self.expire()
        said = sha256_bytes(canonical_json({"action": action, **request}))
        with self._database.write() as connection:
            if key is not None:
                query = select(schema.requests).where(schema.requests.c.key == key)
                known = connection.execute(query).one_or_none()
                if known is not None and known.request_sha256 != said:
                    raise TransitionRefused(
                        f"idempotency key {key!r} was used for another request; use a new one"
                    )
                if known is not None:
                    return json.loads(known.result)
            result = work(Step(connection, action, actor, reason, key, self._clock()))
            if key is not None:
                row = {"key": key, "request_sha256": said, "result": json.dumps(result)}
                connection.execute(insert(schema.requests).values(row))
            return result


def _against_champion(step: Step, version: int, attempt: int, seconds: float) -> Evaluation:
    """A lease for so many seconds from now, against the champion of now."""
    champion = step.champion()
    return Evaluation(
        version=version,
        attempt=attempt,
        incumbent_digest=champion.digest if champion else None,
        incumbent_generation=champion.generation if champion else 0,
        lease_until=step.now + seconds,
    )


def _lease(step: Step, evaluation: Evaluation, frozen: Mapping[str, Any]) -> None:
    """Write a lease, and what its verdict will hold for, into the version's row."""
    step.move(
        evaluation.version,
        State.EVALUATING,
        policy=frozen["policy_digest"],
        attempt=evaluation.attempt,
        deadline=evaluation.lease_until,
        incumbent_digest=evaluation.incumbent_digest,
        incumbent_generation=evaluation.incumbent_generation,
        **frozen,
    )
