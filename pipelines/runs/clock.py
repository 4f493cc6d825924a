"""The clock of the schedules: what is due is handed to the workers, what was cut off goes on.

It runs beside the worker (`srghn up`, `srghn worker`). Everything it decides is in files and in the
Prefect server, so it may be stopped at any moment, and two of them make no run twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.runs import schedules
from pipelines.runs.pools import pool_of
from pipelines.runs.workspaces import Workspace, find_workspace
from pipelines.tracking import delivery as tracking
from serving import runs
from serving.settings import Settings

if TYPE_CHECKING:
    from pipelines.runs.deployments import Prefect
    from pipelines.runs.schedules import Schedule

logger = logging.getLogger(__name__)
#: How often a run that was cut off is resumed before a person must look.
MOST_RESUMED = 3
#: A flow run that began less than so long ago may not have left its trace yet.
YOUNG_SECONDS = 60.0
#: In a pool that hosts share, a run that a worker took so long ago and nobody began is lost.
LOST_SECONDS = 600.0
#: Types of the states in which a flow run ends.
OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
Say = Callable[[str], None]
_recovering = threading.Lock()


def tick(settings: Settings, prefect: Prefect, say: Say, now: datetime | None = None) -> None:
    """Fire what is due. An overlap waits or is skipped, as its schedule says, and says so."""
    moment = now or datetime.now(UTC)
    fire = partial(_fire, settings, prefect, say, moment)
    schedules.for_each(settings, fire)


def _fire(
    settings: Settings, prefect: Prefect, say: Say, moment: datetime, schedule: Schedule
) -> None:
    if schedule.paused:
        return
    if schedule.ahead(moment) and datetime.fromisoformat(schedule.added) <= moment:
        # A clock that is earlier than when the schedule was added is wrong itself: it does nothing.
        # One that is days behind looks just as one that is right after another was ahead. So what
        # was handled is kept, and counts again once the clock is past it.
        note = f"the clock was wrong, at {schedule.handled}; from now on it fires again"
        schedules.put_back(settings, schedule, moment, note)
        say(f"schedule {schedule.name}: {note}")
        return
    due = schedule.due(moment)
    if due is None:
        return
    at = f"{due.firing:%Y-%m-%d %H:%M} UTC"
    # A process that was killed may have launched this very firing, and not noted it.
    own = (schedule.name, schedule.run_id(due.firing))
    going = [name for name in _going(settings, prefect, schedule) if name not in own]
    if going and schedule.overlap == "queue":
        waits = f"the firing of {at} waits for run {going[0]} to end"
        if schedule.note != waits:
            schedules.note(settings, schedule, waits)
            say(f"schedule {schedule.name}: {waits}")
        return
    if going:
        note = f"the firing of {at} was skipped: run {going[0]} is still running"
    else:
        prefect.launch(schedule, due.firing)
        note = f"the firing of {at} is run {schedule.run_id(due.firing)}"
    if due.missed:
        note += f"; {due.missed} earlier firings were missed and are not repeated"
    schedules.mark(settings, schedule, due.firing, note, launched=not going)
    say(f"schedule {schedule.name}: {note}")


def _going(settings: Settings, prefect: Prefect, schedule: Schedule) -> list[str]:
    """Runs of a schedule that are not over: those that Prefect knows, and those that it forgot.

    A Prefect server that lost its database knows nothing of a run that goes on, or that is to be
    resumed.
    """
    own = [
        each.run_id
        for each in runs.recent(settings.home)
        if each.schedule == schedule.name
        and (each.alive or (each.state == "stopped" and prefect.latest(each.run_id) is None))
    ]
    return [*(run.name for run in prefect.going(schedule.name)), *own]


def recover(settings: Settings, prefect: Prefect, say: Say, *, no_worker: bool) -> None:
    """Say of every run whose process is gone that it crashed, and resume it.

    One call at a time: a worker that restarts asks for it while the clock does.

    A worker that is up says so itself, of a process that it started; that run is resumed as well.
    `no_worker` says that no worker is up: then a run that a worker had taken and not begun is lost,
    too. One that was being cancelled stays cancelled; one that was cut off `MOST_RESUMED` times is
    left to a person. Runs by hand are not resumed.
    """
    with _recovering:
        _recover(settings, prefect, say, no_worker)


def _recover(settings: Settings, prefect: Prefect, say: Say, no_worker: bool) -> None:
    going = prefect.going()
    try:
        schedules.apart(going, partial(_look_at, settings, prefect, say, no_worker))
    finally:
        _told_by_worker(settings, prefect, say, {run.name for run in going})


def _look_at(settings: Settings, prefect: Prefect, say: Say, no_worker: bool, run: Any) -> None:
    kind = _kind(run)
    trace = runs.find(settings.home, run.name)
    if kind == "SCHEDULED" and _waits_for_years(run):
        say(f"run {run.name}: a clock that was wrong put it off; it begins now")
        prefect.begin_now(run)
    if kind == "SCHEDULED" or (trace is not None and trace.alive):
        return
    if trace is None and settings.prefect_api_url and not _ours(settings, run, kind):
        return
    lost = trace is None and bool(settings.work_pool)
    died = no_worker and not _by_hand(run)
    if kind == "PENDING" and not died and not lost:
        return
    if _between_two_notes(run, trace, died):
        return
    # In this order: killed in between, the next look finds it again, and what it asks for then has
    # the same key, and makes no other flow run.
    _gone(settings, prefect, run, trace, say)
    prefect.crashed(run, "its process is gone")


def _waits_for_years(run: Any) -> bool:
    """Whether a run that was due when it was asked for is put off: the clock was far ahead.

    One that a person puts off by Prefect's own form has no run id.
    """
    begins = run.next_scheduled_start_time
    asked = begins is not None and run.parameters.get("run_id") == run.name
    return asked and begins - datetime.now(UTC) > schedules.AHEAD


def _between_two_notes(run: Any, trace: runs.RunTrace | None, died: bool) -> bool:
    """Whether the process may be there though no trace says so: it begins, or it ends.

    It writes its trace some seconds after its flow run began, and before its flow run ends.
    `died`: it cannot be there, since its worker is gone.
    """
    if trace is None or not _wrote(run, trace):
        return not died and abs(_age(run)) < YOUNG_SECONDS
    if not trace.over:
        return False
    since = (datetime.now(UTC) - _stamp(trace)).total_seconds()
    return trace.ending or (not died and abs(since) < YOUNG_SECONDS)  # or a clock was put back


def _gone(
    settings: Settings, prefect: Prefect, run: Any, trace: runs.RunTrace | None, say: Say
) -> None:
    """Say what became of a run whose process is gone, and resume it unless it is over."""
    if _kind(run) == "CANCELLING":
        say(f"run {run.name}: it was being cancelled, and its process is gone; it is cancelled")
        if trace is not None and not trace.over:
            runs.write(settings.home, runs.ended(trace, "cancelled", "cancelled, then killed"))
        return
    say(f"run {run.name}: its process is gone; it is marked as crashed")
    if trace is None or not (trace.over and _wrote(run, trace)):
        _go_on(settings, prefect, run, trace, say)


def _told_by_worker(settings: Settings, prefect: Prefect, say: Say, going: set[str]) -> None:
    """Resume, or end, the runs whose flow run a worker ended when their process was gone."""
    recent = runs.recent(settings.home)
    stopped = [each for each in recent if each.state == "stopped" and each.run_id not in going]
    try:
        schedules.apart(stopped, partial(_stopped, settings, prefect, say))
    finally:
        if not settings.work_pool:  # there the trace may be on the host that took the run
            schedules.for_each(settings, partial(_without_trace, settings, prefect, say))


def _stopped(settings: Settings, prefect: Prefect, say: Say, trace: runs.RunTrace) -> None:
    run = prefect.latest(trace.run_id)
    kind = _kind(run)
    if kind == "CRASHED":
        say(f"run {trace.run_id}: its process is gone; the worker marked it as crashed")
        _go_on(settings, prefect, run, trace, say)
    elif kind == "CANCELLED":
        runs.write(settings.home, runs.ended(trace, "cancelled", "cancelled, then killed"))
    elif run is None and trace.schedule is not None:
        _forgotten(settings, prefect, say, trace)


def _without_trace(settings: Settings, prefect: Prefect, say: Say, schedule: Schedule) -> None:
    """See what became of a schedule's last run, if it ended before it could leave a trace."""
    firing = datetime.fromisoformat(schedule.launched or schedule.handled)
    run_id = schedule.run_id(firing)
    if runs.find(settings.home, run_id) is not None:
        return
    run: Any = prefect.latest(run_id)
    if _kind(run) == "CRASHED":
        say(f"run {run_id}: its process is gone; the worker marked it as crashed")
        _go_on(settings, prefect, run, None, say)
    elif _kind(run) == "FAILED":
        from pipelines.runs.work import failed

        say(f"run {run_id}: it failed before it began")
        why = f"before it began: {run.state.message}"
        told = runs.ended(runs.begun(run_id, schedule=schedule.name), "failed", why)
        runs.write(settings.home, told)  # or on a full disk each look would tell it again
        failed(settings, told, None)
    elif _kind(run) == "CANCELLED":  # or it began again once Prefect no longer knows of it
        told = runs.begun(run_id, schedule=schedule.name)
        runs.write(settings.home, runs.ended(told, "cancelled", "cancelled before it began"))
    elif run is None and schedule.launched and not schedule.paused:
        say(f"run {run_id}: Prefect no longer knows of it; it is handed to the workers again")
        prefect.launch(schedule, firing)


