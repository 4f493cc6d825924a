"""Simulates trials, decided by the code that decides real ones.

Clients play one episode after the other. An episode's arm is drawn with the weight at its start,
and its return from the world at its start. Its duration may depend on the return, and its outcome
may be late or missing. As in service, the evidence is the longest prefix, in order of start, of
episodes that have ended or passed their deadline. The controller looks at it repeatedly.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.lab.trials.scenarios import LONGEST, SCENARIOS, Scenario
from serving.trial.decision import Decision, advance, decide, weight_now
from serving.trial.evidence import Log, TrialState, begin
from serving.trial.plan import plan
from serving.trial.rules import TrialRules, WeightStep
from srghn.seeding import stream

Generator = np.random.Generator
#: The token that all liars have.
LIAR = "liar"
#: Starts between two looks of the controller.
LOOK = 20
#: Starts that are drawn at once if the weight is constant.
AHEAD = 20 * LOOK


@dataclass(frozen=True)
class Traffic:
    """`effect`: the canary's mean return minus the champion's; `deviation`: of a return.

    Both are shares of the range.
    """

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
    """The rules of a trial with one weight, or with the scenario's steps; returns in [0, 1].

    As in service, it is planned with the deviation that a gate would measure, failures included.
    """
    steps = scenario.steps or (WeightStep(weight=weight, outcomes=20),)
    met = min(max(scenario.spread(deviation), 0.01), 0.5)
    kept = {"low": 0.0, "high": 1.0, "steps": steps, "deviation": met}
    return TrialRules(**{**kept, "deadline": 2 * LONGEST, **scenario.expect, **given})


def simulate(
    traffic: Traffic, rules: TrialRules, seed: int, state: TrialState | None = None
) -> Ended:
    """Simulate one trial to its end. `state`: that of an expired trial, to continue it.

    The controller looks every LOOK starts, and so does this loop while the weight may change. After
    that the decision does not depend on the looks, so AHEAD starts are drawn at once.
    """
    rng = stream(seed, "trial-simulation")
    now = begin(rules) if state is None else state
    played, counted = _Played(traffic, rules, rng), 0
    while True:
        weight = weight_now(now, rules)
        played.go_on(weight, AHEAD if weight == rules.weight else LOOK)
        ready = played.ready(len(played))
        now, decision = advance(now, played.log(counted, ready), rules)
        if decision.action != "wait":
            began = state.episodes if state is not None else 0
            return Ended(decision, played.looked(decision.episodes - began))
        counted = ready


def replay(log: Log, rules: TrialRules) -> Decision:
    """The decision on a log of real traffic, taken look by look as in `simulate`."""
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
    """The shares of `trials` with each end, and their numbers of episodes.

    `median_episodes` and `nine_in_ten_episodes` count all episodes that had started by the
    decision. `planned_episodes` is the evidence that nine of ten equal canaries should need.
    `promoted_within_plan` is the share promoted with at most that evidence; None if the plan
    expects no decision.
    """
    found = SCENARIOS[scenario]
    rules = rules_for(found, weight, deviation, **given)
    traffic = Traffic(found, effect, deviation, clients)
    ended = [simulate(traffic, rules, seed * 1_000_003 + trial) for trial in range(trials)]
    actions = [trial.decision.action for trial in ended]
    episodes = [trial.started for trial in ended]
    planned = plan(rules, mean=found.level).equal.nine_in_ten
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


class _Played:
    """Episodes in order of start: their clients, their ends, and when these were known."""

    def __init__(self, traffic: Traffic, rules: TrialRules, rng: Generator) -> None:
        self._traffic, self._deadline, self._rng = traffic, rules.deadline, rng
        self._free = [(0.0, client) for client in range(traffic.clients)]  # (time free, client)
        liars = traffic.scenario.liars
        self._liars = 0 if liars is None else round(liars.share * traffic.clients)
        self._posters: tuple[str | None, ...] = ()
        self._arms = np.zeros(0, np.int8)
        self._weights, self._values, self._starts, self._known = (np.zeros(0) for _ in range(4))

    def __len__(self) -> int:
        return len(self._arms)

    def go_on(self, weight: float, count: int) -> None:
        """Play `count` more episodes."""
        scenario, rng = self._traffic.scenario, self._rng
        arms = (rng.random(count) < weight).astype(np.int8)
        values = draw_returns(self._traffic, arms, len(self) + np.arange(count), rng)
        lasts = scenario.duration(values, rng)
        after = lasts + (rng.exponential(scenario.delay, count) if scenario.delay else 0.0)
        gone = scenario.missing(values, rng) | (after > self._deadline)
        starts, posters = np.empty(count), [*self._posters, *[None] * count]
        for n, last in enumerate(lasts.tolist()):
            starts[n], client = self._free[0]
            heapq.heapreplace(self._free, (float(starts[n]) + last, client))
            if client < self._liars and scenario.liars is not None:
                values[n] = scenario.liars.lie(int(arms[n]), float(values[n]))
                posters[len(self) + n] = LIAR
        known = starts + np.where(gone, self._deadline, after)
        self._arms = np.append(self._arms, arms)
        self._posters = tuple(posters)
        self._weights = np.append(self._weights, np.full(count, weight))
        self._values = np.append(self._values, np.where(gone, np.nan, values))
        self._starts = np.append(self._starts, starts)
        self._known = np.maximum.accumulate(np.append(self._known, known))  # of all episodes so far

    def ready(self, started: int) -> int:
        """Episodes that are evidence once `started` have started, at the next one's start."""
        now = self._starts[started] if started < len(self) else self._free[0][0]
        return int(np.searchsorted(self._known, now, side="right"))

    def looked(self, evidence: int) -> int:
        """Starts at the first look that finds this much evidence."""
        looks = range(LOOK, len(self) + 1, LOOK)
        return next(started for started in looks if self.ready(started) >= evidence)

    def log(self, first: int, end: int) -> Log:
        part = slice(first, end)
        return Log(self._arms[part], self._weights[part], self._values[part], self._posters[part])


def draw_returns(
    traffic: Traffic, arms: NDArray[np.int8], numbers: NDArray[np.int64], rng: Generator
) -> NDArray[np.float64]:
    """Scaled returns (n,): beta distributed with the scenario's mean and standard deviation.

    With failures, a return is 0 with their probability, and the other returns are higher, so the
    mean is the same. Raises `ValueError` if the effect leaves the range.
    """
    scenario = traffic.scenario
    means = (scenario.mean(numbers) + arms * traffic.effect) / (1 - scenario.failures)
    if not np.all((means > 0) & (means < 1)):
        raise ValueError(f"an effect of {traffic.effect:g} leaves the range: mean {means}")
    deviations = np.minimum(traffic.deviation, 0.95 * np.sqrt(means * (1 - means)))
    values = means
    if traffic.deviation:
        sizes = means * (1 - means) / deviations**2 - 1
        values = rng.beta(means * sizes, (1 - means) * sizes)
    if scenario.failures:
        values = np.where(rng.random(len(values)) < scenario.failures, 0.0, values)
    return values
