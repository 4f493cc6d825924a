"""Environments that never change: what does self-reference cost where nothing has to adapt?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines.lab.experiments import targets
from pipelines.lab.experiments.controls import (
    ALL,
    CONTROLS,
    HELD,
    KEPT,
    LASTING,
    METHOD,
    NEWCOMERS,
    TRUNCATION,
    Arms,
)
from pipelines.lab.experiments.functions import FUNCTIONS, StillFunction
from pipelines.lab.experiments.spec import Experiment
from pipelines.lab.experiments.switching import landers, network
from pipelines.runs.presets import load_preset

#: Evaluations that a run may take on a function.
BUDGET = 20_000
#: Episodes of an individual in a world.
EPISODES = 8


#: Parents and children of each. Ten evaluations a generation suit smooth functions.
SMALL, USUAL, LARGE = (2, 4), (8, 7), (16, 7)
Size = tuple[int, int]
#: Function -> control -> its population, and its step size if it has one. `restart` is missing: it
#: starts again when fitness falls, which it never does here, and would be the GA.
SUITED: Mapping[str, Mapping[str, tuple[Size, float]]] = {
    "sphere": {
        "constant-rate": (SMALL, 0.0), "ga": (SMALL, 0.03), "self-adaptive-ga-plus": (SMALL, 0.3),
        "self-adaptive-ga-comma": (SMALL, 1.0), "gesmr": (SMALL, 0.3), "immigrants": (SMALL, 0.03),
        "snes": (SMALL, 0.5), "cmaes": (SMALL, 1.0),
    },
    "rosenbrock": {
        "constant-rate": (SMALL, 0.0), "ga": (SMALL, 0.03), "self-adaptive-ga-plus": (SMALL, 0.3),
        "self-adaptive-ga-comma": (SMALL, 0.3), "gesmr": (SMALL, 1.0), "immigrants": (USUAL, 0.1),
        "snes": (SMALL, 0.5), "cmaes": (SMALL, 1.0),
    },
    "rastrigin": {
        "constant-rate": (USUAL, 0.0), "ga": (USUAL, 0.3), "self-adaptive-ga-plus": (USUAL, 1.0),
        "self-adaptive-ga-comma": (USUAL, 1.0), "gesmr": (SMALL, 0.3), "immigrants": (USUAL, 0.3),
        "snes": (LARGE, 1.0), "cmaes": (LARGE, 2.0),
    },
}  # fmt: skip


def _sized(size: Size) -> dict[str, Any]:
    return {"parents": size[0], "children": size[1]}


def _suited(function: str) -> Arms:
    """The method with a small and with the default population, and the controls as they suit."""
    arms: dict[str, dict[str, Any]] = {
        METHOD: {"evolution": _sized(SMALL)},
        f"{METHOD} 6x10": {},
        "kept spread and newcomers": {"ghn": KEPT, "evolution": NEWCOMERS | _sized(SMALL)},
    }
    for name, (size, step) in SUITED[function].items():
        if name == "constant-rate":
            arms |= {n: _with(arm, size) for n, arm in HELD.items()}
        else:
            arms[name] = _with(CONTROLS[name], size, sigma=step)
    return arms


def _with(arm: Mapping[str, Any], size: Size, **options: float) -> dict[str, Any]:
    """The control with another population and step size; of immigrants an eighth is enough."""
    evolution = arm["evolution"]
    chosen = {**evolution.get("options", {}), **options}
    if evolution["strategy"] == "immigrants":
        chosen["share"] = 0.125
    return {"evolution": {**evolution, **_sized(size), "options": chosen}}


def static(quick: bool) -> Experiment:
    budget = 2000 if quick else BUDGET
    arms: dict[str, dict[str, Any]] = {}
    for function in FUNCTIONS:
        world = {"env": {"kwargs": {"function": function}}}
        for name, arm in _suited(function).items():
            arms[f"{function} {name}"] = {**world, **arm}
    return Experiment(
        name="static",
        title="Functions of ten variables that do not change",
        question=f"How many of {budget:,} evaluations does each strategy need until the error is "
        "below 0.001? The controls have the step sizes and populations that suited them best "
        "(docs/results/static/settings.py). The optimum is 3 away from the origin in each "
        "variable.",
        base={
            "env": {
                "id": f"{StillFunction.__module__}:{StillFunction.__name__}",
                "max_episode_steps": 1,
            },
            "network": {"module": "srghn.policies:Point", "kwargs": {}},
            "evolution": {"episodes": 1},
        },
        arms=arms,
        budget=budget,
        solved=-1e-3,
        test_episodes=0,
        seeds=2 if quick else 20,
        targets=targets.still,
        log_error=True,
        until_solved=True,
    )


@dataclass(frozen=True)
class World:
    """An environment with the mean return that solves it, a run's episodes, and the arms."""

    solved: float
    budget: int
    seeds: int
    base: Mapping[str, Any]
    arms: Arms


