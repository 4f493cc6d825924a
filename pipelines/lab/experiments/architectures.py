"""One genome for several widths: does it make networks of widths that it never saw?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.lab.experiments import targets
from pipelines.lab.experiments.controls import CONTROLS, METHOD, Arms
from pipelines.lab.experiments.spec import Experiment

EVOLVED, UNSEEN = (4, 8, 16), (6, 12, 24)
SHAPES, DCT = {"shapes": True}, {"head": "dct"}
OWN = 8  # the width that becomes the candidate

#: The method's own head, what it does without its parts, and the heads that fill tensors by rows.
ARMS: Arms = {
    METHOD: {"ghn": DCT},
    f"{METHOD} that sees shapes": {"ghn": {**DCT, **SHAPES}},
    "width 8 alone": {"ghn": DCT, "evolution": {"architectures": []}},
    "constant-rate": {"ghn": DCT, **CONTROLS["constant-rate"]},
    "dense": {"ghn": {"head": "dense"}},
    "chunked": {"ghn": {"head": "chunked"}},
    "chunked that sees shapes": {"ghn": {"head": "chunked", **SHAPES}},
    "basis": {"ghn": {"head": "basis"}},
    "basis that sees shapes": {"ghn": {"head": "basis", **SHAPES}},
}


def architectures(quick: bool) -> Experiment:
    every = 20 if quick else 60
    evolved = [{"hidden": [width]} for width in EVOLVED if width != OWN]
    return Experiment(
        name="architectures",
        title=f"CartPole with widths never seen: evolved at {EVOLVED}, tested at {UNSEEN}",
        question="One genome makes a network with one hidden layer of each width, and its fitness "
        "is the mean over those it evolves for. Does it also make networks of other widths, before "
        "and after the actions swap? A phase counts as solved once a champion averages 475 over 64 "
        "fixed test episodes with every width that it evolves for. At the end of a phase the last "
        "generation's champion is tested with the widths never seen.",
        base={
            "env": {
                "id": "CartPoleSwitch-v1",
                "schedule": [
                    {"generation": every, "mode": "flipped"},
                    {"generation": 2 * every, "mode": "normal"},
                ],
            },
            "network": {"kwargs": {"hidden": [OWN], "activation": "tanh"}},
            "evolution": {"generations": 3 * every, "architectures": evolved},
        },
        arms=ARMS,
        solved=475.0,
        test_episodes=64,
        seeds=2 if quick else 10,
        targets=targets.architectures,
        tested="own",
        networks={str(width): {"hidden": [width]} for width in UNSEEN},
    )


EXPERIMENTS: Mapping[str, Callable[[bool], Experiment]] = {"architectures": architectures}
