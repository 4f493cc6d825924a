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
from pipelines.runs.schedules import Schedule
from pipelines.services.processes import IMPORTS
from serving.settings import Settings
from srghn.errors import ConfigError, SrghnError

TAG = "srghn"
ENTRYPOINT = "pipelines.runs.flow.evolve_and_gate"
#: The deployment that any run can be started from, in the pool of an embedded server.
ANY = "run"
#: Begins the tag that says which home a deployment in a shared pool is of.
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
        self._home = own_queue(settings) if self._shared else str(settings.home)
        self._entered = get_client(sync_client=True)

    def __enter__(self) -> Prefect:
        self.client: SyncPrefectClient = self._entered.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._entered.__exit__(*raised)

    # ------------------------------------------------------------------------------ deployments

    def sync(self) -> None:
        """Make the deployments those of the schedules' files, and take old ones into files."""
        with suppress(ObjectAlreadyExists):
            self.client.create_work_pool(WorkPoolCreate(name=self._pool, type="process"))
        if self._shared:
            with suppress(ObjectAlreadyExists):
                self.client.create_work_queue(self._home, work_pool_name=self._pool)
        known = {found.name: found for found in schedules.listed(self.settings)}
        for deployment in self.client.read_deployments():
            if TAG not in deployment.tags or deployment.name in {ANY, self._any, *known}:
                continue
            if self._of_another_home(deployment):
                continue
            taken = _taken_over(self.settings, deployment)
            if taken is not None:
                known[taken.name] = taken
            self.client.delete_deployment(deployment.id)
        self._deploy(self._any, {}, "Any run. Parameters: `params`, or a preset.")
        for schedule in known.values():
            self.deploy(schedule)

    def deploy(self, schedule: Schedule) -> UUID:
        """What Prefect shows of a schedule; its parameters are those of each of its runs.

        Raises `ConfigError` where another host has a schedule of this name.
        """
        if self._shared:
            self._require_own(schedule.name)
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
        return self._deploy(schedule.name, parameters, says, schedule.imports)

    def _of_another_home(self, deployment: Any) -> bool:
        """Whether another home that uses this server made it; those of 0.2 do not say whose."""
        tagged = [tag for tag in deployment.tags if tag.startswith(HOME_TAG)]
        if tagged:
            return tagged != [f"{HOME_TAG}{self._home}"]
        home = deployment.job_variables.get("env", {}).get("SRGHN_HOME")
        return home is not None and home != str(self.settings.home)

    def _require_own(self, name: str) -> None:
        try:
            found = self.client.read_deployment_by_name(f"{evolve_and_gate.name}/{name}")
        except ObjectNotFound:
            return
        if self._of_another_home(found):
            raise ConfigError(
                f"another host has a schedule {name!r} on this Prefect server: remove it there (if "
                "that host is gone, delete the deployment in Prefect), or give this one another "
                "name"
            )

    def undeploy(self, name: str) -> None:
        """Delete a schedule's deployment; its past runs stay, a running one continues."""
        try:
            found = self.client.read_deployment_by_name(f"{evolve_and_gate.name}/{name}")
        except ObjectNotFound:
            return
        self.client.delete_deployment(found.id)

    def _deploy(
        self, name: str, parameters: Mapping[str, Any], description: str, imports: str = ""
    ) -> UUID:
        environment, tags = self.settings.environment(), [TAG]
        if imports:
            environment[IMPORTS] = imports
        if self._shared:  # whoever takes a run uses the settings of its own worker
            whose = self.settings.work_pool if name == self._any else self._home
            environment, tags = {}, [TAG, f"{HOME_TAG}{whose}"]
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
        found = self.client.read_deployment_by_name(f"{evolve_and_gate.name}/{self._any}")
        return self.client.create_flow_run_from_deployment(
            found.id,
            parameters={"run_id": run_id, "schedule": schedule, "approve": approve},
            name=run_id,
            tags=[TAG, *([schedule] if schedule else [])],
            idempotency_key=f"{self._home}:{run_id}:again:{count}",
            work_queue_name=self._home if self._shared else None,
        )

    def going(self, schedule: str | None = None) -> list[FlowRun]:
        """Flow runs that are not over, of one schedule or of all."""
        tags = [TAG, schedule] if schedule else None
        return list(
            self.client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[evolve_and_gate.name])),
                flow_run_filter=FlowRunFilter(
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(GOING))),
                    tags=FlowRunFilterTags(all_=tags) if tags else None,
                ),
            )
        )

    def latest(self, run_id: str) -> FlowRun | None:
        """The flow run that worked on a run last; None where no worker did."""
        found = self.client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[evolve_and_gate.name])),
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run_id])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=1,
        )
        return found[0] if found else None

    def crashed(self, found: FlowRun, why: str) -> None:
        """Say that a flow run's process is gone; one that was being cancelled is cancelled."""
        cancelled = found.state is not None and found.state.type is StateType.CANCELLING
        state: State[Any] = Cancelled(message=why) if cancelled else Crashed(message=why)
        self.client.set_flow_run_state(found.id, state, force=True)


def _taken_over(settings: Settings, deployment: Any) -> Schedule | None:
    """A schedule of 0.2, which was a deployment and nothing else, as a file."""
    crons = [each for each in deployment.schedules if hasattr(each.schedule, "cron")]
    asked = deployment.parameters
    if not crons or "preset" not in asked:
        return None
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
        whole = schedules.add(settings, replace(schedule, params=params))
    except SrghnError as error:  # a preset by a relative path, most of all: it failed every time
        why = f"its preset {preset} could not be read: {error}; add it again"
        params = resolved("cartpole-switch", ()).model_dump(mode="json")
        broken = replace(schedule, params=params, paused=True, reason=why)
        whole = schedules.add(settings, broken)
    return whole


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
