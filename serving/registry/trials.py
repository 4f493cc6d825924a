"""Steps of a trial: its shadow, its share of episodes, and an end without promotion."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, Row, insert, select, update

from serving.registry import chain, episodes, guards, holdbacks, rows, schema
from serving.registry.records import Canary, Version
from serving.registry.rules import current_rules
from serving.registry.states import State
from serving.registry.steps import Step
from serving.trial.rules import TrialRules, WeightStep, terms_of
from srghn.config import CanaryParams
from srghn.errors import TransitionRefused
from srghn.inference.spending import spent

if TYPE_CHECKING:
    from serving.trial.evidence import TrialState

Status = Literal["running", "paused", "held"]

#: Rules that act on later episodes alone, so a trial that continues another takes the new ones.
LATER = ("max_episodes", "steps", "deadline", "idle", "poster_share")


def start_shadow(step: Step, version: int, loaded: Mapping[str, Any]) -> None:
    """Make an approved version the shadow: it answers a copy of the traffic."""
    others = step.in_state(State.SHADOW)
    if others:
        raise TransitionRefused(
            f"version {others[0].version} is the shadow; end it first: "
            f"srghn canary shadow {others[0].version} --stop"
        )
    guards.check_loaded(step.version(version), loaded)
    step.move(version, State.SHADOW, evidence={"loaded": dict(loaded)})


def stop_shadow(step: Step, version: int, evidence: Mapping[str, Any] | None) -> None:
    """End a shadow, with its results as evidence; the version is approved as before."""
    found = step.version(version)
    if found.state is not State.SHADOW:
        raise TransitionRefused(f"version {version} is {found.state}, it is not the shadow")
    seen = guards.shadow_showed(step, found)
    said = {**(evidence or {}), **({} if seen is None else {"copies": seen.to_json()})}
    step.move(version, State.APPROVED, evidence=said)


def start(
    step: Step,
    version: int,
    params: CanaryParams,
    loaded: Mapping[str, Any],
    weight: float | None = None,
) -> int:
    """Begin a trial, or continue an earlier one (`continued`); returns its epoch.

    `weight`: a constant share from the first episode, instead of steps.
    """
    found, running = step.version(version), step.canary()
    if running is not None:
        raise TransitionRefused(
            f"version {running.version} is on trial; one canary at a time: wait, or "
            f"abort it (srghn canary abort {running.version})"
        )
    if step.champion() is None:
        how = "approve" if found.state is State.PASSED else "promote"
        raise TransitionRefused(
            f"there is no champion to try version {version} against; {how} it "
            f'(srghn {how} {version} --reason "...")'
        )
    holdbacks.check_none(step)
    guards.check_interface(step, found.manifest)
    guards.check_loaded(found, loaded)
    deployment = current_rules(step.connection, step.policy)
    guards.check_shadowed(step, found, deployment)
    proposed = propose(step.connection, found, params, step.now, weight)
    rules, state = continued(proposed, carried(step.connection, found))
    said = {
        "loaded": dict(loaded),
        "params": rules.to_json(),
        "weight": rules.steps[0].weight,
        "state": state,
    }
    epoch = step.move(version, State.CANARY, evidence=said, deadline=None)
    step.connection.execute(
        insert(schema.trial).values(
            policy=step.policy,
            version=version,
            epoch=epoch,
            weight=rules.steps[0].weight,
            status="running",
            params=json.dumps(rules.to_json()),
            since=step.at,
        )
    )
    step.connection.execute(
        insert(schema.trial_state).values(
            policy=step.policy, trial=epoch, n=0, generation=0, state=json.dumps(state)
        )
    )
    return epoch


def set_weight(step: Step, weight: float, version: int | None = None) -> None:
    """Set the canary's share of new episodes; `version`: only if it is on trial."""
    guards.check_weight(weight)
    running = _on_trial(step, version)
    step.move(running.version, State.CANARY, evidence={"weight": weight})
    _change(step, weight=weight)


def set_status(step: Step, status: Status, version: int | None = None) -> None:
    """Run, pause (no new episode) or hold (no decision) the trial."""
    running = _on_trial(step, version)
    if running.status == status:
        raise TransitionRefused(f"the trial of version {running.version} is {status} already")
    step.move(running.version, State.CANARY, evidence={"status": status})
    _change(step, status=status)


def end(
    step: Step,
    to: Literal[State.ABORTED, State.EXPIRED],
    version: int | None,
    evidence: Mapping[str, Any] | None,
    expires: float | None = None,
) -> int:
    """End the trial without a promotion: ABORTED with quarantine, or EXPIRED (undecided)."""
    running = _on_trial(step, version)
    columns: dict[str, Any] = {"quarantined": True} if to is State.ABORTED else {}
    step.move(running.version, to, evidence=evidence, deadline=expires, **columns)
    step.end_trial()
    return running.version


def withdraw(step: Step, version: int, to: State, **columns: Any) -> None:
    """Take a version out of its state; if it is on trial, the trial ends."""
    running = step.canary()
    step.move(version, to, deadline=None, **columns)
    if running is not None and running.version == version:
        step.end_trial()


def _on_trial(step: Step, version: int | None) -> Canary:
    """The trial; refused if another version was expected to be on trial."""
    running = guards.running_canary(step)
    if version is not None and running.version != version:
        raise TransitionRefused(f"version {version} is not on trial, version {running.version} is")
    return running


