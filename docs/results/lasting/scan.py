"""Switches one after another, in memory: how many phases are lost, and how soon the others end.

    python docs/results/lasting/scan.py OUT.csv --seeds 101 109 [--arms NAME ...] [--switches 40]

Rows that OUT.csv already has are not made again. Phases of 40 generations, 24 switches by default,
as in `srghn experiment never-return` and `many-switches`, whose runs keep tables and checkpoints.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from srghn import seeding
from srghn.config import EngineSettings, RunParams, parse_params
from srghn.envs import pin
from srghn.evaluation.base import WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution import make_strategy, selection

EVERY, SOLVED = 40, 475.0
#: Constant rates: two that never get anywhere by themselves, and two that suit these worlds.
RATES = (0.003, 0.01, 0.2, 0.35)
PLAIN = {"memory": 0, "newcomers": 0.0}
TRUNCATION = {**PLAIN, "parents": 8, "children": 7, "ties": "parents", "family_limit": 0}
KEPT, BOTH = {"keep_spread": True}, {"keep_spread": True, "stress": True}
NEWCOMERS = {**PLAIN, "newcomers": 0.5}
GA = {**TRUNCATION, "strategy": "ga", "options": {"sigma": 0.3}}


def constant(rate: float) -> dict[str, Any]:
    return {**TRUNCATION, "strategy": "constant-rate", "options": {"rate": rate}}


#: "plain" was called the default until newcomers and memory became it.
ARMS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "default from a rate of 0.003": {"ghn": {"initial_rate": 0.003}},
    "plain": {"evolution": PLAIN},
    "newcomers alone": {"evolution": NEWCOMERS},
    "kept spread": {"ghn": KEPT, "evolution": PLAIN},
    "kept spread and newcomers": {"ghn": KEPT, "evolution": NEWCOMERS},
    "kept spread, newcomers, memory": {"ghn": KEPT},
    "kept spread and stress": {"ghn": BOTH, "evolution": PLAIN},
    "both, with memory": {"ghn": BOTH, "evolution": {**PLAIN, "memory": 8}},
    "both, parents win ties": {"ghn": BOTH, "evolution": {**PLAIN, "ties": "parents"}},
    "newcomers, parents win ties": {"evolution": TRUNCATION | NEWCOMERS},
    **{f"constant-rate {rate:g}": {"evolution": constant(rate)} for rate in RATES},
    **{
        f"constant-rate {rate:g} and newcomers": {"evolution": constant(rate) | NEWCOMERS}
        for rate in RATES
    },
    "constant-rate 0.35, kept spread, newcomers": {
        "ghn": KEPT,
        "evolution": constant(0.35) | NEWCOMERS,
    },
    "ga 0.3": {"evolution": GA},
    "ga 0.3 and newcomers": {"evolution": GA | NEWCOMERS},
}
COLUMNS = ("worlds", "arm", "seed", "phase", "generations", "rate_at_5", "rate_at_39")


def params_of(worlds: str, arm: str, seed: int, switches: int) -> RunParams:
    again = worlds == "recurring"
    modes = [("flipped", "normal")[k % 2] if again else str(k + 1) for k in range(switches)]
    schedule = [{"generation": EVERY * (k + 1), "mode": mode} for k, mode in enumerate(modes)]
    env = {"id": "CartPoleSwitch-v1"}
    if not again:
        env = {"id": "CartPoleRewired-v1", "kwargs": {"series": seed}}
    own = {"seed": seed, "generations": EVERY * (switches + 1)}
    evolution = {**ARMS[arm].get("evolution", {}), **own}
    return parse_params(
        {**ARMS[arm], "env": {**env, "schedule": schedule}, "evolution": evolution}, arm
    )


def scan(worlds: str, arm: str, seed: int, switches: int) -> list[tuple[Any, ...]]:
    params = params_of(worlds, arm, seed, switches)
    version = pin(params.env)
    strategy, tests = (
        make_strategy(params, version.interface),
        seeding.seeds(0, "champion-test", 64),
    )
    rows: list[tuple[Any, ...]] = []
    with make_evaluator(EngineSettings(), version, params.network) as evaluator:

        def fitness(weights: Any, mode: str, seeds: Any) -> Any:
            policies = WeightedPolicies(params.network, version.interface, weights)
            return selection.clean(evaluator.evaluate(policies, Task(version, mode, seeds)).fitness)

        state = strategy.init(seed)
        for phase in range(switches + 1):
            taken, rates = "", {}
            for k in range(EVERY):
                generation, mode = state.generation, version.mode_at(state.generation)
                population = strategy.ask(state)
                episodes = seeding.seeds(seed, "episode", params.evolution.episodes, generation)
                found = fitness(population.weights, mode, episodes)
                best = int(found.argmax())
                if taken == "" and found[best] >= SOLVED / 2:
                    champion = population.weights[best : best + 1]
                    taken = str(k) if fitness(champion, mode, tests)[0] >= SOLVED else ""
                rates[k] = float(np.median(population.rates))
                state = strategy.tell(state, population, found)
            rows.append((worlds, arm, seed, phase, taken, f"{rates[5]:.4g}", f"{rates[39]:.4g}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs=2, default=(101, 109))
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--switches", type=int, default=24)
    given = parser.parse_args()
    if not given.out.exists():
        given.out.write_text(",".join(COLUMNS) + "\n")
    with given.out.open() as file:
        done = {(row["worlds"], row["arm"], row["seed"]) for row in csv.DictReader(file)}
    for seed in range(*given.seeds):
        for arm in given.arms:
            for worlds in ("recurring", "never returning"):
                if (worlds, arm, str(seed)) not in done:
                    rows = scan(worlds, arm, seed, given.switches)
                    with given.out.open("a", newline="") as file:
                        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
