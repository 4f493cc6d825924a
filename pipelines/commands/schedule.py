"""`schedule` and `worker`: evolution runs by the clock."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.output import (
    Approval,
    Approve,
    JsonOption,
    load_settings,
    out,
    print_json,
    table,
)

Name = Annotated[str, typer.Argument(help="The schedule's name.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Evolution runs by the clock.")
    group.command("add")(add)
    group.command("list")(list_)
    group.command("pause")(pause)
    group.command("resume")(resume)
    group.command("remove")(remove)
    app.add_typer(group, name="schedule", no_args_is_help=True)
    app.command()(worker)


def add(
    name: Name,
    cron: Annotated[str, typer.Option(help="Five fields: minute hour day month weekday.")],
    preset: Annotated[str, typer.Option(help="A preset, or a parameter file.")] = "cartpole-switch",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value. Repeatable.")
    ] = None,
    start: Annotated[
        str, typer.Option("--from", help="champion, scratch, or a version's number.")
    ] = "champion",
    approve: Approve = Approval.manual,
    timezone: Annotated[str, typer.Option(help="IANA time zone of the cron fields.")] = "UTC",
) -> None:
    """Run evolution on a schedule; adding a name again replaces it.

    Example, Tuesdays at three in the morning:

      srghn schedule add nightly --cron "0 3 * * 2" --preset cartpole-switch
    """
    from pipelines.progress import spinner
    from pipelines.runs.prepare import prepare
    from pipelines.services.prefect_server import prefect_server

    settings, overrides = load_settings(), tuple(set_ or ())
    prepare(settings, preset, overrides, start)  # a bad value is told now, not at 3 a.m.
    with prefect_server(settings, spinner("starting a Prefect server")):
        from pipelines.runs import schedules as schedule

        schedule.add(name, cron, preset, overrides, start, approve.value, timezone)
    out.print(
        f"schedule {name} is set: {cron} ({timezone}). Runs happen while srghn up is running."
    )


def list_(json: JsonOption = False) -> None:
    """All schedules.

    Example: srghn schedule list --json
    """
    from pipelines.progress import spinner
    from pipelines.services.prefect_server import prefect_server

    with prefect_server(load_settings(), spinner("starting a Prefect server")):
        from pipelines.runs import schedules as schedule

        found = schedule.listed()
    if json:
        print_json([vars(s) for s in found])
        return
    rows = table("", "name", "cron", "time zone", "preset", "paused", "next run")
    for each in found:
        paused = "paused" if each.paused else ""
        rows.add_row(each.name, each.cron, each.timezone, each.preset, paused, each.next_run or "-")
    out.print(rows if found else "no schedule yet: srghn schedule add --help")


def pause(name: Name) -> None:
    """Pause one; it stays paused until it is resumed.

    Example: srghn schedule pause nightly
    """
    _set_paused(name, True)


def resume(name: Name) -> None:
    """Resume a paused one.

    Example: srghn schedule resume nightly
    """
    _set_paused(name, False)


def remove(name: Name) -> None:
    """Delete one; its past runs stay.

    Example: srghn schedule remove nightly
    """
    from pipelines.progress import spinner
    from pipelines.services.prefect_server import prefect_server

    with prefect_server(load_settings(), spinner("starting a Prefect server")):
        from pipelines.runs import schedules as schedule

        schedule.remove(name)
    out.print(f"schedule {name} is removed")


def worker() -> None:
    """Run what is due, until stopped, with the Prefect server in SRGHN_PREFECT_API_URL.

    Example: SRGHN_PREFECT_API_URL=http://127.0.0.1:4200/api srghn worker
    """
    from pipelines.services.up import run_worker

    run_worker(load_settings())


def _set_paused(name: str, paused: bool) -> None:
    from pipelines.progress import spinner
    from pipelines.services.prefect_server import prefect_server

    with prefect_server(load_settings(), spinner("starting a Prefect server")):
        from pipelines.runs import schedules as schedule

        schedule.set_paused(name, paused)
    out.print(f"schedule {name} is {'paused' if paused else 'active'}")
