"""Conditions for taking a step. Each raises a `TransitionRefused` that says what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, func, select

from serving.registry import comparisons, reports, rows, schema
from serving.registry.interfaces import SUCCESSOR, difference, other_actions, replaced
from serving.registry.records import Canary, Champion, Version
from serving.registry.rules import DeploymentRules
from serving.registry.states import VERDICTS, State
from serving.registry.steps import Step
from serving.registry.texts import written_out
from serving.trial.compared import Compared
from srghn.errors import TransitionRefused
from srghn.inference.verdict import contradiction

#: The ledger's step that ends an evaluation because the tuple of its lease has changed.
CUT_OFF = "cut_off"
#: The ledger's step that ends a lease, or a pass, whose time ran out.
EXPIRE = "expire"
#: The largest `gate.attempts`.
MOST_ATTEMPTS = 10


def short(digest: str | None) -> str:
    return f"{digest[:16]}…" if digest else "nobody"


def incumbent(step: Step, found: Version) -> Champion | None:
    """The champion that a version is judged against; None for a successor with other sensors."""
    return None if succeeds(step, found) else step.champion()


def succeeds(step: Step, found: Version) -> bool:
    """Whether it is a successor whose observations differ from the champion's."""
    served = rows.find_interface(step.connection, step.policy)
    changed = difference(served, found.manifest.get("interface")) is not None
    return changed and bool(found.manifest.get(SUCCESSOR))


def check_incumbent(step: Step, version: int, meant: str | None) -> None:
    champion = incumbent(step, step.version(version))
    now = champion.digest if champion else None
    if meant != now:
        raise TransitionRefused(
            f"version {version} was to be judged against {short(meant)}, but the champion is "
            f"{short(now)}; judge it against that one"
        )


def check_unleased(found: Version) -> None:
    if found.state is State.EVALUATING:
        raise TransitionRefused(
            f"version {found.version} is EVALUATING: attempt {found.attempt} holds the lease. Wait "
            f"for its verdict; if it was killed, srghn run --resume {found.run_id} resumes it"
        )


def check_unjudged(connection: Connection, found: Version, attempt: int) -> None:
    """Check that the attempt is the last one and has no verdict.

    Its lease may have run out, or the ledger may have ended it.
    """
    lost = found.state is State.ERROR and _ended(connection, found) in (EXPIRE, CUT_OFF)
    if found.attempt != attempt or not (lost or found.state is State.EVALUATING):
        raise TransitionRefused(
            f"attempt {attempt} of version {found.version} is over: the version is {found.state} "
            f"after attempt {found.attempt}; srghn report {found.version} shows its outcome"
        )


def ran_out(connection: Connection, found: Version) -> bool:
    """Whether the lease of the version's last evaluation ran out, and nothing came after."""
    return found.state is State.ERROR and _ended(connection, found) == EXPIRE


def _ended(connection: Connection, found: Version) -> str:
    """The step that the version's last event is of."""
    table = schema.events
    last = select(table.c.action).where(table.c.version == found.version)
    return str(connection.execute(last.order_by(table.c.seq.desc()).limit(1)).scalar())


def check_attempts(
    connection: Connection, found: Version, mode: str, allowed: int, resumed: bool = False
) -> None:
    """Refuse another evaluation in `mode` of a genome that has had `allowed` of them.

    Evaluations are counted for genome, policy, world and the mode that they were made in. So
    another manifest around the same genome makes another version but gives no new attempts. The
    count restarts when a pass in this mode goes stale, or a champion that passed in it is replaced.
    They share one alpha: each takes 1 / its rule's attempts of it, so another rule must fit into
    what is left. `resumed`: this is the version's last attempt once more, perhaps by another rule.
    """
    attempts = _attempts(connection, found, mode)
    own = [one for one in attempts if one.version == found.version]
    if resumed and own:
        attempts.remove(own[-1])
    made = [one.allowed or allowed for one in attempts if mode in one.modes]
    if len(made) >= allowed:
        raise TransitionRefused(
            f"version {found.version} was evaluated {len(made)} times, {allowed} are allowed; "
            f"evolve another candidate"
        )
    left = 1 - sum(Fraction(1, one) for one in made)
    if Fraction(1, allowed) > left:
        fits = math.ceil(1 / left) if left else MOST_ATTEMPTS + 1
        how = f"set it to {fits}, or " if fits <= MOST_ATTEMPTS else ""
        raise TransitionRefused(
            f"version {found.version} was evaluated by gate.attempts "
            f"{', '.join(map(str, made))}, and attempts share one alpha: one by gate.attempts "
            f"{allowed} would take more than is left; {how}evolve another candidate"
        )


