"""`srghn canary plan|simulate`: how long a trial takes, and how often it would be wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.output import JsonOption, load_settings, out, print_json, table
from srghn.errors import ConfigError


def add_to(canary: typer.Typer) -> None:
    """Add the commands to `srghn canary`."""
    canary.command("plan")(plan)
    canary.command("simulate")(simulate)


def plan(
    version: Annotated[int, typer.Argument(help="The version's number, as in `srghn candidates`.")],
    weight: Annotated[
        float | None, typer.Option(help="The canary's share of episodes, without steps.")
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option(help="How much better or worse; share of the range. Default: two margins."),
    ] = None,
    missing: Annotated[
        float | None, typer.Option(help="Share of outcomes that go missing.", min=0, max=0.99)
    ] = None,
    json: JsonOption = False,
) -> None:
    """How many episodes a trial of this version would take, before it starts.

    Example: srghn canary plan 2 --missing 0.05
    """
    from pipelines.versions.release import Release
    from serving.control.release import canary_rules
    from serving.trial.plan import plan as plan_of

    ledger = Release(load_settings()).ledger
    found = ledger.version(version)
    rules = ledger.propose_trial(version, canary_rules(found), weight)
    if missing is not None:
        rules = rules.model_copy(update={"missing": missing})
    planned = plan_of(rules, effect)
    if json:
        print_json({"version": version, **planned.to_json()})
        return
    out.print(
        f"version {version}: at weight {planned.weight:g}, margin {planned.margin:.1%}, standard "
        f"deviation {planned.deviation:.1%} of the range, {planned.missing:.1%} missing outcomes",
        soft_wrap=True,
    )
    shown = table("episodes until a decision", "canary", "half of the trials", "nine of ten")
    sizes = {"equal": "equal", "better": f"better by {planned.effect:.1%}"}
    sizes["worse"] = f"worse by {planned.effect:.1%}"
    for name, said in sizes.items():
        length = getattr(planned, name)
        cells = [str(n) if n else "undecided" for n in (length.median, length.nine_in_ten)]
        shown.add_row(said, *cells)
    out.print(shown)
    if planned.problem:
        out.print(f"[yellow]{planned.problem}[/yellow]", soft_wrap=True)


def simulate(
    scenario: Annotated[str, typer.Option(help="What the traffic is like.")] = "steady",
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

      srghn canary simulate --scenario long-bad --effect -0.05
    """
    from serving.trial.scenarios import SCENARIOS
    from serving.trial.simulate import summary

    if scenario not in SCENARIOS:
        raise ConfigError(f"--scenario takes one of {', '.join(SCENARIOS)}; got {scenario!r}")

    found = summary(
        scenario,
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
    out.print(f"{scenario}: {SCENARIOS[scenario].about}", markup=False)
    for name in ("promoted", "aborted", "expired"):
        out.print(f"  {name:9} {found[name]:.1%}")
    out.print(
        f"  episodes  {found['median_episodes']:.0f} in the median, "
        f"{found['nine_in_ten_episodes']:.0f} in nine trials of ten"
    )
