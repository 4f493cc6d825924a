"""Many switches: does the ability to evolve last, also in worlds that never return?

And LunarLander-Switch, a world that is hard from scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pipelines.lab.experiments import targets
from pipelines.lab.experiments.controls import ALL, CONTROLS, LASTING, METHOD, PLAIN, Arms
from pipelines.lab.experiments.spec import Experiment, Outcome, Target

SWITCHES, EVERY = 40, 40

_CONTROLS = {name: arm for name, arm in ALL.items() if name != "openes"}
ARMS: Arms = {METHOD: {}, **LASTING, **_CONTROLS}


def switching(first: int, second: int, total: int, there: str, back: str) -> dict[str, Any]:
    """A switch to one mode and, later, another one."""
    schedule = [{"generation": first, "mode": there}, {"generation": second, "mode": back}]
    return {"env": {"schedule": schedule}, "evolution": {"generations": total}}


def _schedule(
    world: str, modes: Sequence[str], every: int, first: int | None = None
) -> dict[str, Any]:
    """A switch to each mode in turn, `every` generations apart; the first one at `first`."""
    first = every if first is None else first
    switches = [{"generation": first + every * k, "mode": mode} for k, mode in enumerate(modes)]
    return {
        "env": {"id": world, "schedule": switches},
        "evolution": {"generations": first + every * len(modes)},
    }


def _own_world(seed: int) -> Mapping[str, Any]:
    return {"env": {"kwargs": {"series": seed}}}


def _lasting(share: float) -> Callable[[Sequence[Outcome]], list[Target]]:
    return partial(targets.lasting, share=share, best="constant-rate")


def many_switches(quick: bool) -> Experiment:
    count = 6 if quick else SWITCHES
    modes = [("flipped", "normal")[k % 2] for k in range(count)]
    return Experiment(
        name="many-switches",
        title=f"CartPole-Switch {count} times: does the ability to evolve wear out?",
        question="The two actions swap every 40 generations. A phase is lost if no champion "
        "averages 475 over 64 fixed test episodes before the next switch.",
        base=_schedule("CartPoleSwitch-v1", modes, EVERY),
        arms=ARMS,
        solved=475.0,
        test_episodes=64,
        seeds=2 if quick else 20,
        targets=_lasting(0.01),
    )


def never_return(quick: bool) -> Experiment:
    count = 6 if quick else SWITCHES
    return Experiment(
        name="never-return",
        title=f"CartPole in {count + 1} worlds that never return",
        question="Every 40 generations the observations get another order and other signs, and the "
        "actions another order, never seen before (each seed has worlds of its own). A phase is "
        "lost if no champion averages 475 over 64 fixed test episodes before the next.",
        base=_schedule("CartPoleRewired-v1", [str(k + 1) for k in range(count)], EVERY),
        arms=ARMS,
        solved=475.0,
        test_episodes=64,
        seeds=2 if quick else 20,
        targets=_lasting(0.03),
        seeded=_own_world,
        tested="next",
    )


#: LunarLander's arms, before `landers` gives them their population. A step of 0.2 suits the GA.
LANDERS: Arms = {
    METHOD: {},
    "plain": LASTING["plain"],
    targets.MEMORY: LASTING[targets.MEMORY],
    "kept spread and newcomers": LASTING["kept spread and newcomers"],
    "memory": {"evolution": {**PLAIN, "memory": 8}},
    **_CONTROLS,
    "ga": {"evolution": {**CONTROLS["ga"]["evolution"], "options": {"sigma": 0.2}}},
}


def network(hidden: int) -> dict[str, Any]:
    """One hidden layer of tanh."""
    return {"kwargs": {"hidden": [hidden], "activation": "tanh"}}


def _as_many(arm: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arm with 128 individuals, of which (16, 128) are all children."""
    comma = arm.get("evolution", {}).get("selection") == "comma"
    size = {"parents": 16, "children": 8 if comma else 7}
    return {**arm, "evolution": {**arm.get("evolution", {}), **size}}


def landers() -> Arms:
    """LunarLander's arms, with 128 individuals each."""
    return {name: _as_many(arm) for name, arm in LANDERS.items()}


def lunarlander_switch(quick: bool) -> Experiment:
    base = switching(*((6, 10, 12) if quick else (200, 320, 340)), "reversed", "normal")
    base["env"]["id"] = "LunarLanderSwitch-v3"
    base["evolution"]["episodes"] = 2 if quick else 8
    return Experiment(
        name="lunarlander-switch",
        title="LunarLander-Switch: recovery where starting afresh takes long",
        question="The order of LunarLander's actions is reversed at generation 200, and again at "
        "320, for 20 more. A phase is solved in the first generation whose champion averages 200 "
        "over 64 fixed test episodes.",
        base={**base, "network": network(16), "ghn": {"rate_min": 0.03}},
        arms=landers(),
        solved=200.0,
        test_episodes=4 if quick else 64,
        seeds=1 if quick else 10,
        targets=targets.lunarlander_switch,
    )


#: Switches of LunarLander, generations between them, and generations before the first one.
LANDER_SWITCHES, LANDER_EVERY, LANDER_FIRST = 10, 80, 200


def many_landers(quick: bool, recurring: bool) -> Experiment:
    """LunarLander in modes that recur, or in modes that never return."""
    count, every, first = (3, 2, 3) if quick else (LANDER_SWITCHES, LANDER_EVERY, LANDER_FIRST)
    modes = [("reversed", "normal")[k % 2] if recurring else str(k + 1) for k in range(count)]
    world = "LunarLanderSwitch-v3" if recurring else "LunarLanderRewired-v3"
    what = (
        "The order of the actions is reversed, and again"
        if recurring
        else "Observations get another order and other signs, and actions another order, never "
        "seen before,"
    )
    base = _schedule(world, modes, every, first)
    base["evolution"]["episodes"] = 2 if quick else 4
    base |= {"network": network(16), "ghn": {"rate_min": 0.03}}
    return Experiment(
        name="many-switches-lunarlander" if recurring else "never-return-lunarlander",
        title=f"LunarLander {'switched' if recurring else 'rewired'} {count} times",
        question=f"{what} at generation {first} and then every {every}. A phase is lost if no "
        "champion averages 200 over 64 fixed test episodes before the next.",
        base=base,
        arms=landers(),
        solved=200.0,
        test_episodes=4 if quick else 64,
        seeds=1 if quick else 5,
        targets=_lasting(0.01 if recurring else 0.03),
        seeded=(lambda seed: {}) if recurring else _own_world,
        tested="next",
    )


EXPERIMENTS: Mapping[str, Callable[[bool], Experiment]] = {
    "many-switches": many_switches,
    "never-return": never_return,
    "lunarlander-switch": lunarlander_switch,
    "many-switches-lunarlander": partial(many_landers, recurring=True),
    "never-return-lunarlander": partial(many_landers, recurring=False),
}