def _forgotten(settings: Settings, prefect: Prefect, say: Say, trace: runs.RunTrace) -> None:
    """Resume a scheduled run whose process is gone, and of which Prefect no longer knows."""
    name, count = str(trace.schedule), trace.resumed + 1
    workspace = find_workspace(settings, trace.run_id)
    if workspace is None or count > MOST_RESUMED:
        _give_up(settings, trace, workspace, count)
        return
    approve = schedules.find(settings, name).approve if name in schedules.names(settings) else ""
    prefect.go_on(trace.run_id, name, approve or "manual", count)
    say(f"run {trace.run_id}: its process is gone; it resumes from its last checkpoint")


def _ours(settings: Settings, run: Any, kind: str) -> bool:
    """Whether a run without a trace here is this home's, on a server that others use, too.

    In a pool that hosts share it is at work on another one, unless nobody began it for long.
    """
    if settings.work_pool:
        return kind == "PENDING" and _age(run) >= LOST_SECONDS
    return bool(run.work_pool_name == pool_of(settings))


def _go_on(
    settings: Settings, prefect: Prefect, run: Any, trace: runs.RunTrace | None, say: Say
) -> None:
    workspace = find_workspace(settings, run.name)
    count = trace.resumed + 1 if trace is not None else 1
    asked = run.parameters.get("params") is not None
    again = (asked or workspace is not None) and not _by_hand(run)
    if again:
        while count <= MOST_RESUMED:
            new = (
                prefect.anew(run, count, here=trace is not None)
                if workspace is None
                else _handed_on(prefect, run, count)
            )
            if _kind(new) not in OVER:
                how = "begins again" if workspace is None else "resumes from its last checkpoint"
                say(f"run {run.name}: {how}")
                return
            count += 1  # that one died before it left a trace
    if trace is None and again:
        trace = runs.begun(run.name, schedule=run.parameters.get("schedule"))
    _give_up(settings, trace, workspace, count)