CARTPOLE: Arms = {
    METHOD: {},
    "kept spread and newcomers": LASTING["kept spread and newcomers"],
    **ALL,
}
WORLDS: Mapping[str, World] = {
    "CartPole-v1": World(475.0, 20_480, 20, {"network": network(8)}, CARTPOLE),
    "LunarLander-v3": World(
        200.0,
        102_400,
        5,
        {"network": network(16), "ghn": {"rate_min": 0.03}},
        {name: arm for name, arm in landers().items() if "memory" not in name},
    ),
}


def static_world(quick: bool, world: str) -> Experiment:
    known, name = WORLDS[world], world.partition("-")[0]
    budget = known.budget // 10 if quick else known.budget
    return Experiment(
        name=f"static-{name.lower()}",
        title=f"{name} at equal evaluations",
        question=f"How many of {budget:,} episodes does each strategy need until its champion "
        f"averages {known.solved:g} over 64 fixed test episodes?",
        base={**known.base, "env": {"id": world}, "evolution": {"episodes": EPISODES}},
        arms=known.arms,
        budget=budget,
        solved=known.solved,
        test_episodes=64,
        seeds=2 if quick else known.seeds,
        targets=targets.still,
        until_solved=True,
    )


#: Ant's arms. Steps of 0.1 at most, because a body that has learnt to stand falls over soon; with
#: 0.1 SNES learns nothing, and with 0.03 more than the method.
WALKERS: Arms = {
    METHOD: {},
    "plain": LASTING["plain"],
    **{
        f"constant-rate {rate:g}": {
            "evolution": {**TRUNCATION, "strategy": "constant-rate", "options": {"rate": rate}}
        }
        for rate in (0.02, 0.05, 0.1)
    },
    "ga": {"evolution": {**CONTROLS["ga"]["evolution"], "options": {"sigma": 0.1}}},
    "gesmr": CONTROLS["gesmr"],
    **{
        name: {"evolution": {**CONTROLS[name]["evolution"], "options": {"sigma": sigma}}}
        for name, sigma in (("snes", 0.03), ("cmaes", 0.1))
    },
}


def ant(quick: bool) -> Experiment:
    base = load_preset("ant").model_dump(
        mode="json", include={"env", "network", "ghn", "evolution"}, exclude_unset=True
    )
    if quick:
        base["evolution"]["generations"] = 3
    return Experiment(
        name="ant",
        title="Ant: a body with four legs learns to walk",
        question="What does the champion of the last generation average over 100 fresh episodes? "
        "Standing still gives about 1,000. The parameters are those of the preset `ant`.",
        base=base,
        arms=WALKERS,
        solved=targets.WALKS,
        test_episodes=2 if quick else 100,
        test_every=25,
        seeds=1 if quick else 3,
        targets=targets.ant,
    )


EXPERIMENTS: Mapping[str, Callable[[bool], Experiment]] = {
    "static": static,
    "static-cartpole": partial(static_world, world="CartPole-v1"),
    "static-lunarlander": partial(static_world, world="LunarLander-v3"),
    "ant": ant,
}