@dataclass(eq=False)
class _Attempt:
    """An evaluation: its modes, of which one that was cut off may have several; most allowed.

    `allowed` is None where no lease says it, before 0.3; of several the least, to be sure.
    """

    version: int
    modes: set[str] = field(default_factory=set)
    allowed: int | None = None


def _attempts(connection: Connection, found: Version, mode: str) -> list[_Attempt]:
    """Each evaluation of the genome since a pass in `mode` went stale, in order.

    One in another mode goes stale whenever the mode changes, and says nothing of this one.
    """
    table, kin = schema.events, _kin(found)
    over = select(table.c.seq, table.c.version).where(
        table.c.version.in_(kin), table.c.to_state.in_([State.STALE, State.RETIRED])
    )
    ended = connection.execute(over.order_by(table.c.seq.desc())).all()
    modes = ((row.seq, rows.passed_mode(connection, row.version, row.seq)) for row in ended)
    last_stale = next((seq for seq, passed in modes if passed in (None, mode)), 0)
    leases = select(table.c.version, table.c.action, table.c.evidence_sha256).where(
        table.c.version.in_(kin),
        table.c.to_state == State.EVALUATING,
        table.c.seq > last_stale,
    )
    attempts: list[_Attempt] = []
    latest: dict[int, _Attempt] = {}
    for row in connection.execute(leases.order_by(table.c.seq)):
        if row.action == "begin_evaluation" or row.version not in latest:
            latest[row.version] = _Attempt(row.version)
            attempts.append(latest[row.version])
        one, said = latest[row.version], rows.leased(connection, row.version, row.evidence_sha256)
        one.modes.add(said["mode"])
        if (most := said.get("attempts")) is not None:
            one.allowed = min(most, one.allowed or most)
    return attempts


def check_genome(connection: Connection, found: Version, mode: str) -> None:
    """Refuse a genome that failed in `mode`, or was rejected or quarantined in it, in this world.

    A copy with another manifest is refused too: it is another version of the same genome.
    """
    table = schema.versions
    query = select(table.c.version, table.c.mode, table.c.state, table.c.quarantined).where(
        table.c.version.in_(_kin(found)), table.c.version != found.version
    )
    for row in connection.execute(query.order_by(table.c.version)):
        if not (row.quarantined or row.state == State.FAILED):
            continue
        if (rows.leased_mode(connection, row.version) or row.mode) == mode:
            raise TransitionRefused(
                f"version {found.version} has the genome of version {row.version}, which is "
                f"{row.state}{' and quarantined' if row.quarantined else ''}; evolve another "
                f"candidate"
            )


def check_never_withdrawn(step: Step, found: Version) -> None:
    """Refuse a genome that was aborted as harmful or taken out of service, in any world."""
    table = schema.versions
    query = select(table.c.version, table.c.state).where(
        table.c.genome == found.genome,
        table.c.policy == found.policy,
        table.c.state.in_([State.ABORTED, State.REVOKED]),
    )
    for row in step.connection.execute(query.order_by(table.c.version)):
        raise TransitionRefused(
            f"version {found.version} has the genome of version {row.version}, which is "
            f"{row.state}, and is not recalled; evolve another candidate: srghn run"
        )


