"""What the clock decides: overlaps, missed firings, and runs whose process is gone.

The Prefect server is a list here; `tests/pipelines/runs/test_schedule.py` has a real one.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.runs import schedules
from pipelines.runs.clock import MOST_RESUMED, recover, tick
from pipelines.runs.pools import pool_of
from pipelines.runs.schedules import Schedule
from pipelines.runs.workspaces import create_workspace
from serving import runs
from serving.settings import Settings
from tests.pipelines.conftest import Tiny

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Server:
    """What a Prefect server was asked."""

    runs: list[Any] = field(default_factory=list)
    launched: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    gone_on: list[tuple[str, str | None, str, int]] = field(default_factory=list)
    ended: dict[str, Any] = field(default_factory=dict)
    begun_anew: list[tuple[str, int]] = field(default_factory=list)
    begun_here: list[bool] = field(default_factory=list)
    begun_now: list[str] = field(default_factory=list)
    died_early: int = 0

    def going(self, schedule: str | None = None) -> list[Any]:
        return [run for run in self.runs if schedule is None or schedule in run.tags]

    def latest(self, run_id: str) -> Any:
        going = {run.name: run for run in self.runs}
        return self.ended.get(run_id, going.get(run_id))

    def launch(self, schedule: Schedule, firing: datetime) -> None:
        self.launched.append(schedule.run_id(firing))

    def begin_now(self, run: Any) -> None:
        self.begun_now.append(run.name)

    def crashed(self, run: Any, why: str) -> None:
        self.crashes.append(run.name)

    def go_on(self, run_id: str, schedule: str | None, approve: str, count: int) -> Any:
        """Prefect gives a flow run that was asked for before again, whatever became of it."""
        self.gone_on.append((run_id, schedule, approve, count))
        return run_of(run_id, "CRASHED" if count <= self.died_early else "SCHEDULED")

    def anew(self, run: Any, count: int, *, here: bool) -> Any:
        self.begun_anew.append((run.name, count))
        self.begun_here.append(here)
        return run_of(run.name, "CRASHED" if count <= self.died_early else "SCHEDULED")


def run_of(name: str, state: str = "RUNNING", *tags: str) -> Any:
    parameters = {"schedule": tags[0] if tags else None, "approve": "auto"}
    return SimpleNamespace(
        name=name,
        state=SimpleNamespace(type=SimpleNamespace(value=state)),
        tags=list(tags),
        deployment_id="d" if tags else None,
        parameters=parameters,
        start_time=datetime(2026, 1, 1, tzinfo=UTC),
        next_scheduled_start_time=None,
        created=None,
    )


@pytest.fixture
def server() -> Server:
    return Server()


def hourly(settings: Settings, tiny: Tiny, overlap: str = "queue") -> Schedule:
    params = tiny().model_dump(mode="json")
    asked = Schedule("hourly", "0 * * * *", "UTC", params, "tiny", overlap=overlap)
    return schedules.add(settings, asked, MIDNIGHT)


def test_a_firing_is_launched_once(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    hourly(settings, tiny)
    for minute in (59, 60, 61, 75):
        now = MIDNIGHT.replace(hour=minute // 60, minute=minute % 60)
        tick(settings, server, said.append, now)  # type: ignore[arg-type]
    assert server.launched == ["hourly-20260101-010000"]
    told = "schedule hourly: the firing of 2026-01-01 01:00 UTC is run "
    assert said == [told + server.launched[0]]


def test_what_was_missed_is_made_up_for_by_one_run_and_said(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    hourly(settings, tiny)
    tick(settings, server, said.append, MIDNIGHT.replace(day=3, minute=10))  # type: ignore[arg-type]
    assert server.launched == ["hourly-20260103-000000"]
    assert "47 earlier firings were missed" in said[0]
    assert "47 earlier firings were missed" in schedules.find(settings, "hourly").note


def test_an_overlap_waits_and_then_one_run_stands_for_all(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    hourly(settings, tiny)
    server.runs = [run_of("before", "RUNNING", "hourly")]
    for hour in (1, 2, 3):
        for _ in range(2):
            tick(settings, server, said.append, MIDNIGHT.replace(hour=hour))  # type: ignore[arg-type]
    assert server.launched == []
    assert [text.split(": ", 1)[1] for text in said] == [
        f"the firing of 2026-01-01 0{hour}:00 UTC waits for run before to end" for hour in (1, 2, 3)
    ]
    server.runs = []
    tick(settings, server, said.append, MIDNIGHT.replace(hour=3, minute=5))  # type: ignore[arg-type]
    assert server.launched == ["hourly-20260101-030000"]


@pytest.mark.parametrize("overlap", ["queue", "skip"])
@pytest.mark.parametrize("meanwhile", ["paused", "removed", "replaced"])
def test_what_a_person_does_to_a_schedule_during_a_tick_stays(
    settings: Settings, tiny: Tiny, said: list[str], overlap: str, meanwhile: str
) -> None:
    class Slow(Server):
        def going(self, schedule: str | None = None) -> list[Any]:
            if meanwhile == "paused":
                schedules.pause(settings, "hourly", "holidays")
            else:
                schedules.remove(settings, "hourly")
            if meanwhile == "replaced":
                schedules.add(settings, replace(asked, preset="another"), MIDNIGHT)
            return super().going(schedule)

    asked = hourly(settings, tiny, overlap)
    server = Slow([run_of("before", "RUNNING", "hourly")])
    tick(settings, server, said.append, MIDNIGHT.replace(hour=1))  # type: ignore[arg-type]
    found = schedules.listed(settings)
    assert [(each.paused, each.preset) for each in found] == {
        "paused": [(True, "tiny")],
        "removed": [],
        "replaced": [(False, "another")],
    }[meanwhile]


def test_an_overlap_is_skipped_where_the_schedule_says_so(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    hourly(settings, tiny, "skip")
    server.runs = [run_of("before", "RUNNING", "hourly")]
    tick(settings, server, said.append, MIDNIGHT.replace(hour=1))  # type: ignore[arg-type]
    assert "was skipped: run before is still running" in said[0]
    server.runs = []
    tick(settings, server, said.append, MIDNIGHT.replace(hour=1, minute=30))  # type: ignore[arg-type]
    assert server.launched == []
    tick(settings, server, said.append, MIDNIGHT.replace(hour=2))  # type: ignore[arg-type]
    assert server.launched == ["hourly-20260101-020000"]


def test_a_paused_schedule_fires_nothing(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    hourly(settings, tiny)
    schedules.pause(settings, "hourly", "holidays")
    tick(settings, server, said.append, MIDNIGHT.replace(hour=5))  # type: ignore[arg-type]
    assert (server.launched, said) == ([], [])


# ------------------------------------------------------------------- runs whose process is gone


def gone(settings: Settings, run_id: str, resumed: int = 0) -> None:
    """A trace of a run whose process is no more."""
    trace = replace(runs.begun(run_id, schedule="hourly", resumed=resumed), process="999999999:1")
    runs.write(settings.home, trace)


def test_a_run_that_is_at_work_is_left_alone(
    settings: Settings, server: Server, said: list[str]
) -> None:
    runs.write(settings.home, runs.begun("one"))
    server.runs = [run_of("one", "RUNNING", "hourly"), run_of("two", "SCHEDULED", "hourly")]
    recover(settings, server, said.append, no_worker=True)  # type: ignore[arg-type]
    assert (server.crashes, said) == ([], [])


@pytest.mark.parametrize("removed", [False, True])
def test_a_run_that_was_cut_off_goes_on_under_its_own_id(
    settings: Settings, tiny: Tiny, server: Server, said: list[str], removed: bool
) -> None:
    """Whether or not its schedule, and with it its deployment, was removed meanwhile."""
    create_workspace(settings, "one", tiny())
    gone(settings, "one")
    server.runs = [run_of("one", "RUNNING", "hourly")]
    if removed:
        server.runs[0].deployment_id = None
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert server.crashes == ["one"]
    assert server.gone_on == [("one", "hourly", "auto", 1)]


def test_a_run_that_its_worker_calls_crashed_goes_on_once(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    """A worker that is up ends the flow run of a process that was killed; it is going no more."""
    create_workspace(settings, "one", tiny())
    gone(settings, "one")
    gone(settings, "by-hand")  # without any flow run
    server.ended = {"one": run_of("one", "CRASHED", "hourly")}
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert server.gone_on == [("one", "hourly", "auto", 1)]
    server.runs = [run_of("one", "SCHEDULED", "hourly")]  # what was handed to the workers
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert len(server.gone_on) == 1
    assert said == [
        "run one: its process is gone; the worker marked it as crashed",
        "run one: resumes from its last checkpoint",
    ]


def test_two_that_look_at_once_resume_a_run_once(
    settings: Settings, tiny: Tiny, said: list[str]
) -> None:
    """The clock, and a worker that restarts; each would have found the run going."""
    create_workspace(settings, "one", tiny())
    gone(settings, "one")
    both = threading.Barrier(2)

    class Slow(Server):
        def going(self, schedule: str | None = None) -> list[Any]:
            found = super().going(schedule)
            with suppress(threading.BrokenBarrierError):
                both.wait(0.5)
            return found

        def go_on(self, *asked: Any) -> Any:
            self.runs = [run_of("one", "SCHEDULED", "hourly")]
            return super().go_on(*asked)

    server = Slow([run_of("one", "RUNNING", "hourly")])
    look = partial(recover, settings, server, said.append, no_worker=False)
    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (server.crashes, len(server.gone_on)) == (["one"], 1)


@pytest.mark.parametrize("died_early", [1, MOST_RESUMED])
def test_a_resumption_that_died_before_it_left_a_trace_is_followed_by_another(
    settings: Settings, tiny: Tiny, server: Server, said: list[str], died_early: int
) -> None:
    """It did not count itself in the trace, so the same number would give the dead one again."""
    create_workspace(settings, "one", tiny())
    gone(settings, "one")
    server.runs, server.died_early = [run_of("one", "RUNNING", "hourly")], died_early
    recover(settings, server, said.append, no_worker=True)  # type: ignore[arg-type]
    found = runs.find(settings.home, "one")
    assert found is not None
    if died_early == MOST_RESUMED:
        assert (found.state, len(server.gone_on)) == ("crashed", MOST_RESUMED)
    else:
        assert (found.state, server.gone_on[-1]) == ("stopped", ("one", "hourly", "auto", 2))


@pytest.mark.parametrize("state", ["finished", "failed", "cancelled"])
def test_a_run_that_just_ended_is_left_to_say_so_in_prefect(
    settings: Settings, server: Server, said: list[str], state: str
) -> None:
    """Its trace is written some seconds before its flow run ends, by a process that is there."""
    runs.write(settings.home, runs.ended(runs.begun("one"), state))
    runs.write(settings.home, replace(runs.ended(runs.begun("two"), state), process="1:0"))
    server.runs = [run_of("one", "RUNNING", "hourly"), run_of("two", "CANCELLING", "hourly")]
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert (server.crashes, server.gone_on, said) == ([], [], [])


@pytest.mark.parametrize("at", ["2026-01-01T01:00:00+00:00", "2126-01-01T01:00:00+00:00"])
def test_a_run_that_ended_and_could_not_say_so_in_prefect_is_not_resumed(
    settings: Settings, tiny: Tiny, server: Server, said: list[str], at: str
) -> None:
    """Nor does it seem to end for a century because the clock was put back."""
    create_workspace(settings, "one", tiny())
    long_ago = {"process": "1:0", "at": at}
    runs.write(settings.home, replace(runs.ended(runs.begun("one"), "finished"), **long_ago))
    server.runs = [run_of("one", "RUNNING", "hourly"), run_of("two", "RUNNING", "hourly")]
    for run in server.runs:
        run.start_time = datetime.fromisoformat(at)
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert (server.crashes, server.gone_on) == (["one", "two"], [])


@pytest.mark.parametrize("no_worker", [False, True])
def test_a_run_that_is_resumed_has_time_to_leave_a_trace(
    settings: Settings, tiny: Tiny, server: Server, said: list[str], no_worker: bool
) -> None:
    """The trace is that of the process that died before; with its worker it is gone at once."""
    create_workspace(settings, "one", tiny())
    before = {"process": "1:0", "at": "2026-01-01T01:00:00+00:00"}
    runs.write(settings.home, replace(runs.begun("one"), **before))
    server.runs = [run_of("one", "RUNNING", "hourly")]
    server.runs[0].start_time = datetime.now(UTC)
    recover(settings, server, said.append, no_worker=no_worker)  # type: ignore[arg-type]
    assert server.crashes == (["one"] if no_worker else [])


def test_a_run_that_its_worker_cancelled_is_over(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    create_workspace(settings, "one", tiny())
    gone(settings, "one")
    server.ended = {"one": run_of("one", "CANCELLED", "hourly")}
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    found = runs.find(settings.home, "one")
    assert found is not None
    assert (found.state, server.gone_on) == ("cancelled", [])


def test_a_run_that_dies_each_time_is_left_to_a_person(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    create_workspace(settings, "one", tiny())
    gone(settings, "one", resumed=MOST_RESUMED)
    server.runs = [run_of("one", "RUNNING", "hourly")]
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert (server.crashes, server.gone_on) == (["one"], [])
    found = runs.find(settings.home, "one")
    assert found is not None
    assert found.state == "crashed"
    assert "srghn run --resume one" in found.message


def test_what_was_being_cancelled_stays_cancelled(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    create_workspace(settings, "one", tiny())
    gone(settings, "one")
    server.runs = [run_of("one", "CANCELLING", "hourly")]
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert server.gone_on == []
    found = runs.find(settings.home, "one")
    assert found is not None
    assert found.state == "cancelled"


def test_a_run_by_hand_is_not_gone_on_with(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    create_workspace(settings, "one", tiny())
    gone(settings, "one")
    server.runs = [run_of("one", "RUNNING")]
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert (server.crashes, server.gone_on) == (["one"], [])


def test_a_run_that_was_only_taken_is_lost_where_no_worker_is(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    create_workspace(settings, "one", tiny())
    server.runs = [run_of("one", "PENDING", "hourly")]
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert server.crashes == []
    recover(settings, server, said.append, no_worker=True)  # type: ignore[arg-type]
    assert server.gone_on == [("one", "hourly", "auto", 1)]


@pytest.fixture
def fired(settings: Settings, tiny: Tiny, server: Server, said: list[str]) -> Any:
    """A run that a firing asked for, and that left no trace and no workspace."""
    hourly(settings, tiny)
    tick(settings, server, said.append, MIDNIGHT.replace(hour=1))  # type: ignore[arg-type]
    run = run_of(server.launched[0], "RUNNING", "hourly")
    run.parameters["params"] = tiny().model_dump(mode="json")
    said.clear()
    return run


def test_a_run_that_died_before_it_had_a_workspace_begins_again(
    settings: Settings, server: Server, said: list[str], fired: Any
) -> None:
    server.runs = [fired]
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert (server.crashes, server.begun_anew) == ([fired.name], [(fired.name, 1)])
    assert said[-1] == f"run {fired.name}: begins again"
    assert server.begun_here == [False]
    runs.write(settings.home, replace(runs.begun(fired.name, schedule="hourly"), process="gone"))
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert server.begun_here == [False, True]  # whose trace is here is no other host's


@pytest.mark.parametrize("died_early", [1, MOST_RESUMED])
def test_a_run_that_its_worker_calls_crashed_before_it_left_a_trace_begins_again(
    settings: Settings, server: Server, said: list[str], fired: Any, died_early: int
) -> None:
    fired.state.type.value = "CRASHED"
    server.ended, server.died_early = {fired.name: fired}, died_early
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    if died_early < MOST_RESUMED:
        assert server.begun_anew[-1] == (fired.name, died_early + 1)
        return
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert len(server.begun_anew) == MOST_RESUMED  # and then it is left to a person
    found = runs.find(settings.home, fired.name)
    assert found is not None
    assert (found.state, found.schedule) == ("crashed", "hourly")
    assert found.message == f"its process died {MOST_RESUMED + 1} times; see worker.log"


def test_a_run_that_failed_before_it_left_a_trace_gets_one(
    settings: Settings, server: Server, said: list[str], fired: Any
) -> None:
    """Parameters that Prefect itself refuses, for example."""
    fired.state = SimpleNamespace(type=SimpleNamespace(value="FAILED"), message="no such field")
    server.ended = {fired.name: fired}
    for _ in range(2):
        recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    found = runs.find(settings.home, fired.name)
    assert found is not None
    assert (found.state, found.message) == ("failed", "before it began: no such field")
    assert said == [f"run {fired.name}: it failed before it began"]


def test_in_a_shared_pool_a_missing_trace_may_be_on_another_host(
    settings: Settings, server: Server, said: list[str], fired: Any
) -> None:
    fired.state.type.value = "CRASHED"
    server.ended = {fired.name: fired}
    shared = on_a_server_that_others_use(settings, "fleet")
    recover(shared, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert (server.begun_anew, said) == ([], [])


def on_a_server_that_others_use(settings: Settings, pool: str = "") -> Settings:
    more = {"prefect_api_url": "http://127.0.0.1:9/api", "work_pool": pool}
    return settings.model_copy(update=more)


def test_on_a_server_that_others_use_their_runs_are_left_alone(
    settings: Settings, server: Server, said: list[str]
) -> None:
    settings = on_a_server_that_others_use(settings)
    own, theirs = run_of("mine", "RUNNING", "hourly"), run_of("theirs", "RUNNING", "hourly")
    own.work_pool_name, theirs.work_pool_name = pool_of(settings), "srghn-elsewhere-0123abcd"
    server.runs = [own, theirs]
    recover(settings, server, said.append, no_worker=True)  # type: ignore[arg-type]
    assert server.crashes == ["mine"]


def test_in_a_shared_pool_each_host_looks_after_the_runs_it_began(
    settings: Settings, server: Server, said: list[str], tiny: Tiny
) -> None:
    settings = on_a_server_that_others_use(settings, "fleet")
    create_workspace(settings, "mine", tiny())
    gone = replace(runs.begun("mine"), process="1:0")
    runs.write(settings.home, gone)
    waiting = run_of("just-taken", "PENDING", "hourly")
    waiting.start_time = datetime.now(UTC)
    server.runs = [
        run_of("mine", "RUNNING", "hourly"),
        run_of("theirs", "RUNNING", "hourly"),
        run_of("lost", "PENDING", "hourly"),
        waiting,
    ]
    recover(settings, server, said.append, no_worker=True)  # type: ignore[arg-type]
    assert server.crashes == ["mine", "lost"]
    assert server.gone_on == [("mine", "hourly", "auto", 1)]


def test_a_run_that_waits_to_be_resumed_is_not_called_crashed_again(
    settings: Settings, server: Server, said: list[str]
) -> None:
    runs.write(settings.home, replace(runs.begun("mine"), process="1:0"))
    server.runs = [run_of("mine", "PENDING", "hourly")]
    for found in (settings, on_a_server_that_others_use(settings, "fleet")):
        recover(found, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert server.crashes == []
