"""What is asked of a Prefect server for a home, and what of another home's is left alone.

The server is a dictionary here; `tests/pipelines/runs/test_schedule.py` has a real one.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from pipelines.commands import schedule as commands
from pipelines.runs import deployments, schedules
from pipelines.runs.clock import tick
from pipelines.runs.deployments import Prefect
from pipelines.runs.pools import own_queue, pool_of
from pipelines.runs.schedules import Schedule
from pipelines.runs.workspaces import create_workspace
from pipelines.services import prefect_server, up
from pipelines.services.processes import IMPORTS
from serving.settings import Settings
from srghn.errors import ConfigError
from tests.pipelines.conftest import Tiny, home_at

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Client:
    """Deployments by name, and the flow runs that were made."""

    deployed: dict[str, Any] = field(default_factory=dict)
    made: list[Any] = field(default_factory=list)
    flow_runs: list[Any] = field(default_factory=list)
    pools: set[str] = field(default_factory=set)

    def read_deployments(self) -> list[Any]:
        return list(self.deployed.values())

    def read_deployment_by_name(self, name: str) -> Any:
        try:
            return self.deployed[name.partition("/")[2]]
        except KeyError as error:
            raise ObjectNotFound(error) from error

    def create_deployment(self, *, name: str, **given: Any) -> str:
        assert given["work_pool_name"] in self.pools
        self.deployed[name] = SimpleNamespace(id=f"id-{name}", name=name, **given)
        return f"id-{name}"

    def delete_deployment(self, which: str) -> None:
        self.deployed = {n: each for n, each in self.deployed.items() if each.id != which}

    def create_flow_run_from_deployment(self, deployment: str, **given: Any) -> Any:
        self.made.append(SimpleNamespace(deployment_id=deployment, **given))
        return self.made[-1]

    def create_flow(self, flow: Any) -> str:
        return "flow"

    def create_work_pool(self, pool: Any) -> None:
        if pool.name in self.pools:
            raise ObjectAlreadyExists(ValueError(pool.name))
        self.pools.add(pool.name)

    def create_work_queue(self, name: str, work_pool_name: str) -> None:
        pass

    def read_flow_runs(self, **filters: Any) -> list[Any]:
        return self.flow_runs


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(deployments, "get_client", lambda **_: nullcontext(made))
    return made


def host(folder: Path, pool: str = "fleet") -> Settings:
    shared = {"prefect_api_url": "http://127.0.0.1:9/api", "work_pool": pool}
    return home_at(folder).model_copy(update=shared)


def add(settings: Settings, tiny: Tiny, *names: str) -> None:
    for name in names:
        asked = Schedule(name, "0 * * * *", "UTC", tiny().model_dump(mode="json"), "tiny")
        schedules.add(settings, asked, MIDNIGHT)


@pytest.fixture
def pair(tmp_path: Path, tiny: Tiny, client: Client) -> tuple[Settings, Settings]:
    """Two hosts of a fleet. The first has schedule `b`; so has the second, which was refused."""
    first, second = host(tmp_path / "first"), host(tmp_path / "second")
    add(first, tiny, "b")
    with Prefect(first) as prefect:
        prefect.sync()
    add(second, tiny, "a", "b", "c")
    return first, second


def test_a_schedule_that_is_refused_stops_no_other(
    pair: tuple[Settings, Settings], client: Client
) -> None:
    theirs = client.deployed["b"]
    with Prefect(pair[1]) as prefect:
        with pytest.raises(ConfigError, match="another host has a schedule 'b'"):
            prefect.sync()
        assert {"a", "c"} <= set(client.deployed)
        with pytest.raises(ConfigError, match="another host has a schedule 'b'"):
            tick(pair[1], prefect, lambda _: None, MIDNIGHT.replace(hour=1))
    assert [run.name for run in client.made] == ["a-20260101-010000", "c-20260101-010000"]
    assert client.deployed["b"] is theirs


def test_a_file_that_cannot_be_read_stops_no_other_deployment(
    pair: tuple[Settings, Settings], client: Client, tiny: Tiny
) -> None:
    """And keeps its own."""
    first, _ = pair
    add(first, tiny, "z")
    (first.home / "schedules" / "b.json").write_text("{")
    with Prefect(first) as prefect, pytest.raises(ConfigError, match=r"b\.json is not a schedule"):
        prefect.sync()
    assert {"b", "z"} <= set(client.deployed)


def test_removing_a_refused_schedule_leaves_the_other_hosts_alone(
    pair: tuple[Settings, Settings], client: Client
) -> None:
    with Prefect(pair[1]) as prefect:
        schedules.remove(pair[1], "b")
        prefect.undeploy("b")
        prefect.sync()
    assert set(client.deployed) == {"run-on-fleet", "a", "b", "c"}
    with Prefect(pair[0]) as prefect:
        prefect.undeploy("b")
    assert "b" not in client.deployed


def test_a_name_that_another_host_has_is_refused_before_it_is_written(
    pair: tuple[Settings, Settings],
    client: Client,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    third, preset = host(tmp_path / "third"), tmp_path / "tiny.yaml"
    preset.write_text(tiny().to_yaml())
    monkeypatch.setattr(commands, "load_settings", lambda: third)
    monkeypatch.setattr(prefect_server, "running_server", lambda settings: "url")
    monkeypatch.setattr(prefect_server, "use_server", lambda *_: None)
    monkeypatch.setattr("pipelines.runs.prepare.check", lambda *_: None)
    monkeypatch.setattr("pipelines.runs.prepare.prepared", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="another host has a schedule 'b'"):
        commands.add("b", "0 3 * * *", str(preset))
    assert schedules.listed(third) == []
    commands.add("mine", "0 3 * * *", str(preset))
    assert "mine" in client.deployed


def test_runs_are_looked_after_though_a_schedule_is_refused(
    pair: tuple[Settings, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bool] = []

    def recover(*_: Any, no_worker: bool) -> None:
        looked.append(no_worker)

    monkeypatch.setattr("pipelines.runs.clock.recover", recover)
    up._look_after_runs(pair[1])
    assert looked == [True]


def test_a_run_is_resumed_with_the_folder_it_imports_from(
    tmp_path: Path, tiny: Tiny, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever `srghn up` was started, and though its schedule was removed meanwhile."""
    settings = host(tmp_path / "home", "")
    with monkeypatch.context() as patch:
        patch.setenv(IMPORTS, "/users/worlds")
        create_workspace(settings, "one", tiny())
    older = create_workspace(settings, "older", tiny())
    older.imports_file.unlink()
    with Prefect(settings) as prefect:
        prefect.sync()
        prefect.go_on("one", "hourly", "auto", 1)
        prefect.go_on("older", "hourly", "auto", 1)
    first, second = client.made
    assert first.job_variables == {"env": {IMPORTS: "/users/worlds"}}
    assert second.job_variables is None