def _kin(found: Version) -> Select[tuple[int]]:
    """Versions of the same genome, policy and world, this one among them.

    Whatever mode their manifests name: a manifest says where a genome was evolved, and the served
    mode is where it is judged.
    """
    table = schema.versions
    return select(table.c.version).where(
        table.c.genome == found.genome,
        table.c.policy == found.policy,
        table.c.env_fingerprint == found.env_fingerprint,
    )


def check_leased(connection: Connection, found: Version) -> None:
    """Refuse unless an evaluation holds the version's lease, and say what ended the last one."""
    if found.state is State.EVALUATING:
        return
    table = schema.events
    last = select(table.c.action, table.c.reason).where(table.c.version == found.version)
    ended = connection.execute(last.order_by(table.c.seq.desc()).limit(1)).one()
    if ended.action == CUT_OFF:
        raise TransitionRefused(
            f"version {found.version} is {found.state}: {ended.reason}, so this verdict no longer "
            f"holds; judge it again: srghn gate {found.version}"
        )
    raise TransitionRefused(
        f"version {found.version} is {found.state}: no evaluation holds its lease, so no "
        "verdict is accepted; begin an evaluation and judge it again"
    )


def check_verdict(found: Version, verdict: Mapping[str, Any], mode: str) -> None:
    """Check a verdict: its form, its checks, and that it is about the tuple frozen in the lease.

    `mode` is the served mode: a version that is good only in another mode cannot be champion.
    """
    frozen = {
        "candidate_digest": found.digest,
        "env_fingerprint": found.env_fingerprint,
        "mode": mode,
        "suite_version": found.suite_version,
        "policy_digest": found.policy_digest,
        "incumbent_digest": found.incumbent_digest,
        "attempt": found.attempt,
    }
    for key, expected in frozen.items():
        if key not in verdict or verdict[key] != expected:
            raise TransitionRefused(
                f"the verdict is not about this evaluation of version {found.version}: {key} "
                f"should be {expected!r}, got {verdict.get(key)!r}; judge it again"
            )
    if verdict.get("verdict") not in VERDICTS:
        raise TransitionRefused(
            f"a verdict is one of {', '.join(VERDICTS)}, got {verdict.get('verdict')!r}"
        )
    wrong = contradiction(verdict)
    if wrong is not None:
        raise TransitionRefused(
            f"the verdict on version {found.version} contradicts itself: {wrong}; judge it again"
        )


def check_lease(lease: str, written: int, verdict: Mapping[str, Any]) -> None:
    """Check that the gate's episodes were drawn from this attempt's lease, which was secret before.

    `written` is the format of the event that began it: 0.2.0 (format 1) drew them differently.
    """
    said = verdict.get("lease")
    if said != lease and not (said is None and written == 1):
        raise TransitionRefused(
            f"the verdict's episodes were drawn from {f'lease {short(said)}' if said else 'none'}, "
            f"this attempt's lease is {short(lease)}; judge it again"
        )


def check_report(where: Path, digest: str, verdict: Mapping[str, Any], written: int) -> None:
    """Check that the report is in its place, holds this verdict, and has the files it names.

    `written` is as for `check_lease`: verdicts of 0.2.0 name the page alone.
    """
    if verdict.get("report_digest") != digest:
        raise TransitionRefused(
            f"the verdict names report {short(verdict.get('report_digest'))}, but the report to "
            f"record is {short(digest)}"
        )
    check_files(where, verdict)
    old = written == 1 and verdict.get("lease") is None
    wrong = None if old else reports.otherwise(where, verdict)
    if wrong is not None:
        raise TransitionRefused(f"{wrong}; judge the version again")


def check_files(where: Path, verdict: Mapping[str, Any]) -> None:
    wrong = reports.problem(where, verdict)
    if wrong is not None:
        raise TransitionRefused(
            f"{wrong}; put the report back from a backup, or judge the version again"
        )


def check_weight(weight: float) -> None:
    if not (math.isfinite(weight) and 0 <= weight < 1):
        raise TransitionRefused(f"a canary's weight lies in [0, 1), got {weight!r}")


