"""Decides a trial from its evidence: promote, abort, expire, or wait.

A decision depends only on the log in order of start. It does not depend on the number of looks or
of workers, or on the order in which outcomes arrive. `advance` stops at the first episode at which
the rules decide, so every reader of the same log stops at the same episode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from serving.trial.bets import guard
from serving.trial.evidence import Log, Path, TrialState, blocks, capped, follow, state_at
from serving.trial.rules import CAP_FROM, TrialRules

Action = Literal["wait", "promote", "abort", "expire"]


@dataclass(frozen=True)
class Decision:
    """An action, its reason, and the state of each test: capital as a multiple of the start.

    `needed` is the capital that aborts, `promote_needed` the one that promotes, `guard_needed` the
    one at which a guard stops the decision. `effect` is the difference of the arms' mean scaled
    returns; None without outcomes.
    """

    action: Action
    reason: str
    episodes: int
    champion: dict[str, Any]
    canary: dict[str, Any]
    effect: float | None
    promote: float
    harm: float
    ratio: float
    missing: float
    needed: float
    promote_needed: float
    guard_needed: float

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def advance(state: TrialState, log: Log, rules: TrialRules) -> tuple[TrialState, Decision]:
    """Count the next episodes of a trial, up to the one at which it is decided, and no further."""
    decision = decide(state, rules)
    if decision.action != "wait":
        return state, decision
    for block in blocks(log):
        rest = block
        while len(rest):
            known = capped(state, rest, rules)
            path, logs = follow(state, known, rules)
            index = _first(state, known, path, rules)
            count = len(rest) if index is None else index + 1
            state = state_at(state, known, logs, count, rules)
            decision = decide(state, rules)
            if decision.action != "wait":
                return state, decision
            rest = rest[count:]
    return state, decision


def decide(state: TrialState, rules: TrialRules) -> Decision:
    """The decision at one state. A broken guard stops any decision; harm is checked first."""
    capital = _capital(state)
    action, reason = _verdict(state, capital, rules)
    champion, canary = state.champion, state.canary
    both = champion.mean is not None and canary.mean is not None
    return Decision(
        action=action,
        reason=reason,
        episodes=state.episodes,
        champion=_arm(state, "champion"),
        canary=_arm(state, "canary"),
        effect=(canary.mean or 0.0) - (champion.mean or 0.0) if both else None,
        promote=_exp(capital["promote"]),
        harm=_exp(capital["harm"]),
        ratio=_exp(capital["ratio"]),
        missing=_exp(capital["missing"]),
        needed=1 / rules.alpha,
        promote_needed=1 / rules.promote_alpha,
        guard_needed=1 / rules.guard_alpha,
    )


def weight_now(state: TrialState, rules: TrialRules) -> float:
    """The canary's share of new episodes: that of the first step without enough outcomes."""
    for step in rules.steps[:-1]:
        if state.canary.outcomes < step.outcomes:
            return step.weight
    return rules.steps[-1].weight


def exposed(state: TrialState, rules: TrialRules) -> bool:
    """Whether the canary has the outcomes that a promotion needs."""
    return state.canary.outcomes >= max(step.outcomes for step in rules.steps)


def _verdict(state: TrialState, capital: dict[str, float], rules: TrialRules) -> tuple[Action, str]:
    limit, stop = math.log(1 / rules.alpha), math.log(1 / rules.guard_alpha)
    said = _described(state)
    stopped = _stopped(capital, stop) or _too_few(state, rules)
    if stopped is None and capital["harm"] >= limit:
        return "abort", f"the canary is worse: {said}"
    enough = math.log(1 / rules.promote_alpha)
    if stopped is None and capital["promote"] >= enough and exposed(state, rules):
        return "promote", f"the canary is not worse by {100 * rules.margin:g}% or more: {said}"
    if state.episodes - state.since >= rules.max_episodes:
        why = stopped or f"neither harm nor absence of harm is shown: {said}"
        return "expire", f"no decision after {state.episodes} episodes; {why}"
    if stopped is not None:
        return "wait", stopped
    if not exposed(state, rules):
        least = max(step.outcomes for step in rules.steps)
        return "wait", f"{state.canary.outcomes} outcomes of the canary, {least} are needed; {said}"
    return "wait", f"neither harm nor absence of harm is shown: {said}"


def _stopped(capital: dict[str, float], stop: float) -> str | None:
    if capital["ratio"] >= stop:
        return "episodes do not fall on the arms as their weights say; neither arm can be judged"
    if capital["missing"] >= stop:
        return (
            "outcomes go missing more often in one arm than in the other; neither arm can be judged"
        )
    return None


def _too_few(state: TrialState, rules: TrialRules) -> str | None:
    """Why a poster's cap has no meaning yet."""
    if state.outcomes >= _least(rules):
        return None
    share = f"{100 * rules.poster_share:g}%"
    return (
        f"{state.outcomes} outcomes are evidence, and a decision needs {CAP_FROM}, since no token "
        f"may give more than {share} of them"
    )


def _least(rules: TrialRules) -> int:
    """The outcomes without which nothing is decided."""
    return CAP_FROM if rules.poster_share < 1 else 0


def _capital(state: TrialState) -> dict[str, float]:
    sides = guard()
    found = {
        "promote": float(state.bets.promote.log_capital(state.promote).min()),
        "harm": float(state.bets.harm.log_capital(state.harm).min()),
    }
    for name, logs in (("ratio", state.ratio), ("missing", state.missing)):
        up, down = sides.log_capital(logs)
        found[name] = float(np.logaddexp(up, down) - np.log(2))
    return found


def _first(state: TrialState, log: Log, path: Path, rules: TrialRules) -> int | None:
    """Index of the first episode at which the trial is decided; None if there is none."""
    limit, stop = math.log(1 / rules.alpha), math.log(1 / rules.guard_alpha)
    n = state.episodes - state.since + np.arange(1, len(log) + 1)
    arrived = ~np.isnan(log.values)
    known = np.cumsum((log.arms == 1) & arrived) + state.canary.outcomes
    ready = known >= max(step.outcomes for step in rules.steps)
    enough = np.cumsum(arrived) + state.outcomes >= _least(rules)
    calm = (path.ratio < stop) & (path.missing < stop) & enough
    ends: Sequence[NDArray[np.bool_]] = (
        (path.harm >= limit) & calm,
        (path.promote >= math.log(1 / rules.promote_alpha)) & ready & calm,
        n >= rules.max_episodes,
    )
    over = np.logical_or.reduce(ends)
    return int(over.argmax()) if over.any() else None


def _arm(state: TrialState, name: str) -> dict[str, Any]:
    count = getattr(state, name)
    return {"episodes": count.episodes, "missing": count.missing, "mean": count.mean}


def _described(state: TrialState) -> str:
    parts = []
    for name in ("canary", "champion"):
        count = getattr(state, name)
        mean = "no outcome" if count.mean is None else f"mean {100 * count.mean:.1f}%"
        parts.append(f"{name} {mean} of the range over {count.outcomes} episodes")
    said = ", ".join(parts)
    if not state.since:
        return said
    return f"{said}; {state.since} of {state.episodes} episodes are of its earlier trials"


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
