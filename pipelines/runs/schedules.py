"""Schedules: Prefect deployments of the one flow, run by a process worker.

A schedule lives in the Prefect server, so that pausing it outlasts any worker; `srghn worker`
picks up what is due and runs it in a workspace of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from pipelines.runs.flow import evolve_and_gate
from srghn.errors import ConfigError

POOL = "srghn"
ENTRYPOINT = "pipelines.runs.flow.evolve_and_gate"
T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """A named cron schedule and what it runs."""

    name: str
    cron: str
    timezone: str
    paused: bool
    preset: str
    next_run: str | None


def add(
    name: str, cron: str, preset: str, overrides: Sequence[str], start: str, approve: str, tz: str
) -> None:
    """Add a schedule, or replace the one of that name. Raises `ConfigError` for a bad cron.

    A run that comes due while the one before still goes is cancelled, not queued.
    """
    try:
        schedule = CronSchedule(cron=cron, timezone=tz)
    except ValueError as error:
        raise ConfigError(
            f"{cron!r} in time zone {tz!r} is not a cron schedule, expected five fields such as "
            f"'0 3 * * 2' (Tuesdays at 3:00) and a zone such as Europe/Berlin"
        ) from error
    parameters = {
        "preset": preset,
        "overrides": list(overrides),
        "start": start,
        "approve": approve,
    }
    _do(_add(name, schedule, parameters))


def listed() -> list[Schedule]:
    """All schedules by name."""
    return _do(_list())


def set_paused(name: str, paused: bool) -> None:
    """Pause or resume one; raises `ConfigError` naming those there are."""
    _do(_set_paused(name, paused))


def remove(name: str) -> None:
    """Delete one; raises `ConfigError` naming those there are."""
    _do(_remove(name))


async def _add(name: str, schedule: CronSchedule, parameters: dict[str, Any]) -> None:
    async with get_client() as client:
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        flow_id = await client.create_flow(evolve_and_gate)
        await client.create_deployment(
            flow_id=flow_id,
            name=name,
            schedules=[DeploymentScheduleCreate(schedule=schedule, active=True)],
            parameters=parameters,
            work_pool_name=POOL,
            entrypoint=ENTRYPOINT,
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(
                collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
            tags=["srghn"],
        )


async def _list() -> list[Schedule]:
    async with get_client() as client:
        found = []
        for deployment in await client.read_deployments():
            if "srghn" not in deployment.tags:
                continue
            cron = next(s for s in deployment.schedules if isinstance(s.schedule, CronSchedule))
            assert isinstance(cron.schedule, CronSchedule)
            due = await client.get_scheduled_flow_runs_for_deployments([deployment.id], limit=1)
            found.append(
                Schedule(
                    name=deployment.name,
                    cron=cron.schedule.cron,
                    timezone=cron.schedule.timezone or "UTC",
                    paused=not cron.active,
                    preset=str(deployment.parameters.get("preset")),
                    next_run=str(due[0].next_scheduled_start_time) if due else None,
                )
            )
        return sorted(found, key=lambda schedule: schedule.name)


async def _set_paused(name: str, paused: bool) -> None:
    async with get_client() as client:
        deployment = await _find(client, name)
        for schedule in deployment.schedules:
            await client.update_deployment_schedule(deployment.id, schedule.id, active=not paused)


async def _remove(name: str) -> None:
    async with get_client() as client:
        await client.delete_deployment((await _find(client, name)).id)


async def _find(client: Any, name: str) -> Any:
    try:
        return await client.read_deployment_by_name(f"{evolve_and_gate.name}/{name}")
    except ObjectNotFound:
        known = ", ".join(s.name for s in await _list()) or "none"
        raise ConfigError(f"no schedule {name!r}; there are: {known}") from None


def _do(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