def running_canary(step: Step) -> Canary:
    running = step.canary()
    if running is None:
        raise TransitionRefused("no canary is on trial")
    return running


def check_trial(step: Step, running: Canary) -> dict[str, Any]:
    """Decide again on the starts in the ledger; returns the decision as the step's evidence.

    Raises `TransitionRefused` unless the decision is to promote.
    """
    from serving.registry.trial_log import decide_again  # numpy, which only this step needs

    decision = decide_again(step.connection, running, step.now)
    if decision.action != "promote":
        raise TransitionRefused(
            f"the trial of version {running.version} does not speak for its promotion: "
            f"{decision.reason}"
        )
    return decision.to_json()


def rollback_target(step: Step, champion: Champion, wanted: int | None) -> int:
    """The version to bring back: `wanted`, or the last champion that was not rolled back."""
    if wanted is None:
        return _previous(step)
    found = step.version(wanted)
    if found.policy != step.policy:
        raise TransitionRefused(
            f"version {wanted} is of policy {found.policy!r}, not of {step.policy!r}"
        )
    if found.state is not State.RETIRED:
        raise TransitionRefused(
            f"version {wanted} is {found.state}; only a retired champion can be brought back"
        )
    if not _fits(step.version(champion.version), found):
        raise TransitionRefused(
            f"version {wanted} passed in environment {short(found.env_fingerprint)}, served is "
            f"{short(champion.env_fingerprint)}; gate it again in the current environment"
        )
    return wanted


def _previous(step: Step) -> int:
    for found in former(step.connection, step.policy):
        return found.version
    raise TransitionRefused(
        "no retired champion is left to roll back to in the current environment; evolve and "
        "promote another candidate"
    )


def former(connection: Connection, policy: str) -> Iterator[Version]:
    """The champions that a rollback may bring back, the last first.

    By the order of events, not by time or number.
    """
    champion = rows.find_champion(connection, policy)
    if champion is None:
        return
    versions, events = schema.versions, schema.events
    query = (
        select(versions)
        .join(events, events.c.version == versions.c.version)
        .where(
            versions.c.policy == policy,
            versions.c.state == State.RETIRED,
            ~versions.c.quarantined,
            events.c.to_state == State.CHAMPION,
        )
        .group_by(versions.c.version)
        .order_by(func.max(events.c.seq).desc())
    )
    current = rows.find_version(connection, champion.version)
    for row in connection.execute(query).mappings():
        found = rows.to_version(row)
        if _fits(current, found):
            yield found


def _fits(current: Version, found: Version) -> bool:
    """Whether a former champion passed in the present one's world, or that one succeeded it."""
    same = found.env_fingerprint == current.env_fingerprint
    return same or replaced(current.manifest, found.manifest)


def check_interface(step: Step, manifest: Mapping[str, Any]) -> None:
    """Refuse another interface than the champion's, except for a successor."""
    served = rows.find_interface(step.connection, step.policy)
    check_change(step.policy, served, manifest.get("interface"), bool(manifest.get(SUCCESSOR)))


def check_change(
    policy: str,
    served: Mapping[str, Any] | None,
    interface: Mapping[str, Any] | None,
    successor: bool,
) -> None:
    """Refuse an interface that the policy's clients do not know, and say what to do instead."""
    changed = difference(served, interface)
    if changed is None:
        return
    of_actions = other_actions(served, interface)
    if of_actions is not None and successor:
        raise TransitionRefused(
            f"policy {policy!r} is served with {of_actions}: clients do not know the new actions, "
            f"so it cannot have such a successor; make another policy: "
            f"srghn run --policy NAME"
        )
    if not successor:
        other = " or let it succeed: srghn run --successor" if of_actions is None else ""
        raise TransitionRefused(
            f"policy {policy!r} is served with {changed}; make another policy: "
            f"srghn run --policy NAME{',' if other else ''}{other}"
        )


