"""Many switches: does the ability to evolve last, also in worlds that never return?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pipelines.lab.experiments import targets
from pipelines.lab.experiments.controls import CONTROLS, HELD, LASTING, METHOD, Arms
from pipelines.lab.experiments.spec import Experiment, Outcome, Target

SWITCHES, EVERY = 40, 40

#: Every control, with all constant rates instead of one.
ARMS: Arms = {
    METHOD: {},
    **LASTING,
    **HELD,
    **{name: arm for name, arm in CONTROLS.items() if name not in ("constant-rate", "openes")},
}


def _schedule(world: str, modes: Sequence[str], every: int) -> dict[str, Any]:
    """A switch to each of the modes in turn, `every` generations apart."""
    switches = [{"generation": every * (k + 1), "mode": mode} for k, mode in enumerate(modes)]
    return {
        "env": {"id": world, "schedule": switches},
        "evolution": {"generations": every * (len(modes) + 1)},
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


EXPERIMENTS: Mapping[str, Callable[[bool], Experiment]] = {
    "many-switches": many_switches,
    "never-return": never_return,
}
