"""Schedules and runs as Prefect knows them: deployments, flow runs, and what became of them.

A schedule's file says what runs when; its deployment is what Prefect shows of it, and what its
flow runs belong to. Deployment `run` is for any run: by Prefect's own form, or to resume one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.states import Cancelled, Crashed, Scheduled
from prefect.utilities.callables import parameter_schema

from pipelines.runs import schedules
from pipelines.runs.flow import evolve_and_gate
from pipelines.runs.pools import POOL, own_queue, pool_of
from pipelines.runs.prepare import resolved
from pipelines.runs.schedules import ANY, Schedule
from pipelines.runs.workspaces import find_workspace
from pipelines.services.processes import IMPORTS
from serving.settings import Settings
from srghn.errors import ConfigError, SrghnError

TAG = "srghn"
ENTRYPOINT = "pipelines.runs.flow.evolve_and_gate"
#: Begins the tag that says which home a deployment on a server that others use is of.
HOME_TAG = "home:"
GOING = (
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.CANCELLING,
    StateType.PAUSED,
)


class Prefect:
    """The Prefect server of one home; use as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._shared = bool(settings.work_pool)
        self._pool = pool_of(settings)
        self._any = ANY if self._pool == POOL else f"{ANY}-on-{self._pool}"
        self._home = own_queue(settings) if settings.prefect_api_url else str(settings.home)
        self._entered = get_client(sync_client=True)

    def __enter__(self) -> Prefect:
        self.client: SyncPrefectClient = self._entered.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._entered.__exit__(*raised)

    # ------------------------------------------------------------------------------ deployments

    def sync(self) -> None:
        """Make the deployments those of the schedules' files, and take old ones into files."""
        known = {self._name(name) for name in schedules.names(self.settings)}
        for deployment in self.client.read_deployments():
            if TAG not in deployment.tags or deployment.name in {ANY, self._any, *known}:
                continue
            if self._of_another_home(deployment):
                continue
            _take_over(self.settings, deployment)
            self.client.delete_deployment(deployment.id)
        self._deploy_any()
        schedules.for_each(self.settings, self.deploy)

    def deploy(self, schedule: Schedule) -> UUID:
        """What Prefect shows of a schedule; its parameters are those of each of its runs.

        Raises `ConfigError` where another host has a schedule of this name.
        """
        self.require_own(schedule.name)
        parameters = {
            "params": dict(schedule.params),
            "start": schedule.start,
            "approve": schedule.approve,
            "schedule": schedule.name,
            "policy": schedule.policy,
            "successor": schedule.successor,
        }
        says = f"Cron `{schedule.cron}` ({schedule.timezone}), preset {schedule.preset}; "
        says += f"overlaps: {schedule.overlap}."
        if schedule.paused:
            says += f" **Paused**: {schedule.reason}."
        return self._deploy(self._name(schedule.name), parameters, says, schedule.imports)

    def _name(self, schedule: str) -> str:
        """The name of a schedule's deployment, which no other home on the server has.

        Hosts that share a pool see each other's schedules, so their names must differ.
        """
        return schedule if self._shared or self._pool == POOL else f"{schedule}-on-{self._pool}"

    def _of_another_home(self, deployment: Any) -> bool:
        """Whether another home that uses this server made it; those of 0.2 do not say whose."""
        tagged = [tag for tag in deployment.tags if tag.startswith(HOME_TAG)]
        if tagged:
            return tagged != [f"{HOME_TAG}{self._home}"]
        home = deployment.job_variables.get("env", {}).get("SRGHN_HOME")
        return home is not None and home != str(self.settings.home)

    def require_own(self, name: str) -> None:
        """Raise `ConfigError` where another host has a schedule of this name in the same pool."""
        found = self._deployed(self._name(name)) if self._shared else None
        if found is not None and self._of_another_home(found):
            raise ConfigError(
                f"another host has a schedule {name!r} on this Prefect server: remove it there (if "
                "that host is gone, delete the deployment in Prefect), or give this one another "
                "name"
            )

    def undeploy(self, name: str) -> None:
        """Delete a schedule's deployment; its past runs stay, a running one continues.

        Another home's is left alone: the schedule that was removed here was never deployed.
        """
        found = self._deployed(self._name(name))
        if found is not None and not self._of_another_home(found):
            self.client.delete_deployment(found.id)

    def _deployed(self, name: str) -> Any:
        with suppress(ObjectNotFound):
            return self.client.read_deployment_by_name(f"{evolve_and_gate.name}/{name}")
        return None

    def _deploy_any(self) -> UUID:
        return self._deploy(self._any, {}, "Any run. Parameters: `params`, or a preset.")

    def _any_id(self) -> UUID:
        """The deployment of single runs; made again where the server lost its database."""
        found = self._deployed(self._any)
        return found.id if found is not None else self._deploy_any()

    def _deploy(
        self, name: str, parameters: Mapping[str, Any], description: str, imports: str = ""
    ) -> UUID:
        """Make a deployment, and its pool: a server that lost its database has none."""
        with suppress(ObjectAlreadyExists):
            self.client.create_work_pool(WorkPoolCreate(name=self._pool, type="process"))
        if self._shared:
            with suppress(ObjectAlreadyExists):
                self.client.create_work_queue(self._home, work_pool_name=self._pool)
        environment, tags = self.settings.environment(), [TAG]
        if imports:
            environment[IMPORTS] = imports
        if self.settings.prefect_api_url:
            common = self._shared and name == self._any
            tags.append(f"{HOME_TAG}{self.settings.work_pool if common else self._home}")
        if self._shared:  # whoever takes a run uses the settings of its own worker
            environment = {}
        return self.client.create_deployment(
            flow_id=self.client.create_flow(evolve_and_gate),
            name=name,
            schedules=[],
            parameters=dict(parameters),
            description=description,
            work_pool_name=self._pool,
            entrypoint=ENTRYPOINT,
            parameter_openapi_schema=parameter_schema(evolve_and_gate).model_dump_for_openapi(),
            enforce_parameter_schema=False,
            job_variables={"env": environment},
            tags=tags,
        )

    # -------------------------------------------------------------------------------- flow runs

    def launch(self, schedule: Schedule, firing: datetime) -> FlowRun:
        """Hand a firing to the workers; doing so twice makes one run."""
        run_id, moment = schedule.run_id(firing), firing.astimezone(UTC).isoformat()
        return self.client.create_flow_run_from_deployment(
            self.deploy(schedule),
            parameters={"run_id": run_id, "firing": moment},
            state=Scheduled(scheduled_time=firing),
            name=run_id,
            tags=[TAG, schedule.name],
            idempotency_key=f"{self._home}:{run_id}",
        )

    def go_on(self, run_id: str, schedule: str | None, approve: str, count: int) -> FlowRun:
        """Hand a run that was cut off to the workers again, under its own id, where it lies."""
        workspace = find_workspace(self.settings, run_id)
        imports = workspace.imports if workspace is not None else ""
        return self.client.create_flow_run_from_deployment(
            self._any_id(),
            parameters={"run_id": run_id, "schedule": schedule, "approve": approve},
            name=run_id,
            tags=[TAG, *([schedule] if schedule else [])],
            idempotency_key=f"{self._home}:{run_id}:again:{count}",
            work_queue_name=self._home if self._shared else None,
            job_variables={"env": {IMPORTS: imports}} if imports else None,
        )

    def anew(self, run: FlowRun, count: int, *, here: bool) -> FlowRun:
        """Hand a run that died before it had a workspace to the workers again, as it was asked for.

        Whoever in a pool asks so, it is one run. `here`: this home has its trace, so that it is
        for its own workers. Its schedule may have been removed meanwhile.
        """
        schedule = run.parameters.get("schedule")
        found = self._deployed(self._name(schedule)) if schedule else None
        return self.client.create_flow_run_from_deployment(
            found.id if found is not None else self._any_id(),
            parameters={**run.parameters, "run_id": run.name},
            name=run.name,
            tags=run.tags,
            idempotency_key=f"{self._pool}:{run.name}:anew:{count}",
            work_queue_name=self._home if self._shared and here else None,
            job_variables=run.job_variables,
        )

    def going(self, schedule: str | None = None) -> list[FlowRun]:
        """Flow runs that are not over, of one schedule or of all."""
        tags = [TAG, schedule] if schedule else None
        found = self._own(
            self.client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[evolve_and_gate.name])),
                flow_run_filter=FlowRunFilter(
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(GOING))),
                    tags=FlowRunFilterTags(all_=tags) if tags else None,
                ),
            )
        )
        # a schedule may have the name of a tag that each run has
        return [run for run in found if schedule in (None, run.parameters.get("schedule"))]

    def latest(self, run_id: str) -> FlowRun | None:
        """The flow run that worked on a run last; None where no worker did."""
        found = self.client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[evolve_and_gate.name])),
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run_id])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        )
        return next(iter(self._own(found)), None)

    def _own(self, found: Iterable[FlowRun]) -> list[FlowRun]:
        """Without those of other homes' pools, which may have the same names; by hand has none."""
        return [run for run in found if run.work_pool_name in (None, self._pool)]

    def begin_now(self, found: FlowRun) -> None:
        """Let a flow run begin now, whatever time it waits for."""
        self.client.set_flow_run_state(found.id, Scheduled(), force=True)

    def crashed(self, found: FlowRun, why: str) -> None:
        """Say that a flow run's process is gone; one that was being cancelled is cancelled."""
        cancelled = found.state is not None and found.state.type is StateType.CANCELLING
        state: State[Any] = Cancelled(message=why) if cancelled else Crashed(message=why)
        self.client.set_flow_run_state(found.id, state, force=True)


def _take_over(settings: Settings, deployment: Any) -> None:
    """A schedule of 0.2, which was a deployment and nothing else, as a file."""
    crons = [each for each in deployment.schedules if hasattr(each.schedule, "cron")]
    asked = deployment.parameters
    if not crons or "preset" not in asked:
        return
    cron, preset = crons[0], str(asked["preset"])
    schedule = Schedule(
        name=deployment.name,
        cron=cron.schedule.cron,
        timezone=cron.schedule.timezone or "UTC",
        params={},
        preset=preset,
        start=str(asked.get("start", "champion")),
        approve=str(asked.get("approve", "manual")),
        overlap="skip",  # what 0.2 did with a firing while the previous run was still running
        paused=not cron.active,
        reason="" if cron.active else "it was paused by version 0.2",
    )
    try:
        params = resolved(preset, _texts(asked.get("overrides", ()))).model_dump(mode="json")
        schedules.add(settings, replace(schedule, params=params))
    except SrghnError as error:  # a preset by a relative path, most of all: it failed every time
        why = f"its preset {preset} could not be read: {error}; add it again"
        params = resolved("cartpole-switch", ()).model_dump(mode="json")
        broken = replace(schedule, params=params, paused=True, reason=why)
        schedules.add(settings, broken)


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