@pytest.mark.parametrize("removed", [False, True])
def test_a_run_that_begins_again_is_asked_for_as_it_was_and_by_one_host(
    pair: tuple[Settings, Settings], client: Client, removed: bool
) -> None:
    asked = {"params": {}, "schedule": "b", "run_id": "b-1", "firing": "2026-01-01T01:00:00"}
    run = SimpleNamespace(name="b-1", parameters=asked, tags=["srghn", "b"], job_variables={})
    if removed:
        del client.deployed["b"]
        schedules.remove(pair[0], "b")
        schedules.remove(pair[1], "b")
    for settings in pair:
        with Prefect(settings) as prefect:
            prefect.anew(run, 1, here=False)  # type: ignore[arg-type]
    first, second = client.made
    assert first.work_queue_name is None
    assert first.deployment_id == ("id-run-on-fleet" if removed else "id-b")
    assert (first.parameters, first.tags, first.name) == (asked, ["srghn", "b"], "b-1")
    assert first.idempotency_key == second.idempotency_key
    with Prefect(pair[0]) as prefect:
        prefect.anew(run, 2, here=True)  # type: ignore[arg-type]
    assert client.made[-1].work_queue_name == own_queue(pair[0])


def test_homes_on_a_common_server_leave_each_other_alone(
    tmp_path: Path, tiny: Tiny, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though their paths and their schedules have the same names, on two hosts."""
    home, runs, pools = tmp_path / "home", [], []
    for number, names in enumerate((("both", "first"), ("both", "second"))):
        monkeypatch.setattr("socket.gethostname", lambda number=number: f"host{number}")
        shutil.rmtree(home, ignore_errors=True)
        settings = host(home, "")
        add(settings, tiny, *names)
        with Prefect(settings) as prefect:
            prefect.sync()
            pools.append(pool_of(settings))
            client.flow_runs = [
                SimpleNamespace(name=pool, work_pool_name=pool, parameters={"schedule": "both"})
                for pool in pools
            ]
            assert [run.name for run in prefect.going("both")] == [pools[-1]]
            latest = prefect.latest("both-20260101-010000")
            assert latest is not None
            assert latest.work_pool_name == pools[-1]
            runs.append(prefect.launch(schedules.find(settings, "both"), MIDNIGHT))
    assert set(client.deployed) == {
        f"{name}-on-{pool}"
        for pool, own in zip(pools, ("first", "second"), strict=True)
        for name in ("both", own, "run")
    }
    assert len({run.deployment_id for run in runs}) == 2
    assert len({run.idempotency_key for run in runs}) == 2
    with Prefect(settings) as prefect:
        prefect.undeploy("both")
    assert [name for name in client.deployed if "both" in name] == [f"both-on-{pools[0]}"]


def test_a_run_is_handed_on_though_prefect_lost_its_database(
    settings: Settings, client: Client
) -> None:
    """The deployment of single runs, and the pool, were made when a worker started alone."""
    with Prefect(settings) as prefect:
        prefect.sync()
        client.deployed.clear()
        client.pools.clear()
        for _ in range(2):
            prefect.go_on("one", "hourly", "manual", 1)
    assert [run.deployment_id for run in client.made] == 2 * ["id-run"]
    assert list(client.deployed) == ["run"]


def test_a_schedule_with_the_name_of_our_tag_has_its_own_runs_alone(
    settings: Settings, client: Client
) -> None:
    """Each run of another schedule was taken for its own, and its firings were skipped."""
    client.flow_runs = [
        SimpleNamespace(name=name, work_pool_name=None, parameters={"schedule": name})
        for name in ("srghn", "nightly")
    ]
    with Prefect(settings) as prefect:
        assert [run.name for run in prefect.going("srghn")] == ["srghn"]
        assert len(prefect.going()) == 2
