"""The Prefect flow: one run of `work.py`, each of its steps a task, with artifacts to look at.

What depends on what is DVC's to know (`dvc.yaml`), and what is due is the calendar's. Prefect runs
it on a worker, and shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from prefect import flow
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from prefect.tasks import Task

from pipelines.runs import shown
from pipelines.runs.prepare import resolved
from pipelines.runs.presets import preset_name
from pipelines.runs.target import Target
from pipelines.runs.work import Request, begin, carry_out, traced
from pipelines.runs.workspaces import new_run_id
from pipelines.services.processes import extend_import_path
from pipelines.versions.release import Approval
from serving import runs
from serving.settings import Settings, load_settings
from srghn.config import RunParams
from srghn.parents import die_with_parent


@flow(name="evolve-and-gate", log_prints=False)
def evolve_and_gate(
    params: RunParams | None = None,
    start: str = "champion",
    approve: Approval = "manual",
    run_id: str | None = None,
    schedule: str | None = None,
    firing: datetime | None = None,
    preset: str = "cartpole-switch",
    overrides: Sequence[str] = (),
    policy: str = "policy",
    successor: bool = False,
) -> Any:
    """Evolve, freeze, judge and record one candidate, in an isolated workspace of its own.

    Parameters are given whole (`params`), or as a preset with overrides. A `run_id` that exists
    goes on in its workspace, and its parameters stay as they are; without one, as in Prefect's own
    form, the flow run is named at once, and the clock finds its trace by that name. `firing` is the
    scheduled time that the seed is made of. `policy` is what the candidate is for; a `successor`
    may see other observations than its champion.
    """
    die_with_parent()  # a worker that was killed cannot stop what it started
    extend_import_path()
    settings = load_settings()
    name, target = schedule or preset_name(preset), Target(policy, successor)
    if run_id is None:
        params = params or resolved(preset, overrides)
        run_id = new_run_id(name)
        shown.name_flow_run(run_id)
    request = Request(params, start, name, run_id, schedule, firing, target)
    return run_here(settings, request, approve)


def run_here(settings: Settings, request: Request, approve: Approval) -> Any:
    """The run, within a flow run that bears its id; 'nothing new' ends it before it computes."""
    before = runs.find(settings.home, request.run_id) if request.run_id else None
    resumed = before.resumed + 1 if before is not None and not before.over else 0
    opened = begin(settings, request, resumed)
    if isinstance(opened, dict):
        told = runs.begun(request.run_id or opened["run_id"], schedule=request.schedule)
        if request.run_id:
            runs.write(settings.home, runs.ended(told, "nothing new", opened["summary"]))
        return Completed(name="Nothing new", message=opened["summary"])
    shown.name_flow_run(opened.name)
    with (
        traced(settings, opened, request.schedule, resumed) as done,
        shown.progress(opened),
    ):
        result = carry_out(settings, opened, approve, _as_task)
        done(result)
    shown.verdict(settings, result)
    return result


def _as_task(name: str, do: Callable[[], Any]) -> Any:
    """One step as a task of the flow run."""
    return Task(do, name=name, task_run_name=name, cache_policy=NO_CACHE)()