def _give_up(
    settings: Settings, trace: runs.RunTrace | None, workspace: Workspace | None, count: int
) -> None:
    """Leave a run to a person."""
    if trace is not None:
        look = f"see its run.log, then srghn run --resume {trace.run_id}"
        why = f"its process died {count} times; {look if workspace else 'see worker.log'}"
        runs.write(settings.home, runs.ended(trace, "crashed", why))
    if workspace is not None:
        tracking.close(workspace, settings, "KILLED")


def _handed_on(prefect: Prefect, run: Any, number: int) -> Any:
    parameters = run.parameters
    approve = str(parameters.get("approve", "manual"))
    return prefect.go_on(run.name, parameters.get("schedule"), approve, number)


def _by_hand(run: Any) -> bool:
    return run.deployment_id is None and not run.tags


def _kind(run: Any) -> str:
    """The type of a flow run's state; empty where there is none."""
    return str(run.state.type.value) if run is not None and run.state is not None else ""


def _wrote(run: Any, trace: runs.RunTrace) -> bool:
    """Whether this flow run wrote the trace; else an earlier one did."""
    began = run.start_time or run.created
    return began is None or _stamp(trace) >= began.replace(microsecond=0)


def _stamp(trace: runs.RunTrace) -> datetime:
    return datetime.fromisoformat(trace.at)


def _age(run: Any) -> float:
    begun = run.start_time or run.created
    return (datetime.now(UTC) - begun).total_seconds() if begun else float("inf")