def _change(step: Step, **columns: Any) -> None:
    change = update(schema.trial).where(schema.trial.c.policy == step.policy)
    step.connection.execute(change.values(**columns))


def carried(connection: Connection, found: Version) -> tuple[TrialRules, TrialState] | None:
    """The rules and evidence of the trial that one of this version continues; None without any."""
    before = _earlier(connection, found)
    if before is None:
        return None
    from serving.registry import trial_log  # numpy, which few steps need

    earlier = trial_log.began_with(connection, before)
    # One that still runs is missing: if it held back what started after it, a new pass within its
    # deadline would be a fresh chance.
    state, _ = trial_log.counted(connection, found.policy, before, earlier, math.inf)
    return earlier, state.retry(earlier)


def continued(
    proposed: TrialRules, before: tuple[TrialRules, TrialState] | None
) -> tuple[TrialRules, dict[str, Any]]:
    """Rules and state with which a trial begins; no state without evidence.

    A trial that continues another keeps its rules and its state. So its capital is not reset, and
    no margin is chosen after seeing the evidence. What acts on later episodes alone is as proposed.
    """
    if before is None:
        return proposed, {}
    earlier, state = before
    # A genome has its share of alpha once, from its first trial under the rule that spends it.
    spends = earlier if earlier.spending == "candidates" else proposed
    share = {"spending": spends.spending, "promote_share": spends.promote_share}
    if not state.episodes:
        return proposed.model_copy(update=share), {}
    fresh = {name: getattr(proposed, name) for name in LATER}
    return earlier.model_copy(update=fresh | share), state.to_json()


def _earlier(connection: Connection, found: Version) -> int | None:
    """Epoch of the genome's last trial against this champion, in the mode that it passed in.

    Its evidence is about the same question, whatever happened in between: the trial expired, the
    watch alarmed, the pass became stale and another was won, under another manifest perhaps, or
    another champion came and was rolled back. Without it each of them would give fresh chances.
    Trials that 0.2.0 began are left out: it deleted starts without an outcome and kept no weights.
    """
    own = _question(connection, found.version, found.genome)
    for begun, question in _met(connection, found.policy):
        if question == own and begun.format > 1:
            return int(begun.seq)
    return None


def _met(connection: Connection, policy: str) -> Iterator[tuple[Row[Any], tuple[str, str | None]]]:
    """First event and question of each trial against the present champion, whenever it was served.

    The last trial comes first. A champion that was recalled has another number and the same genome.
    """
    champion = rows.find_champion(connection, policy)
    if champion is None:
        return
    events, versions = schema.events, schema.versions
    crowned = (
        select(events.c.generation)
        .join(versions, versions.c.version == events.c.version)
        .where(
            events.c.policy == policy,
            versions.c.genome == rows.find_version(connection, champion.version).genome,
            events.c.to_state == State.CHAMPION,
        )
    )
    begun = (
        select(events.c.seq, events.c.version, versions.c.genome, events.c.format)
        .join(versions, versions.c.version == events.c.version)
        .where(
            events.c.policy == policy,
            events.c.action == "start_canary",
            events.c.generation.in_(crowned),
        )
    )
    for row in connection.execute(begun.order_by(events.c.seq.desc())).all():
        yield row, _question(connection, row.version, row.genome, row.seq)


def _question(
    connection: Connection, version: int, genome: str, before: int | None = None
) -> tuple[str, str | None]:
    """What a trial asks about the champion: is this genome worse, in the mode that it passed in?"""
    return genome, rows.passed_mode(connection, version, before)


def propose(
    connection: Connection,
    found: Version,
    params: CanaryParams,
    now: float,
    weight: float | None = None,
) -> TrialRules:
    """The rules with which a trial of this version would begin at `now` (Unix seconds).

    The range is the run's, the terms are the policy's. The bets are planned with the standard
    deviation of returns that the gate measured, and with the share of missing outcomes in service,
    unless the terms name one. Where the terms spend alpha over candidates, a promotion has what the
    genomes that met this champion before have left. `weight`: a constant share from the first
    episode.
    """
    deployment = current_rules(connection, found.policy)
    deviation = _deviation(connection, found)
    rules = terms_of(params, deployment.trial, deviation, deployment.poster_share)
    if rules.spending == "candidates":
        met = {question for _, question in _met(connection, found.policy)}
        others = met - {_question(connection, found.version, found.genome)}
        rules = rules.model_copy(update={"promote_share": spent(len(others))})
    if not rules.missing:
        share = episodes.missing(connection, found.policy, rules.deadline, now)
        rules = rules.model_copy(update={"missing": share})
    if weight is None:
        return rules
    guards.check_weight(weight)
    at_once = WeightStep(weight=weight, outcomes=rules.steps[-1].outcomes)
    return rules.model_copy(update={"steps": (at_once,)})


def _deviation(connection: Connection, found: Version) -> float | None:
    """Standard deviation of a return in the gate's report, as a share of the range.

    It plans the bets; a wrong value makes a trial longer but not its decision wrong. None if no
    gate measured it.
    """
    passed = [e for e in chain.read_events(connection, found.version) if e.to_state == "PASSED"]
    if not passed or passed[-1].evidence_sha256 is None:
        return None
    said = rows.find_evidence(connection, passed[-1].evidence_sha256).get("deviation")
    return float(said) if isinstance(said, int | float) and math.isfinite(said) else None
