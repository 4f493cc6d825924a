"""Trials over simulated traffic, decided by the code that decides real ones.

Clients play one episode after the other. An episode's arm is drawn at the weight of its start, its
return from the world as it is at its start, its duration may depend on the return, and its outcome
may come late or never. As in service, the evidence is the longest prefix in order of start of which
every episode has ended or passed its deadline, and it is looked at again and again.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.trial.decision import Decision, advance, decide, weight_now
from serving.trial.evidence import Log, TrialState, begin
from serving.trial.plan import plan
from serving.trial.rules import TrialRules, WeightStep, within_share
from serving.trial.scenarios import LONGEST, SCENARIOS, Liars, Scenario
from srghn.seeding import stream

Generator = np.random.Generator
#: Starts between two looks of the controller.
LOOK = 20


@dataclass(frozen=True)
class Traffic:
    """`effect`: the canary's mean return less the champion's; `deviation` of a return. Shares."""

    scenario: Scenario
    effect: float
    deviation: float
    clients: int


@dataclass(frozen=True)
class Ended:
    """One simulated trial: its decision, and the episodes that had started by then."""

    decision: Decision
    started: int


def rules_for(scenario: Scenario, weight: float, deviation: float, **given: Any) -> TrialRules:
    """The rules of a trial at one weight, or at the scenario's steps; returns lie in [0, 1]."""
    steps = scenario.steps or (WeightStep(weight=weight, outcomes=20),)
    kept = {"low": 0.0, "high": 1.0, "steps": steps, "deviation": min(max(deviation, 0.01), 0.5)}
    return TrialRules(**{**kept, "deadline": 2 * LONGEST, **scenario.expect, **given})


def simulate(
    traffic: Traffic, rules: TrialRules, seed: int, state: TrialState | None = None
) -> Ended:
    """One trial to its end. `state`: of an expired trial that is tried again."""
    rng = stream(seed, "trial-simulation")
    now = begin(rules) if state is None else state
    free = [(0.0, client) for client in range(traffic.clients)]  # when, who
    arms: list[int] = []
    weights: list[float] = []
    values: list[float] = []
    resolved: list[float] = []  # when each is known, or known to be missing
    posts = _Posts(traffic.scenario.liars, traffic.clients)
    counted, weight = 0, weight_now(now, rules)
    while True:
        for _ in range(LOOK):
            start, client = heapq.heappop(free)
            arm = int(rng.random() < weight)
            value = draw_return(traffic, arm, len(arms), rng)
            end = start + traffic.scenario.duration(value, rng)
            known = end + (rng.exponential(traffic.scenario.delay) if traffic.scenario.delay else 0)
            limit = start + rules.deadline
            gone = traffic.scenario.missing(value, rng) or known > limit
            value, counted_too = posts.post(client, arm, value, gone)
            gone = gone or not counted_too
            arms.append(arm)
            weights.append(weight)
            values.append(np.nan if gone else value)
            resolved.append(limit if gone else known)
            heapq.heappush(free, (end, client))
        ready = counted
        while ready < len(resolved) and resolved[ready] <= free[0][0]:
            ready += 1
        log = _log(arms[counted:ready], weights[counted:ready], values[counted:ready])
        now, decision = advance(now, log, rules)
        if decision.action != "wait":
            return Ended(decision, len(arms))
        counted, weight = ready, weight_now(now, rules)


def replay(log: Log, rules: TrialRules) -> Decision:
    """The decision on a log of real traffic, taken look by look as `simulate` takes it."""
    now = begin(rules)
    decision = decide(now, rules)
    for start in range(0, len(log), LOOK):
        now, decision = advance(now, log[start : start + LOOK], rules)
        if decision.action != "wait":
            break
    return decision


def summary(
    scenario: str,
    *,
    weight: float,
    trials: int,
    effect: float = 0.0,
    deviation: float = 0.1,
    clients: int = 50,
    seed: int = 0,
    **given: Any,
) -> dict[str, Any]:
    """Shares of `trials` that end each way, and how many episodes they take.

    `median_episodes` and `nine_in_ten_episodes` count what had started by then, `planned_episodes`
    what nine equal canaries of ten are planned to take as evidence; `promoted_within_plan` is the
    share promoted on at most that much evidence (None where the plan sees no decision).
    """
    found = SCENARIOS[scenario]
    rules = rules_for(found, weight, deviation, **given)
    traffic = Traffic(found, effect, deviation, clients)
    ended = [simulate(traffic, rules, seed * 1_000_003 + trial) for trial in range(trials)]
    actions = [trial.decision.action for trial in ended]
    episodes = [trial.started for trial in ended]
    planned = plan(rules).equal.nine_in_ten
    within = None
    if planned is not None:
        kept = [t.decision for t in ended if t.decision.episodes <= planned]
        within = [decision.action for decision in kept].count("promote") / trials
    return {
        "promoted": actions.count("promote") / trials,
        "aborted": actions.count("abort") / trials,
        "expired": actions.count("expire") / trials,
        "median_episodes": float(np.median(episodes)),
        "nine_in_ten_episodes": float(np.quantile(episodes, 0.9)),
        "planned_episodes": planned,
        "promoted_within_plan": within,
        "trials": trials,
    }


class _Posts:
    """What clients post, and whether it counts: the liars' cap is on their one token."""

    def __init__(self, liars: Liars | None, clients: int) -> None:
        self._liars, self._total, self._own = liars, 0, 0
        self._first_honest = 0 if liars is None else round(liars.share * clients)

    def post(self, client: int, arm: int, value: float, gone: bool) -> tuple[float, bool]:
        """The return that is posted, and whether it is evidence."""
        liars = self._liars
        if liars is None or gone:
            return value, True
        lies = client < self._first_honest
        kept = not lies or liars.poster_share == 1
        if kept or within_share(self._own, self._total, liars.poster_share):
            self._total += 1
            self._own += lies
            return liars.lie(arm, value) if lies else value, True
        return value, False


def draw_return(traffic: Traffic, arm: int, number: int, rng: Generator) -> float:
    """A scaled return: beta distributed with the wanted mean and standard deviation.

    With failures, an episode is worth 0 with their probability, so the rest lies higher.
    """
    scenario = traffic.scenario
    mean = scenario.mean(number) + arm * traffic.effect
    if scenario.failures:
        if rng.random() < scenario.failures:
            return 0.0
        mean /= 1 - scenario.failures
    if not 0 < mean < 1:
        raise ValueError(f"an effect of {traffic.effect:g} leaves the range: mean {mean:g}")
    most = float(np.sqrt(mean * (1 - mean)))
    deviation = min(traffic.deviation, 0.95 * most)
    if deviation == 0:
        return mean
    size = mean * (1 - mean) / deviation**2 - 1
    return float(rng.beta(mean * size, (1 - mean) * size))


def _log(arms: list[int], weights: list[float], values: list[float]) -> Log:
    return Log(np.array(arms, np.int8), np.array(weights), _floats(values))


def _floats(values: list[float]) -> NDArray[np.float64]:
    return np.array(values, np.float64)
