"""`srghn canary plan|simulate`: how long a trial takes, and how often it would be wrong."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pipelines.commands.output import JsonOption, out, print_json
from serving.trial.scenarios import SCENARIOS

Scenario = StrEnum("Scenario", {name.replace("-", "_"): name for name in SCENARIOS})  # type: ignore[misc]


def add_to(canary: typer.Typer) -> None:
    """Add the commands to `srghn canary`."""
    canary.command("simulate")(simulate)


def simulate(
    scenario: Annotated[Scenario, typer.Option(help="What the traffic is like.")] = Scenario(
        "steady"
    ),
    weight: Annotated[
        float, typer.Option(help="The canary's share of episodes.", min=0.001, max=0.999)
    ] = 0.5,
    trials: Annotated[int, typer.Option(help="How many trials.", min=1)] = 400,
    effect: Annotated[
        float, typer.Option(help="Canary's mean return less the champion's, share of the range.")
    ] = 0.0,
    sd: Annotated[
        float,
        typer.Option(help="Standard deviation of a return, share of the range.", min=0, max=0.5),
    ] = 0.1,
    margin: Annotated[
        float, typer.Option(help="Loss that is acceptable, share of the range.", min=0.001, max=0.5)
    ] = 0.05,
    max_episodes: Annotated[
        int, typer.Option(help="Episodes until a trial expires.", min=2)
    ] = 8000,
    clients: Annotated[int, typer.Option(help="Episodes at the same time.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Of the simulated traffic.", min=0)] = 0,
    json: JsonOption = False,
) -> None:
    """Run simulated traffic through the code that decides trials.

    Examples:

      srghn canary simulate --scenario common-drop --weight 0.25 --trials 400 --json

      srghn canary simulate --scenario long-bad --effect -0.05   # a canary worse by the margin
    """
    from serving.trial.simulate import summary

    found = summary(
        scenario.value,
        weight=weight,
        trials=trials,
        effect=effect,
        deviation=sd,
        clients=clients,
        seed=seed,
        margin=margin,
        max_episodes=max_episodes,
    )
    if json:
        print_json(found)
        return
    out.print(f"{scenario.value}: {SCENARIOS[scenario.value].about}", markup=False)
    for name in ("promoted", "aborted", "expired"):
        out.print(f"  {name:9} {found[name]:.1%}")
    out.print(
        f"  episodes  {found['median_episodes']:.0f} in the median, "
        f"{found['nine_in_ten_episodes']:.0f} in nine trials of ten"
    )
