"""The ledger: it alone says what may be served.

Its core is `Ledger._take`: each step of the state machine is one database transaction that writes
the event (hash-chained, append-only), the rows it changes, the champion's pointer and the outbox.
A step that is not allowed raises `TransitionRefused` and changes nothing. No step leads from a
version that did not pass the gate into service.

The work of each step is in `judging`, `trials`, `champions`, `holdbacks` and `rules`. Its
conditions are in `guards`, queries in `reader`, and the records of episodes in `episode_log`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, exists, select, update

from serving.registry import champions, holdbacks, judging, rows, schema, trials
from serving.registry.database import Database
from serving.registry.episode_log import EpisodeLog
from serving.registry.faults import LedgerFull
from serving.registry.guards import EXPIRE
from serving.registry.judging import LEASE_SECONDS
from serving.registry.reader import Reader
from serving.registry.records import Champion, Evaluation, Who
from serving.registry.rules import DeploymentRules, set_rules
from serving.registry.states import DATED, State
from serving.registry.steps import Step, once
from serving.registry.testimony import Testimony
from serving.registry.texts import control_in, unix_lines, written_out
from serving.registry.trial_steps import TrialSteps
from serving.registry.witness import Entry
from srghn.errors import TransitionRefused

POLICY = schema.POLICY
#: Steps that take a version or a token out of service: they also work on a full disk.
LIFELINES = (
    "rollback",
    holdbacks.ROLLBACK,
    "revoke",
    "abort_canary",
    "set_trial_status",
    "revoke_tokens",
)
REDELIVER = "redeliver"


class Ledger:
    """Versions, their states, and each policy's served versions. Safe from many processes.

    Every method that takes a step needs `who`: the actor and the reason. A step of a version is a
    step of its policy; all other steps name the policy. The ledger also has the methods of
    `Reader` (queries), `EpisodeLog` (records of episodes) and `TrialSteps` (steps of a trial),
    under the same names.
    """

    def __init__(
        self,
        database: str | Database,
        *,
        clock: Callable[[], float] = time.time,
        witness_key: Path | None = None,
    ) -> None:
        """Open a ledger by its URL, or use an open database; raises `LedgerError`.

        `witness_key` is the file of the key that signs the history; default in the home folder.
        """
        self._database = Database(database) if isinstance(database, str) else database
        self._clock = clock
        home = self._database.home
        self._witness = Testimony(self._database, home, witness_key, clock)
        self.signed_head, self.compare_heads = self._witness.signed_head, self._witness.compare
        self.foreign_heads, self.witnessed = self._witness.foreign, self._witness.newest
        reader = Reader(self._database, clock)
        self.policies, self.policy, self.secret = reader.policies, reader.policy, reader.secret
        self.deployment_rules, self.service_mode = reader.deployment_rules, reader.service_mode
        self.champion, self.canary, self.shadow = reader.champion, reader.canary, reader.shadow
        self.interface, self.leased_mode = reader.interface, reader.leased_mode
        self.served, self.version, self.versions = reader.served, reader.version, reader.versions
        self.events, self.count, self.evidence = reader.events, reader.count, reader.evidence
        self.notes = reader.notes
        self.passed, self.verdict, self.pending = reader.passed, reader.verdict, reader.pending
        self.former, self.holdback = reader.former, reader.holdback
        self.propose_trial, self.carried = reader.propose_trial, reader.carried
        trial = TrialSteps(self._take, reader)
        self.start_shadow, self.stop_shadow = trial.start_shadow, trial.stop_shadow
        self.start_canary, self.set_canary_weight = trial.start_canary, trial.set_canary_weight
        self.set_trial_status, self.abort_canary = trial.set_trial_status, trial.abort_canary
        self.expire_canary = trial.expire_canary
        self.rollback_held, self.end_holdback = trial.rollback_held, trial.end_holdback
        log = EpisodeLog(self._database, clock)
        self.start_episodes, self.find_episode = log.start_episodes, log.find_episode
        self.record_outcome, self.outcomes = log.record_outcome, log.outcomes
        self.last_started = log.last_started
        self.resolved, self.prune_starts = log.resolved, log.prune_starts
        self.started = log.started
        self.trial_state, self.advance_trial = log.trial_state, log.advance_trial
        self.watch_state, self.advance_watch = log.watch_state, log.advance_watch
        self.add_compared, self.compared = log.add_compared, log.compared

    def close(self) -> None:
        self._database.close()

    def _take(
        self,
        action: str,
        who: Who,
        request: Mapping[str, Any],
        work: Callable[[Step], Any],
        *,
        version: int | None = None,
        policy: str = POLICY,
    ) -> Any:
        """Run `work` in one transaction, once per idempotency key; returns its JSON result."""
        if not who.actor.strip() or not who.reason.strip():
            raise TransitionRefused(f"{action} needs an actor and a reason, and one is empty")
        # an old owner's name may have control characters
        who = replace(who, actor=written_out(who.actor), reason=unix_lines(who.reason))
        _check_texts(action, "an actor and a reason", who.actor, who.reason)
        lifeline = action in LIFELINES
        if lifeline:
            self._with_room(self.expire)
        else:
            self.expire()
        said = request if policy == POLICY or version is not None else {**request, "of": policy}

        def step() -> Any:
            with self._database.write() as connection:
                of = policy if version is None else rows.find_version(connection, version).policy
                rows.find_policy(connection, of)
                return once(Step(connection, action, who, self._clock(), of), said, on_seen)

        def on_seen(step: Step) -> Any:
            step.expect(who.generation)
            return work(step)

        result = self._with_room(step) if lifeline else step()
        self._witness.head("step", who)
        return result

    def _with_room(self, step: Callable[[], Any]) -> Any:
        """Take a step that must work on a full disk; it uses the reserve."""
        while True:
            try:
                return step()
            except LedgerFull:
                if not self._database.spend_reserve():
                    raise

    # ---------------------------------------------------------------------------- policies

    def add_policy(self, name: str, *, who: Who) -> None:
        """Make a policy without a champion; an existing policy is not changed."""
        with self._database.read() as connection:
            query = select(schema.policies.c.name).where(schema.policies.c.name == name)
            if connection.execute(query).scalar() is not None:
                return
        self._take("add_policy", who, {"name": name}, lambda step: champions.add(step, name))

    def set_mode(self, policy: str, mode: str, *, who: Who) -> None:
        """Record the present mode of the policy's world.

        A pass in another mode becomes stale, a trial of such a version ends, and an evaluation in
        another mode ends as ERROR.
        """

        _check_texts("set_mode", "a mode", mode)

        def work(step: Step) -> None:
            champions.set_mode(step, mode)

        self._take("set_mode", who, {"mode": mode}, work, policy=policy)

    def set_deployment_rules(
        self, rules: DeploymentRules, *, who: Who, policy: str = POLICY
    ) -> None:
        """Set the rules for future approvals and trials; a running trial keeps its rules."""

        def work(step: Step) -> None:
            set_rules(step, rules)

        said = rules.model_dump(mode="json")
        self._take("set_deployment_rules", who, said, work, policy=policy)

    def note(
        self,
        action: str,
        evidence: Mapping[str, Any],
        *,
        who: Who,
        policy: str = POLICY,
        also: Callable[[Connection], None] | None = None,
    ) -> str:
        """Write an event that changes no version (drift, a diagnosis); returns its hash.

        `also` writes what belongs to it, after the event and in its transaction. Control characters
        in the reason are written out: a program quotes what others raised, and must not lose it.
        """
        who = replace(who, reason=written_out(unix_lines(who.reason)))

        def work(step: Step) -> str:
            noted = step.record(None, None, None, evidence).hash
            if also is not None:
                also(step.connection)
            return noted

        return str(self._take(action, who, dict(evidence), work, policy=policy))

    # ----------------------------------------------------------------------------- judging

    def register(
        self,
        digest: str,
        *,
        env_fingerprint: str,
        mode: str,
        run_id: str,
        manifest: Mapping[str, Any],
        who: Who,
        policy: str = POLICY,
        submitter: str | None = None,
    ) -> int:
        """Give a candidate a version number; a known one keeps its number.

        `submitter` is the person for whom `who` registers it. Under the rule of two persons,
        another person must approve it.
        """
        _check_texts("register", "a mode, a run and a submitter", mode, run_id, submitter or "")

        def work(step: Step) -> int:
            asked = (digest, env_fingerprint, mode, run_id, manifest)
            return judging.register(step, *asked, submitter=submitter)

        request = {"digest": digest, "env_fingerprint": env_fingerprint, "mode": mode}
        return int(self._take("register", who, request, work, policy=policy))

    def recall(
        self,
        version: int,
        *,
        env_fingerprint: str,
        mode: str,
        who: Who,
        changed: Mapping[str, Any] | None = None,
    ) -> int:
        """Register a retired champion as a new version, to be judged in that world and mode.

        If it was recalled to them before, it keeps that number. A withdrawn genome is refused.
        `changed` replaces entries of its manifest: those that depend on the world.
        """

        def work(step: Step) -> int:
            return judging.recall(step, version, env_fingerprint, mode, changed or {})

        request = {"version": version, "env_fingerprint": env_fingerprint, "mode": mode}
        return int(self._take("recall", who, request, work, version=version))

    def begin_evaluation(
        self,
        version: int,
        *,
        suite_version: str,
        policy_digest: str,
        who: Who,
        incumbent_digest: str | None = None,
        max_attempts: int = 3,
        lease_seconds: float = LEASE_SECONDS,
    ) -> Evaluation:
        """Take the lease to judge a version, and freeze the tuple that its verdict will be about.

        `incumbent_digest` is the champion that the caller will judge against (`None`: no champion).
        Raises `TransitionRefused` if it is not the current champion, if another evaluation holds
        the lease, if the genome was rejected before, or if `max_attempts` evaluations of this
        genome in this world were made, or some by another rule that leave too little of its alpha.
        """

        def work(step: Step) -> dict[str, Any]:
            frozen = (suite_version, policy_digest, incumbent_digest)
            return judging.begin(step, version, *frozen, max_attempts, lease_seconds)

        request = {"version": version, "suite": suite_version, "policy": policy_digest}
        return Evaluation(**self._take("begin_evaluation", who, request, work, version=version))

    def resume_evaluation(
        self,
        version: int,
        *,
        attempt: int,
        suite_version: str,
        policy_digest: str,
        who: Who,
        incumbent_digest: str | None = None,
        max_attempts: int = 3,
        lease_seconds: float = LEASE_SECONDS,
    ) -> Evaluation:
        """Resume an attempt that was interrupted before its verdict, with a new lease.

        If its tuple has changed, above all the champion, the ledger first ends the old evaluation
        as an ERROR, so that none of its results can be recorded. Then it freezes the new tuple. It
        is still the same attempt on the same episodes, because nobody has seen their results.
        Raises `TransitionRefused` if the attempt has its verdict, or another one was begun.
        """

        def work(step: Step) -> dict[str, Any]:
            frozen = (suite_version, policy_digest, incumbent_digest)
            return judging.resume(step, version, attempt, *frozen, max_attempts, lease_seconds)

        return Evaluation(**self._take("resume_evaluation", who, {}, work, version=version))

    def renew_evaluation(
        self, version: int, *, attempt: int, who: Who, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        """Keep the lease of an attempt that is at work; without effect on one that is over.

        A lease that ran out is taken again, if nothing of its tuple has changed since.
        """

        def work(step: Step) -> None:
            judging.renew(step, version, attempt, lease_seconds)

        self._take("renew_evaluation", who, {}, work, version=version)

    def record_verdict(
        self,
        version: int,
        verdict: Mapping[str, Any],
        *,
        report_path: Path | str,
        report_digest: str,
        who: Who,
    ) -> State:
        """End an evaluation with the gate's verdict; returns the version's new state.

        The verdict must be about the tuple that was frozen when the evaluation began, have at
        least one check, and name the report at `report_path`. One that comes after the lease ran
        out is recorded if nothing of that tuple has changed since. If the champion has changed
        since, a pass is recorded and becomes stale at once.
        """
        # it quotes the names of checks
        who = replace(who, reason=written_out(unix_lines(who.reason)))

        def work(step: Step) -> str:
            return judging.record_verdict(step, version, verdict, Path(report_path), report_digest)

        request = {"version": version, "verdict": dict(verdict), "report": report_digest}
        return State(self._take("record_verdict", who, request, work, version=version))

    def expire(self) -> list[int]:
        """End overdue evaluations as ERROR and old passes as STALE; returns their versions."""
        now, table = self._clock(), schema.versions
        overdue = select(table.c.version).where(table.c.deadline < now, table.c.state.in_(DATED))
        with self._database.read() as connection:
            if connection.execute(overdue).first() is None:
                return []
        with self._database.write() as connection:
            found = list(connection.execute(overdue.order_by(table.c.version)).scalars())
            for number in found:
                version = rows.find_version(connection, number)
                who = Who("ledger", "its time ran out")
                judging.overdue(Step(connection, EXPIRE, who, now, version.policy), version)
        return found

    # ------------------------------------------------------------------------------ review

    def approve(self, version: int, *, report_digest: str, who: Who) -> None:
        """Approve a pass, by the digest of the report that was read."""

        def work(step: Step) -> None:
            champions.approve(step, version, report_digest, self._database.home)

        request = {"version": version, "report": report_digest}
        self._take("approve", who, request, work, version=version)

    def reject(self, version: int, *, who: Who) -> None:
        """Reject a passed or approved version for good."""

        def work(step: Step) -> None:
            trials.withdraw(step, version, State.REJECTED, quarantined=True)

        self._take("reject", who, {"version": version}, work, version=version)

    def mark_stale(self, version: int, *, who: Who) -> None:
        """End a pass, approval or trial that is no longer valid: environment or suite changed."""

        def work(step: Step) -> None:
            trials.withdraw(step, version, State.STALE)

        self._take("mark_stale", who, {"version": version}, work, version=version)

    # ---------------------------------------------------------------------------- champion

    def promote(self, version: int, *, expected_generation: int, who: Who) -> Champion:
        """Make a version champion, if the champion is still the one of `expected_generation`.

        The first champion is promoted from APPROVED (`expected_generation=0`). Every later one is
        promoted from its trial: the ledger decides again on its outcomes and refuses unless the
        decision is to promote. Raises `StaleGeneration` if the champion has changed.
        """

        def work(step: Step) -> dict[str, Any]:
            return asdict(champions.promote(step, version, expected_generation))

        request = {"version": version, "expected_generation": expected_generation}
        return Champion(**self._take("promote", who, request, work, version=version))

    def rollback(
        self,
        *,
        who: Who,
        to_version: int | None = None,
        expected_generation: int | None = None,
        policy: str = POLICY,
    ) -> Champion:
        """Bring a retired champion back: `to_version`, or the last that was not rolled back.

        The present champion is quarantined, so a retry cannot promote it.
        """

        def work(step: Step) -> dict[str, Any]:
            return asdict(champions.rollback(step, to_version, expected_generation))

        request = {"to_version": to_version, "expected_generation": expected_generation}
        return Champion(**self._take("rollback", who, request, work, policy=policy))

    def revoke(self, version: int, *, who: Who) -> None:
        """Take a champion, present or past, out of service for good.

        Revoking the present champion also rolls back, in the same transaction. It is refused if
        there is no champion to roll back to: a policy with a champion always keeps one.
        """

        def work(step: Step) -> None:
            champions.revoke(step, version)

        self._take("revoke", who, {"version": version}, work, version=version)

    # ------------------------------------------------------------------------ bookkeeping

    def ack(self, seq: int) -> None:
        """Mark every event up to `seq` as delivered, unless all were asked for again since.

        `redeliver` may come while a delivery is under way, which does not hold all of them.
        """
        table, events = schema.outbox, schema.events
        again = exists().where(events.c.seq > seq, events.c.action == REDELIVER)
        with self._database.write() as connection:
            change = update(table).where(table.c.seq <= seq, ~table.c.delivered, ~again)
            connection.execute(change.values(delivered=True))

    def redeliver(self, *, who: Who) -> None:
        """Mark every event as undelivered, so that the next delivery sends all to MLflow."""
        self._take(REDELIVER, who, {}, lambda step: step.deliver_again())

    def verify(self) -> int:
        """Check storage, chain, evidence, rows and witness; returns the number of events.

        Raises `LedgerError` that names the first broken event or row.
        """
        self._database.check_storage()
        return self._witness.verify()

    def verify_served(self) -> int:
        """Check all served versions, and the events since the witness's last signature.

        This is for the start of a server; the signature covers the earlier history. Returns the
        number of replayed events. Raises `LedgerError`.
        """
        return self._witness.verify_served()

    def report_problems(self, *, here: bool = False) -> list[str]:
        """The problems with the reports in this home, version by version.

        With `here`, a report that is not in this home is not a problem: hosts may share a store.
        """
        return self._witness.report_problems(here)

    def checkpoint(self) -> Entry | None:
        """The last signed head of the chain; None before the first step, or without a home."""
        return self._witness.last()

    def database(self) -> Database:
        """The database that holds the ledger."""
        return self._database

    def restored(self, evidence: Mapping[str, Any], *, who: Who) -> None:
        """Record in the history and the witness that a backup has replaced the ledger.

        MLflow is to get all again: it has what was undone. Only `serving.registry.backup.restore`
        calls it.
        """

        def again(connection: Connection) -> None:
            connection.execute(update(schema.outbox).values(delivered=False))

        self._witness.head("restore", who)
        self.note("restore", evidence, who=who, also=again)


def _check_texts(action: str, what: str, *texts: str) -> None:
    """Refuse what no terminal should show or no file holds; a history that has it is still read."""
    found = control_in(*texts)
    if found is None:
        return
    if found.startswith("\\u"):
        raise TransitionRefused(
            f"{action} needs {what} in UTF-8, got {found}: set the terminal to it"
        )
    name = "NUL" if found == "\\x00" else "control"
    raise TransitionRefused(
        f"{action} needs {what} without {name} characters, got {found}; tabs and line breaks are "
        f"allowed"
    )
