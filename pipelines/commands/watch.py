"""`srghn watch`: is the champion still doing what it was promoted for?"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.output import (
    JsonOption,
    PolicyOption,
    ReasonOption,
    load_settings,
    out,
    print_json,
    reading,
    who,
)

if TYPE_CHECKING:
    from serving.control.watch import WatchView
    from serving.registry.ledger import Ledger


class Act(StrEnum):
    """What is done by itself after an alarm."""

    off = "off"
    ask = "ask"
    run = "run"


def add_to(app: typer.Typer) -> None:
    watch = typer.Typer(
        help="Watch the champion's returns in service.", invoke_without_command=True
    )
    watch.callback()(show)
    watch.command("set")(set_)
    watch.command("ack")(ack)
    watch.command("export")(export)
    app.add_typer(watch, name="watch")


def show(context: typer.Context, policy: PolicyOption = "policy", json: JsonOption = False) -> None:
    """What the watch knows of the champion's returns.

    Example: srghn watch --json
    """
    if context.invoked_subcommand is not None:
        return
    from serving.control.adapted import latest_step

    ledger = reading().ledger
    seen = _view(ledger, policy)
    adapted = latest_step(ledger, policy)
    if json:
        print_json({**asdict(seen), "adapted": adapted})
        return
    colour = {"steady": "green", "drift": "red"}.get(seen.status, "yellow")
    out.print(f"[{colour}]{seen.status}[/{colour}]: {seen.why}")
    if seen.promise is not None:
        mean = "" if seen.mean is None else f"{seen.mean:.1%} over {seen.outcomes} outcomes"
        out.print(f"  promised   {seen.promise:.1%} of the range of returns")
        out.print(f"  in service {mean or 'none counted yet'}")
        out.print(f"  evidence   {seen.level:.3g} of the {seen.run_length:g} that raise an alarm")
    if seen.observations is not None:
        out.print(f"  observations {seen.observations.words}", markup=False, soft_wrap=True)
    if seen.diagnosis is not None:
        out.print(f"  diagnosis  {seen.diagnosis}", markup=False, soft_wrap=True)
    if adapted is not None:
        out.print(f"  latest     {adapted}", markup=False, soft_wrap=True)


def set_(
    reason: ReasonOption,
    policy: PolicyOption = "policy",
    run_length: Annotated[
        float | None, typer.Option(help="Mean number of outcomes between false alarms.", min=100)
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Loss that raises no alarm; share of the range.", min=0, max=0.9),
    ] = None,
    answered: Annotated[
        float | None,
        typer.Option(help="Share of outcomes below which it cannot decide.", min=0, max=1),
    ] = None,
    missing: Annotated[
        float | None,
        typer.Option(
            help="Rise of the share of missing outcomes that raises no alarm.", min=0, max=1
        ),
    ] = None,
    adapt: Annotated[
        Act | None,
        typer.Option(
            help="After an alarm: off does nothing, ask diagnoses and says what to do, run does it."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Set when the watch raises an alarm, and what happens then; options that you leave out stay.

    A new margin applies from the next champion on; a new missing share applies at once, and the
    missing outcomes are counted anew. More about what happens: srghn deploy rules set
    adapt.approve=auto, adapt.generations, adapt.runs_a_day and adapt.cooldown.

    Example: srghn watch set --run-length 20000 --adapt run --reason "few episodes a day"
    """
    from serving.registry.rules import parse_rules

    ledger = _ledger()
    data: dict[str, Any] = ledger.deployment_rules(policy).model_dump(mode="json")
    given = {"run_length": run_length, "margin": margin, "answered": answered, "missing": missing}
    data["watch"] |= {name: value for name, value in given.items() if value is not None}
    if adapt is not None:
        data["adapt"]["act"] = adapt.value
    ledger.set_deployment_rules(parse_rules(data), who=who(reason), policy=policy)
    shown = {**data["watch"], "adapt": data["adapt"]["act"]}
    if json:
        print_json(shown)
        return
    out.print("  ".join(f"{name} {value}" for name, value in shown.items()))


def ack(reason: ReasonOption, policy: PolicyOption = "policy", json: JsonOption = False) -> None:
    """Write into the ledger that an alarm was seen, by whom and why. The watch goes on.

    An alarm for missing outcomes stands until they are posted again, or until srghn watch set
    --missing accepts as many.

    Example: srghn watch ack --reason "the motors were rewired this morning"
    """
    from serving.control.watch import SEEN
    from srghn.errors import TransitionRefused

    ledger = _ledger()
    seen = _view(ledger, policy)
    stand = {"alarm": seen.alarm, "missing": seen.missing}
    if not any(stand.values()):
        raise TransitionRefused(f"there is no alarm; the watch is {seen.status}: {seen.why}")
    noted = ledger.note(SEEN, stand, who=who(reason), policy=policy)
    if json:
        print_json({**stand, "event": noted})
    else:
        out.print("recorded in the ledger: srghn history")


def export(
    to: Annotated[Path, typer.Option("--out", help="The Parquet file to write.")],
    policy: PolicyOption = "policy",
    json: JsonOption = False,
) -> None:
    """Write the episodes of service, each with the observation that was kept of it, to a file.

    Example: srghn watch export --out service.parquet
    """
    from pipelines.adapt.export import export as write

    count = write(_ledger(), policy, to)
    if json:
        print_json({"file": to, "episodes": count})
    else:
        out.print(f"{count} episodes: {to}", markup=False)


def _view(ledger: Ledger, policy: str) -> WatchView:
    from serving.control.watch import Watch
    from serving.limits import load_limits

    limits = load_limits()
    return Watch(
        ledger, policy, remembered=limits.pin_seconds, deadline=limits.episode_seconds
    ).view()


def _ledger() -> Ledger:
    from pipelines.versions.release import Release

    return Release(load_settings()).ledger