def check_loaded(found: Version, loaded: Mapping[str, Any]) -> None:
    """Check that the serving code has loaded the version and its golden outputs matched."""
    if loaded.get("digest") != found.digest or not loaded.get("golden"):
        raise TransitionRefused(
            f"version {found.version} was not shown to load: expected digest {found.digest} and "
            f"golden outputs that match, got {dict(loaded)}"
        )


def shadow_showed(step: Step, found: Version) -> Compared | None:
    """The counts of copies from when a version was last a shadow; None if it never was."""
    epoch = comparisons.epoch(step.connection, found.version, comparisons.SHADOW)
    return None if epoch is None else comparisons.find(step.connection, step.policy, epoch)


def check_shadowed(step: Step, found: Version, rules: DeploymentRules) -> None:
    """If the rules require a shadow, check that it answered enough copies and broke no guard."""
    if not rules.shadow_first or found.state not in (State.APPROVED, State.SHADOW):
        return
    _check_was_shadow(step, found)
    from serving.trial.guards import broken  # numpy, which few steps need

    seen = shadow_showed(step, found)
    assert seen is not None  # `_check_was_shadow` found its shadow
    if seen.copies < rules.shadow_copies:
        raise TransitionRefused(
            f"the deployment rules want {rules.shadow_copies} copies of requests answered by "
            f"version {found.version} as a shadow, but it answered {seen.copies}: "
            f"srghn canary shadow {found.version}; if that stays so, srghn_shadow_outside_total "
            "counts the copies that were dropped because their observations are far outside the "
            "manifest's bounds"
        )
    wrong = broken(seen, rules.guards)
    if wrong is not None:
        raise TransitionRefused(
            f"as a shadow version {found.version} broke the guard of {wrong.name}: {wrong.said}; "
            f"reject it, or change the deployment rules"
        )


def _check_was_shadow(step: Step, found: Version) -> None:
    table = schema.events
    shadowed = select(func.max(table.c.seq)).where(
        table.c.version == found.version, table.c.to_state == State.SHADOW
    )
    judged = select(func.max(table.c.seq)).where(
        table.c.version == found.version, table.c.to_state == State.PASSED
    )
    seen, passed = (step.connection.execute(query).scalar() for query in (shadowed, judged))
    if seen is None or (passed is not None and seen < passed):
        raise TransitionRefused(
            f"the deployment rules require version {found.version} to be a shadow before its "
            f"trial: srghn canary shadow {found.version}"
        )


def check_approver(step: Step, found: Version, rules: DeploymentRules) -> None:
    """Check that the deployment rules allow this actor to approve."""
    if rules.approver == "person" and step.who.actor.startswith("policy:"):
        raise TransitionRefused(
            f"the deployment rules require a person to approve version {found.version}: srghn "
            f"approve {found.version} --reason ..."
        )
    if not rules.two_persons:
        return
    if _person(step.who.actor) in _submitters(step.connection, found.version):
        raise TransitionRefused(
            f"the deployment rules require two persons: {step.who.actor} submitted version "
            f"{found.version} and may not approve it"
        )


def _submitters(connection: Connection, version: int) -> set[str]:
    """The actors of the steps up to the verdict, and the persons for whom runs took them."""
    table = schema.events
    before = select(table.c.actor, table.c.evidence_sha256).where(
        table.c.version == version,
        table.c.action.in_(["register", "recall", "begin_evaluation", "resume_evaluation"]),
    )
    found = set()
    for event in connection.execute(before):
        found.add(_person(event.actor))
        if event.evidence_sha256 is not None:
            by = rows.find_evidence(connection, event.evidence_sha256).get("submitted_by")
            found |= {_person(by)} if by else set()
    return found


def _person(actor: str) -> str:
    """The person behind an actor: `cli:ann` at the command line and `ann` by a token are ann.

    Older events hold a name's control characters, newer ones have them written out.
    """
    return written_out(actor.removeprefix("cli:"))
