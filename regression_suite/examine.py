"""Playing every cell, and what is seen on the way: for the gate and for comparisons."""

from __future__ import annotations

from dataclasses import replace

from regression_suite import behaviour, checks, estimates
from regression_suite.arena import Arena
from regression_suite.episodes import Played, Progress, Recorder, Seen
from regression_suite.estimates import CellEstimate
from regression_suite.evidence import Evidence
from regression_suite.report.film import record, worst_seed
from regression_suite.suite import plan
from srghn.candidates.candidate import OnnxPolicy
from srghn.config import NetworkParams
from srghn.evaluation.base import choose_backend, make_backend


def meet(
    evidence: Evidence, root: int, progress: Progress | None = None, *, whole: bool = False
) -> tuple[Evidence, Seen]:
    """Play every cell until it is decided, or `whole`, as planned.

    Gives the evidence with episodes, films and behaviour, and a sample of what the candidate met in
    the primary cell.
    """
    assert evidence.candidate is not None
    policy = evidence.candidate.policy()
    theirs = None if evidence.incumbent is None else evidence.incumbent.policy()
    played, recorder = _play(evidence, policy, theirs, root, progress, whole)
    seen, seed = recorder.sample(behaviour.SAMPLE), worst_seed(played[0])
    version, mode, observed = evidence.version, evidence.mode, None
    if len(seen):
        observed = behaviour.observe(version.interface, seen, policy, theirs)
    found = replace(
        evidence,
        played=played,
        film=record(policy, version, mode, seed),
        rival_film=None if theirs is None else record(theirs, version, mode, seed),
        behaviour=observed,
    )
    return found, seen


def estimated(evidence: Evidence) -> tuple[CellEstimate, ...]:
    """Every played cell as estimates; the tail is looked at in the primary one alone."""
    scale = estimates.scale_of(evidence.params, evidence.tried)
    return tuple(
        estimates.estimate(played, evidence.params, scale, tail=played.cell.kind == "primary")
        for played in evidence.played
    )


def _play(
    evidence: Evidence,
    policy: OnnxPolicy,
    theirs: OnnxPolicy | None,
    root: int,
    progress: Progress | None,
    whole: bool,
) -> tuple[tuple[Played, ...], Recorder]:
    params, version, network = evidence.params, evidence.version, NetworkParams()
    scale = estimates.scale_of(params, evidence.tried)

    def decided(played: Played, all_planned: bool) -> bool:
        if whole:
            return all_planned
        primary = played.cell.kind == "primary"
        rules = checks.stopping_rules(params, all_planned) if primary else params
        cell = estimates.estimate(played, params, scale, tail=False)
        over = checks.decided(checks.cell_checks(cell, rules))
        if primary and over:  # the tail costs more to look at, so it comes last
            cell = estimates.estimate(played, params, scale, tail=True)
            over = checks.decided(checks.cell_checks(cell, rules))
        return over

    backend = choose_backend(version, network)
    with make_backend(backend, version, network) as evaluator:
        arena = Arena(policy, theirs, version, evaluator, root)
        played = arena.play(plan(version, evidence.mode, params), decided, progress)
    return played, arena.recorder
