"""`schedule` and `worker`: evolution runs by the clock."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.output import (
    Approval,
    Approve,
    JsonOption,
    PolicyOption,
    load_settings,
    out,
    print_json,
    table,
)
from srghn.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    from pipelines.runs.deployments import Prefect
    from pipelines.runs.schedules import Schedule
    from serving.settings import Settings


class Overlap(StrEnum):
    """What a firing does while the previous run is still running."""

    queue = "queue"
    skip = "skip"


Name = Annotated[str, typer.Argument(help="The schedule's name.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Evolution runs by the clock.")
    group.command("add")(add)
    group.command("list")(list_)
    group.command("show")(show)
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
        str,
        typer.Option(
            "--from", help="What runs begin with: champion, scratch, or a version's number."
        ),
    ] = "champion",
    approve: Approve = Approval.manual,
    policy: PolicyOption = "policy",
    successor: Annotated[
        bool,
        typer.Option("--successor", help="Its candidates may see other observations; see run."),
    ] = False,
    timezone: Annotated[str, typer.Option(help="IANA time zone of the cron fields.")] = "UTC",
    overlap: Annotated[
        Overlap, typer.Option(help="If the previous run is still running: queue one run, or skip.")
    ] = Overlap.queue,
    json: JsonOption = False,
) -> None:
    """Run evolution on a schedule; adding a name again replaces it.

    Parameters are resolved and kept now: a preset that changes later changes nothing.

    Example, Tuesdays at three in the morning:

      srghn schedule add weekly --cron "0 3 * * 2" --preset cartpole-switch
    """
    from pipelines.runs import calendar
    from pipelines.runs.presets import load_preset

    calendar.check(cron, timezone)  # what is mistyped is reported before anything heavy is loaded
    load_preset(preset)
    from pipelines.runs import schedules
    from pipelines.runs.prepare import check, prepared, resolved
    from pipelines.runs.target import Target
    from pipelines.runs.workspaces import require_writable

    settings = load_settings()
    require_writable(settings.home)
    params, target = resolved(preset, tuple(set_ or ())), Target(policy, successor)
    check(settings, prepared(settings, params, start, target=target), target)
    asked = schedules.Schedule(
        name,
        cron,
        timezone,
        params.model_dump(mode="json"),
        preset,
        start=start,
        approve=approve.value,
        overlap=overlap.value,
        policy=policy,
        successor=successor,
    )
    if settings.work_pool:  # a name that another host has is refused before anything is written
        _with_prefect(settings, lambda prefect: prefect.require_own(name))
    before = None
    if name in schedules.names(settings):
        with suppress(ConfigError):  # a damaged one is replaced as well
            before = schedules.find(settings, name)
    added = schedules.add(settings, asked)
    _tell_prefect(settings)
    if json:
        replaced = _described(settings, before) if before else None
        print_json({**_described(settings, added), "replaced": replaced})
        return
    out.print(f"schedule {name} is set: {cron} ({timezone}).", markup=False)
    if before is not None:
        was = f"{before.preset}, {before.cron} ({before.timezone})"
        out.print(f"It replaces the one of that name: {was}.", markup=False, soft_wrap=True)
    out.print(_when(settings, added), markup=False)


def list_(json: JsonOption = False) -> None:
    """All schedules, and when each runs next.

    Example: srghn schedule list --json
    """
    from pipelines.runs import schedules
    from pipelines.services.prefect_server import running_server

    settings = load_settings()
    if settings.prefect_api_url:
        running_server(settings)  # raises where it does not answer: nothing fires then
    for note in schedules.old_note(settings):
        typer.echo(f"srghn: schedules {note}", err=True)
    found = [_described(settings, each) for each in schedules.listed(settings)]
    if json:
        print_json(found)
        return
    if not found:
        out.print("no schedule yet: srghn schedule add --help")
        return
    rows = table("", "name", "cron", "time zone", "preset", "next run", "last firing")
    for each in found:
        state = f"paused: {each['reason']}" if each["paused"] else each["next_run"] or "-"
        rows.add_row(
            each["name"], each["cron"], each["timezone"], each["preset"], state, each["note"]
        )
    out.print(rows)
    if not found[0]["worker"]:
        out.print("No worker is running here, so no schedule starts: srghn up")


def show(name: Name, json: JsonOption = False) -> None:
    """Everything one schedule runs: cron, time zone, and all parameters.

    Example: srghn schedule show nightly
    """
    from pipelines.runs import schedules
    from srghn.yaml_files import dump_yaml

    settings = load_settings()
    found = schedules.find(settings, name)
    whole = {**_described(settings, found), "params": dict(found.params)}
    if json:
        print_json(whole)
    else:
        out.print(dump_yaml(whole), markup=False, end="")


def pause(
    name: Name,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; shown while it is paused.")
    ] = "by hand",
    json: JsonOption = False,
) -> None:
    """Pause one; it stays paused until it is resumed.

    Example: srghn schedule pause nightly --reason "the simulator is being moved"
    """
    from pipelines.runs import schedules

    settings = load_settings()
    paused = schedules.pause(settings, name, reason)
    _tell_prefect(settings)
    _told(settings, paused, f"schedule {name} is paused: {reason}", json)


def resume(name: Name, json: JsonOption = False) -> None:
    """Resume a paused one, from its next firing on.

    Example: srghn schedule resume nightly
    """
    from pipelines.runs import schedules

    settings = load_settings()
    resumed = schedules.resume(settings, name)
    _tell_prefect(settings)
    _told(settings, resumed, f"schedule {name} is active", json)


def remove(name: Name, json: JsonOption = False) -> None:
    """Delete one; its past runs stay, and a running one continues.

    Example: srghn schedule remove nightly
    """
    from pipelines.runs import schedules

    settings = load_settings()
    schedules.remove(settings, name)
    _tell_prefect(settings, removed=name)
    if json:
        print_json({"name": name, "removed": True})
    else:
        out.print(f"schedule {name} is removed", markup=False)


def worker() -> None:
    """Run due schedules until stopped, with the Prefect server in SRGHN_PREFECT_API_URL.

    Example: SRGHN_PREFECT_API_URL=http://127.0.0.1:4200/api srghn worker
    """
    from pipelines.services.up import run_worker

    run_worker(load_settings())


def _described(settings: Settings, schedule: Schedule) -> dict[str, Any]:
    """A schedule without its parameters; a next run only where a worker will run it."""
    from datetime import UTC, datetime

    from pipelines.services.up import worker_is_up

    up = worker_is_up(settings)
    fields = {k: v for k, v in vars(schedule).items() if k != "params"}
    following = None
    if up and not schedule.paused:
        following = schedule.following(datetime.now(UTC)).isoformat(timespec="minutes")
    return {**fields, "next_run": following, "worker": up}


def _when(settings: Settings, schedule: Schedule) -> str:
    said = _described(settings, schedule)
    if said["worker"]:
        return f"It runs next at {said['next_run']}."
    return "No worker is running here, so no schedule starts: srghn up"


def _told(settings: Settings, schedule: Schedule, text: str, json: bool) -> None:
    if json:
        print_json(_described(settings, schedule))
    else:
        out.print(text, markup=False)


def _tell_prefect(settings: Settings, removed: str | None = None) -> None:
    """Show the change in a running Prefect server; one that starts later reads the files."""

    def tell(prefect: Prefect) -> None:
        if removed is not None:
            prefect.undeploy(removed)
        prefect.sync()

    try:
        _with_prefect(settings, tell)
    except ServiceError as error:
        raise ServiceError(f"the schedule's file is written, but {error}") from error


def _with_prefect(settings: Settings, do: Callable[[Prefect], None]) -> None:
    """Do it with the Prefect server, if one is running."""
    from pipelines.services.prefect_server import running_server, use_server

    url = running_server(settings)
    if url is None:
        return
    use_server(settings, url)
    from pipelines.runs.deployments import Prefect

    with Prefect(settings) as prefect:
        do(prefect)
