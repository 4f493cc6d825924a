"""`srghn canary plan|simulate|shadow|pause|hold|resume|holdback`: around a trial in service."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pipelines.commands.output import (
    JsonOption,
    PolicyOption,
    ReasonOption,
    SeenOption,
    load_settings,
    out,
    print_json,
    table,
    who,
)
from pipelines.versions.people import actor
from srghn.errors import ConfigError


def add_to(canary: typer.Typer) -> None:
    """Add the commands to `srghn canary`."""
    canary.command("plan")(plan)
    canary.command("simulate")(simulate)
    canary.command("shadow")(shadow)
    canary.command("pause")(pause)
    canary.command("hold")(hold)
    canary.command("resume")(resume)
    canary.command("holdback")(holdback)


def plan(
    version: Annotated[int, typer.Argument(help="The version's number, as in `srghn candidates`.")],
    weight: Annotated[
        float | None, typer.Option(help="The canary's constant share of episodes.")
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option(help="How much better or worse; share of the range. Default: two margins."),
    ] = None,
    missing: Annotated[
        float | None, typer.Option(help="Share of outcomes that are missing.", min=0, max=0.99)
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
    planned, before = plan_of(rules, effect), ledger.carried(version)
    if json:
        print_json({"version": version, "before": before, **planned.to_json()})
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
    if before:
        out.print(
            f"it continues with {before} episodes of an earlier trial, by that trial's rules; the "
            "plan is for one without evidence",
            soft_wrap=True,
        )
    if planned.problem:
        out.print(f"[yellow]{planned.problem}[/yellow]", soft_wrap=True)


def simulate(
    scenario: Annotated[str, typer.Option(help="The scenario of the traffic.")] = "steady",
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
    clients: Annotated[int, typer.Option(help="Concurrent episodes.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the simulated traffic.", min=0)] = 0,
    json: JsonOption = False,
) -> None:
    """Run simulated traffic through the code that decides trials.

    Examples:

      srghn canary simulate --scenario common-drop --weight 0.25 --trials 400 --json

      srghn canary simulate --scenario long-bad --effect -0.05
    """
    from pipelines.lab.trials.scenarios import SCENARIOS
    from pipelines.lab.trials.simulate import summary

    if scenario not in SCENARIOS:
        raise ConfigError(f"--scenario takes one of {', '.join(SCENARIOS)}; got {scenario!r}")

    try:
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
    except ValueError as error:
        raise ConfigError(
            f"--effect {effect:g} takes the returns of scenario {scenario} out of their range, 0 "
            "to 1; give one nearer to 0"
        ) from error
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


def shadow(
    version: Annotated[int, typer.Argument(help="The version's number, as in `srghn candidates`.")],
    reason: Annotated[
        str, typer.Option(help="Why, for the ledger; needed to begin and to stop.")
    ] = "",
    stop: Annotated[bool, typer.Option("--stop", help="End it; the version is approved.")] = False,
    json: JsonOption = False,
) -> None:
    """Let an approved version answer a copy of the traffic; shows what the copies showed so far.

    Its answers are compared with the champion's and never returned.

    Examples:

      srghn canary shadow 2 --reason "before its trial"

      srghn canary shadow 2
    """
    from pipelines.versions.release import Release
    from serving.registry.states import State
    from serving.trial.guards import guarded

    release = Release(load_settings())
    ledger, found = release.ledger, release.ledger.version(version)
    if (stop or found.state is not State.SHADOW) and not reason:
        raise ConfigError("beginning and ending a shadow needs a reason: --reason ...")
    if stop:
        ledger.stop_shadow(version, who=who(reason))
    elif found.state is not State.SHADOW:
        release.start_shadow(version, actor(), reason)
    _, seen = ledger.compared(found.policy, version)
    state = str(ledger.version(version).state)
    guards = guarded(seen, ledger.deployment_rules(found.policy).guards)
    if json:
        near = {one.name: one.capital / one.needed for one in guards}
        print_json({"version": version, "state": state, **seen.to_json(), "guards": near})
        return
    out.print(f"version {version} is {state}; {seen.copies} copies of requests answered")
    if seen.disagreement is not None:
        out.print(f"  acts otherwise than the champion on {seen.disagreement:.1%} of them")
        out.print(f"  takes {seen.latency_ratio or 0:.2f} of the champion's time")
    for one in guards:
        word = "broken" if one.broken else "holds"
        out.print(f"  guard of {one.name} {word}: {one.said}", markup=False, soft_wrap=True)


def pause(
    reason: ReasonOption,
    version: SeenOption = None,
    policy: PolicyOption = "policy",
    json: JsonOption = False,
) -> None:
    """Take no new episodes into the trial; running ones go on and still count as evidence.

    Example: srghn canary pause --reason "the clients are being updated"
    """
    _status("paused", reason, version, policy, json)


def hold(
    reason: ReasonOption,
    version: SeenOption = None,
    policy: PolicyOption = "policy",
    json: JsonOption = False,
) -> None:
    """Take no decision on the trial's evidence until it is resumed; guards still act.

    Example: srghn canary hold --reason "ann wants to look first"
    """
    _status("held", reason, version, policy, json)


def resume(
    reason: ReasonOption,
    version: SeenOption = None,
    policy: PolicyOption = "policy",
    json: JsonOption = False,
) -> None:
    """Go on with a trial that is paused or held.

    Example: srghn canary resume --reason "the clients are updated"
    """
    _status("running", reason, version, policy, json)


def _status(
    status: Literal["running", "paused", "held"],
    reason: str,
    version: int | None,
    policy: str,
    json: bool,
) -> None:
    from pipelines.versions.release import Release

    ledger = Release(load_settings()).ledger
    ledger.set_trial_status(status, who=who(reason), version=version, policy=policy)
    running = ledger.canary(policy)
    assert running is not None
    if json:
        print_json({"version": running.version, "status": status})
    else:
        out.print(f"the trial of version {running.version} is {status}")


def holdback(
    stop: Annotated[bool, typer.Option("--stop", help="End it; the champion stays.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for the ledger; needed to stop it.")] = "",
    policy: PolicyOption = "policy",
    json: JsonOption = False,
) -> None:
    """The window after a promotion, in which the predecessor still answers some episodes.

    Deployment rule `holdback` opens one after each promotion. If the new champion does harm, the
    predecessor comes back by itself, once.

    Examples:

      srghn deploy rules set holdback.share=0.1 holdback.hours=48 --reason "be careful"

      srghn canary holdback --stop --reason "two days without complaints"
    """
    import time

    from pipelines.versions.release import Release
    from serving.registry.trial_view import window_view

    ledger = Release(load_settings()).ledger
    if stop and not reason:
        raise ConfigError("ending the window needs a reason: --reason ...")
    window = ledger.holdback(policy)
    shown = None if window is None else window_view(ledger, window, time.time())
    if stop:
        ledger.end_holdback(who=who(reason), policy=policy)
    if json:
        print_json({"window": None if shown is None else shown.to_json(), "ended": stop})
    elif shown is None:
        out.print("no champion is in its window")
    else:
        out.print(shown.said, markup=False, soft_wrap=True)
        if stop:
            out.print(f"ended: version {shown.window.version} answers every episode")
