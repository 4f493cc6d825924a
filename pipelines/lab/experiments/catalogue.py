"""The experiments: CartPole whose actions switch, unknown starting rates, functions that move.

Each shows the controls beside the method, at settings that suit them. The method's claim is that
the right step size need not be known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pipelines.lab.experiments import architectures, still, switching, targets
from pipelines.lab.experiments.controls import ALL, CONTROLS, LASTING, METHOD, Arms
from pipelines.lab.experiments.spec import Experiment

START_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
HIDDEN = (2, 4, 8, 16, 32)
FUNCTIONS = ("sphere", "rosenbrock", "rastrigin")
#: Settings against wear, and none of them: what do they cost elsewhere?
AGAINST_WEAR = ("plain", "newcomers alone", "kept spread and newcomers")
#: Function -> control -> the options that suited it best there, of those that
#: docs/results/functions-2d/settings.py tried; those of CartPole where none did well.
SUITED: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "sphere": {
        "constant-rate": {"rate": 0.1}, "ga": {"sigma": 0.3}, "restart": {"sigma": 0.3},
        "immigrants": {"sigma": 0.1, "share": 0.125}, "self-adaptive-ga-plus": {"sigma": 0.1},
        "self-adaptive-ga-comma": {"sigma": 0.3}, "gesmr": {"sigma": 1.0}, "snes": {"sigma": 1.0},
        "cmaes": {"sigma": 0.5}, "openes": {"sigma": 0.1, "learning_rate": 0.3},
    },
    "rosenbrock": {
        "constant-rate": {"rate": 0.1}, "ga": {"sigma": 0.1}, "restart": {"sigma": 0.1},
        "immigrants": {"sigma": 0.1, "share": 0.125}, "self-adaptive-ga-plus": {"sigma": 0.1},
        "self-adaptive-ga-comma": {"sigma": 1.0}, "gesmr": {"sigma": 1.0}, "snes": {"sigma": 0.1},
        "cmaes": {"sigma": 0.5}, "openes": {"sigma": 0.3, "learning_rate": 0.3},
    },
    "rastrigin": {
        "constant-rate": {"rate": 0.1}, "ga": {"sigma": 0.3}, "restart": {"sigma": 0.3},
        "immigrants": {"sigma": 0.3, "share": 0.125}, "self-adaptive-ga-plus": {"sigma": 0.3},
        "self-adaptive-ga-comma": {"sigma": 1.0}, "gesmr": {"sigma": 0.3}, "snes": {"sigma": 0.5},
        "cmaes": {"sigma": 0.5}, "openes": {"sigma": 0.3, "learning_rate": 0.1},
    },
}  # fmt: skip


def _cartpole(first: int, second: int, total: int) -> dict[str, Any]:
    base = switching.switching(first, second, total, "flipped", "normal")
    base["env"]["id"] = "CartPoleSwitch-v1"
    return base


def cartpole_switch(quick: bool, first: int = 600) -> Experiment:
    """The actions swap at generation `first`, and swap back 400 later; quick: a tenth of that."""
    moments = [first, first + 400, first + 800]
    return Experiment(
        name="cartpole-switch" if first == 600 else f"cartpole-switch-{first}",
        title="CartPole-Switch: recovery from actions that change their meaning",
        question="How soon does evolution recover when the two actions of CartPole swap, and swap "
        "back? A phase counts as recovered in the first generation whose champion averages 475 "
        "over 64 fixed test episodes.",
        base=_cartpole(*(moment // 10 if quick else moment for moment in moments)),
        arms={METHOD: {}, **{name: LASTING[name] for name in AGAINST_WEAR}, **ALL},
        solved=475.0,
        test_episodes=64,
        seeds=2 if quick else 20,
        targets=targets.cartpole_switch,
    )


def start_rate(quick: bool) -> Experiment:
    arms: dict[str, dict[str, Any]] = {}
    for rate in START_RATES:
        low = {"ghn": {"initial_rate": rate}}
        arms[f"{METHOD} {rate:g}"] = low
        arms[f"constant-rate {rate:g}"] = {**low, **CONTROLS["constant-rate"]}
    return Experiment(
        name="start-rate",
        title="CartPole-Switch from a badly chosen initial mutation rate",
        question="Does evolution recover from any initial rate? The same hypernetwork with a "
        "self-adapted rate, and with a constant one.",
        base=_cartpole(60, 100, 140) if quick else _cartpole(200, 400, 600),
        arms=arms,
        solved=475.0,
        test_episodes=64,
        seeds=1 if quick else 20,
        targets=targets.start_rate,
    )


def _moving(quick: bool) -> dict[str, Any]:
    base = switching.switching(*((80, 160, 240) if quick else (200, 400, 600)), "away", "home")
    base["env"]["id"] = "pipelines.lab.experiments.functions:MovingFunction"
    base["evolution"]["episodes"] = 1
    return base


def functions_2d(quick: bool) -> Experiment:
    arms: dict[str, dict[str, Any]] = {}
    for function in FUNCTIONS[:1] if quick else FUNCTIONS:
        world = {"env": {"kwargs": {"function": function, "max_episode_steps": 1}}}
        arms[f"{function} {METHOD}"] = world
        arms |= {f"{function} {name}": {**world, **LASTING[name]} for name in AGAINST_WEAR}
        for name, options in SUITED[function].items():
            evolution = {**CONTROLS[name]["evolution"], "options": options}
            arms[f"{function} {name}"] = {**world, "evolution": evolution}
    return Experiment(
        name="functions-2d",
        title="Functions of two variables whose optimum moves by 28",
        question="How soon is the error below 0.001 again after the optimum has moved, and how do "
        "mutation rate and diversity respond? No rate is scheduled.",
        base=_moving(quick),
        arms=arms,
        solved=-1e-3,
        test_episodes=0,
        seeds=3 if quick else 20,
        targets=targets.functions_2d,
        log_error=True,
    )


def hidden_sizes(quick: bool) -> Experiment:
    base = _moving(quick)
    base["env"]["kwargs"] = {"function": "sphere", "max_episode_steps": 1}
    arms: dict[str, dict[str, Any]] = {}
    for hidden in HIDDEN:
        width = {"ghn": {"hidden": hidden}}
        arms[f"{METHOD} {hidden}"] = width
        arms[f"constant-rate {hidden}"] = {**width, **CONTROLS["constant-rate"]}
    return Experiment(
        name="hidden-sizes",
        title="How wide must the hypernetwork's vectors be?",
        question="The sphere whose optimum moves by 28, with vectors of different widths. The "
        "paper found 2 and 4 too small.",
        base=base,
        arms=arms,
        solved=-1e-3,
        test_episodes=0,
        seeds=3 if quick else 20,
        targets=targets.hidden_sizes,
        log_error=True,
    )


#: One change each from the defaults of `EvolutionParams` and `GHNParams`.
CHANGES: Arms = {
    "no memory": {"evolution": {"memory": 0}},
    "no newcomers": {"evolution": {"newcomers": 0.0}},
    "ties parents": {"evolution": {"ties": "parents"}},
    "ties children": {"evolution": {"ties": "children"}},
    "comma": {"evolution": {"selection": "comma"}},
    "tournament": {"evolution": {"selection": "tournament"}},
    "no family limit": {"evolution": {"family_limit": 0}},
    "one of a family": {"evolution": {"family_limit": 1}},
    "8 parents x 7 children": {"evolution": {"parents": 8, "children": 7}},
    "32 parents x 1 child": {"evolution": {"parents": 32, "children": 1}},
    "no meta floor": {"ghn": {"meta_floor": 0.0}},
    "clipped rates": {"ghn": {"rate_bounds": "clip"}},
    "rate step 0.25": {"ghn": {"rate_step": 0.25}},
    "kept spread": {"ghn": {"keep_spread": True}},
    "stress": {"ghn": {"stress": True}},
    "kept spread and stress": {"ghn": {"keep_spread": True, "stress": True}},
    "no mutator decay": {"ghn": {"mutator_decay": 0.0}},
    "decay 0.01": {"ghn": {"birth_decay": 0.01}},
}


def ablation(quick: bool) -> Experiment:
    return Experiment(
        name="ablation",
        title="CartPole-Switch: one change at a time from the defaults",
        question="Which of the defaults matter: who survives, who wins ties at the ceiling of 500, "
        "the floor under the rate of the rate head, decay at birth?",
        base=_cartpole(60, 100, 140) if quick else _cartpole(200, 400, 600),
        arms={METHOD: {}, **CHANGES},
        solved=475.0,
        test_episodes=64,
        seeds=2 if quick else 20,
        targets=targets.ablation,
    )


EXPERIMENTS: dict[str, Callable[[bool], Experiment]] = {
    "ablation": ablation,
    "cartpole-switch": cartpole_switch,
    "cartpole-switch-300": partial(cartpole_switch, first=300),
    "cartpole-switch-3000": partial(cartpole_switch, first=3000),
    "start-rate": start_rate,
    "functions-2d": functions_2d,
    "hidden-sizes": hidden_sizes,
    **switching.EXPERIMENTS,
    **still.EXPERIMENTS,
    **architectures.EXPERIMENTS,
}
