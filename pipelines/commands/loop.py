"""What a team does when the world moved: ask which world it is, recall, adapt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from pipelines.commands import complete
from pipelines.commands.output import (
    Approval,
    Approve,
    JsonOption,
    PolicyOption,
    ReasonOption,
    load_settings,
    out,
    print_json,
    table,
    who,
)
from pipelines.commands.run import VERDICT_EXIT

if TYPE_CHECKING:
    from pipelines.adapt.steps import Adaptation


def add_to(app: typer.Typer) -> None:
    app.command()(diagnose)
    app.command()(recall)
    app.command()(adapt)


def diagnose(policy: PolicyOption = "policy", json: JsonOption = False) -> None:
    """After an alarm: which pinned environment and mode explains what service sees.

    Exit code 0 if one does, 1 if none or several do, or too few episodes have ended.

    Example: srghn diagnose --json
    """
    from pipelines.adapt.steps import require_alarm
    from pipelines.runs.target import Target
    from srghn.errors import TransitionRefused

    adaptation = _adaptation(policy)
    alarm = require_alarm(adaptation)
    found = adaptation.diagnose(alarm)
    if found is None:
        raise TransitionRefused(
            f"too few episodes: {adaptation.waits(alarm)}; srghn watch{Target(policy).option} "
            "shows whether some come"
        )
    adaptation.record(alarm, found)
    if json:
        print_json(found.to_json())
    else:
        out.print(f"[bold]{found.found}[/bold]: {escape(found.why)}")
        rows = table("", "environment", "mode", "mean return", "distance", "p", "p seen", "fits")
        for each in found.evidence:
            seen = "" if each.p_observed is None else f"{each.p_observed:.3f}"
            numbers = (f"{each.mean:.4g}", f"{each.distance:.3g}", f"{each.p:.3f}", seen)
            rows.add_row(each.world, each.mode, *numbers, "yes" if each.fits else "no")
        out.print(rows)
        if found.found == "known":
            out.print(f"next: srghn adapt{Target(policy).option}", markup=False)
    raise typer.Exit(0 if found.found in ("known", "unchanged") else 1)


def adapt(policy: PolicyOption = "policy", json: JsonOption = False) -> None:
    """Do what an alarm asks for: diagnose, recall a former champion, or else evolve.

    It ends with a version that waits for approval or trial, or says why there is none. The budget
    is that of the deployment rules (adapt.*); approval and trial are as always.

    Example: srghn adapt
    """
    from pipelines.adapt.steps import require_alarm
    from srghn.errors import TransitionRefused

    adaptation, told = _adaptation(policy), []
    alarm = require_alarm(adaptation)
    if (waits := adaptation.pending(alarm)) is not None:
        raise TransitionRefused(f"{waits}; adapting waits for it")
    while (line := adaptation.step()) is not None:
        told.append(line)
        if not json:
            out.print(line, markup=False, soft_wrap=True)
    if json:
        print_json({"policy": policy, "drift": alarm.event.hash, "steps": told})
    elif not told:
        out.print(f"nothing to do: {adaptation.rests(alarm)}", markup=False, soft_wrap=True)


def _adaptation(policy: str) -> Adaptation:
    from pipelines.adapt.launch import by_hand
    from pipelines.adapt.steps import Adaptation
    from pipelines.versions.release import Release

    settings = load_settings()
    return Adaptation(Release(settings), policy, by_hand(settings), asked=True)


def recall(
    version: Annotated[
        int, typer.Argument(help="A retired champion.", autocompletion=complete.versions)
    ],
    reason: ReasonOption,
    mode: Annotated[
        str | None, typer.Option(help="Judge it in this mode; default the one of service.")
    ] = None,
    world: Annotated[
        str | None,
        typer.Option(
            help="Judge it in this pinned environment, named by the start of its fingerprint; "
            "default the champion's."
        ),
    ] = None,
    approve: Approve = Approval.manual,
    json: JsonOption = False,
) -> None:
    """Judge a former champion again, as a new version: for a world that returned.

    If it passes, it is approved and tried as any candidate. Exit codes are those of srghn gate.

    Example: srghn recall 1 --mode normal --reason "the old motors are back"
    """
    from pipelines.runs.worlds import find
    from pipelines.versions.recall import judge, recall, served_world
    from pipelines.versions.release import Release

    settings = load_settings()
    release = Release(settings)
    found = release.ledger.version(version)
    place = find(settings, world) if world else served_world(release, found.policy)
    wanted = mode or str(release.ledger.service_mode(found.policy))
    number = recall(release, version, place, wanted, who(reason))
    verdict = judge(release, number, approve.value)
    state, page = release.ledger.version(number).state, release.report_page(number)
    told = {"version": number, "recall_of": version, "state": state, "report": str(page)}
    if json:
        print_json({**told, "mode": wanted, "verdict": verdict.to_dict()})
    else:
        out.print(f"[bold]version {number}[/bold], recall of {version}, is {state}")
        out.print(f"{verdict.summary}\nreport: {page}", markup=False, soft_wrap=True)
    raise typer.Exit(VERDICT_EXIT[verdict.verdict])
