"""What the clock does after it was killed or was wrong, and where one thing fails of many."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from pipelines.runs import schedules
from pipelines.runs.clock import MOST_RESUMED, recover, tick
from pipelines.runs.workspaces import create_workspace
from serving import runs
from serving.settings import Settings
from srghn.errors import ConfigError
from tests.pipelines.conftest import Tiny
from tests.pipelines.runs.test_clock import MIDNIGHT, Server, gone, hourly, run_of


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.mark.parametrize("overlap", ["queue", "skip"])
def test_a_firing_that_was_launched_and_not_noted_is_not_its_own_overlap(
    settings: Settings, tiny: Tiny, server: Server, said: list[str], overlap: str
) -> None:
    """The clock was killed in between."""
    hourly(settings, tiny, overlap)
    server.runs = [run_of("hourly-20260101-010000", "RUNNING", "hourly")]
    tick(settings, server, said.append, MIDNIGHT.replace(hour=1))  # type: ignore[arg-type]
    note = "the firing of 2026-01-01 01:00 UTC is run hourly-20260101-010000"
    assert schedules.find(settings, "hourly").note == note


def test_a_clock_that_was_far_ahead_for_a_tick_stops_no_schedule(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    hourly(settings, tiny)
    tick(settings, server, said.append, MIDNIGHT.replace(year=2036))  # type: ignore[arg-type]
    for hour, minute in ((1, 30), (1, 31), (2, 0), (2, 1)):
        moment = MIDNIGHT.replace(hour=hour, minute=minute)
        tick(settings, server, said.append, moment)  # type: ignore[arg-type]
    assert server.launched == ["hourly-20360101-000000", "hourly-20260101-020000"]
    assert said[1] == (
        "schedule hourly: the clock was wrong, at 2036-01-01T00:00:00+00:00; from now on it fires "
        "again"
    )


def test_a_wrong_clock_says_nothing_of_a_paused_schedule(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    hourly(settings, tiny)
    tick(settings, server, said.append, MIDNIGHT.replace(year=2036))  # type: ignore[arg-type]
    paused = schedules.pause(settings, "hourly", "the rig is moved")
    tick(settings, server, said.append, MIDNIGHT.replace(hour=1))  # type: ignore[arg-type]
    assert schedules.find(settings, "hourly") == paused
    assert len(said) == 1


@pytest.mark.parametrize("overlap", ["queue", "skip"])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [(datetime(1970, 1, 1, tzinfo=UTC), 1), (MIDNIGHT.replace(day=9), 1), (MIDNIGHT, 2)],
)
def test_a_clock_that_is_behind_for_a_tick_fires_nothing_again(
    settings: Settings,
    tiny: Tiny,
    server: Server,
    said: list[str],
    wrong: datetime,
    told: int,
    overlap: str,
) -> None:
    """By years, as at the start of a machine without a battery, by hours, or by days.

    Nor does a firing run that was skipped.
    """
    hourly(settings, tiny, overlap)
    right = MIDNIGHT.replace(day=9, hour=5)
    if overlap == "skip":
        server.runs = [run_of("hourly-20260109-040000", "RUNNING", "hourly")]
    for moment in (right, wrong, right.replace(minute=1)):
        tick(settings, server, said.append, moment)  # type: ignore[arg-type]
        server.runs = []
    launched = ["hourly-20260109-050000"] if overlap == "queue" else []
    assert (server.launched, len(said)) == (launched, told)
    tick(settings, server, said.append, right.replace(hour=6))  # type: ignore[arg-type]
    assert server.launched == [*launched, "hourly-20260109-060000"]


def test_a_file_that_cannot_be_read_stops_no_other_schedule(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    hourly(settings, tiny)
    (settings.home / "schedules" / "a.json").write_text('{"name": "a", "cro')
    with pytest.raises(ConfigError, match=r"a\.json is not a schedule"):
        tick(settings, server, said.append, MIDNIGHT.replace(hour=1))  # type: ignore[arg-type]
    assert server.launched == ["hourly-20260101-010000"]


@pytest.mark.parametrize("workspace", [True, False])
def test_a_clock_that_is_killed_while_it_resumes_a_run_resumes_it_later(
    settings: Settings, tiny: Tiny, said: list[str], workspace: bool
) -> None:
    """In a pool nobody looks again at a run that has no trace here and is over in Prefect."""

    class Killed(Server):
        def go_on(self, *asked: Any) -> Any:
            raise KeyboardInterrupt

        def anew(self, *asked: Any, **more: Any) -> Any:
            raise KeyboardInterrupt

        def crashed(self, run: Any, why: str) -> None:
            self.runs.remove(run)

    if workspace:
        create_workspace(settings, "one", tiny())
    run = run_of("one", "RUNNING", "hourly")
    run.parameters["params"] = {}
    server = Killed([run])
    with pytest.raises(KeyboardInterrupt):
        recover(settings, server, said.append, no_worker=True)  # type: ignore[arg-type]
    again = Server(server.runs)
    recover(settings, again, said.append, no_worker=True)  # type: ignore[arg-type]
    resumed = [("one", "hourly", "auto", 1)], [("one", 1)]
    assert (again.gone_on, again.begun_anew) == (
        (resumed[0], []) if workspace else ([], resumed[1])
    )


@pytest.mark.parametrize("state", ["RUNNING", "CRASHED"])
def test_a_run_that_cannot_be_resumed_stops_no_other(
    settings: Settings, tiny: Tiny, said: list[str], state: str
) -> None:
    class Refuses(Server):
        def go_on(self, run_id: str, *asked: Any) -> Any:
            if run_id == "one":
                raise ConfigError("it cannot be resumed")
            return super().go_on(run_id, *asked)

    for name in ("one", "two", "three"):
        create_workspace(settings, name, tiny())
    hourly(settings, tiny)
    tick(settings, Server(), said.append, MIDNIGHT.replace(hour=1))  # type: ignore[arg-type]
    both, server = [run_of(name, state, "hourly") for name in ("one", "two")], Refuses()
    if state == "RUNNING":
        server.runs = both
    else:  # as their worker says; "one" is looked at first
        server.ended = {run.name: run for run in both}
        gone(settings, "two")
        gone(settings, "one")
    gone(settings, "three")
    server.ended["three"] = run_of("three", "CRASHED", "hourly")
    with pytest.raises(ConfigError, match="it cannot be resumed"):
        recover(settings, server, said.append, no_worker=True)  # type: ignore[arg-type]
    assert sorted(asked[0] for asked in server.gone_on) == ["three", "two"]
    assert server.crashes == (["two"] if state == "RUNNING" else [])
    assert server.launched == ["hourly-20260101-010000"]  # which Prefect forgot


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_a_firing_keeps_apart_from_a_run_that_prefect_forgot(
    settings: Settings, tiny: Tiny, server: Server, said: list[str], overlap: str
) -> None:
    """Its database was lost, and the process of the run went on: the next firing ran beside it."""
    hourly(settings, tiny, overlap)
    runs.write(settings.home, runs.begun("hourly-20260101-010000", schedule="hourly"))
    tick(settings, server, said.append, MIDNIGHT.replace(hour=2))  # type: ignore[arg-type]
    assert server.launched == []
    assert "run hourly-20260101-010000" in said[0]
    gone(settings, "hourly-20260101-010000")  # it is to be resumed
    tick(settings, server, said.append, MIDNIGHT.replace(hour=3))  # type: ignore[arg-type]
    assert server.launched == []
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    tick(settings, server, said.append, MIDNIGHT.replace(hour=4))  # type: ignore[arg-type]
    assert server.launched == ["hourly-20260101-040000"]  # it had no workspace, and is given up


def test_a_run_that_prefect_forgot_is_resumed_or_told(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    hourly(settings, tiny)
    create_workspace(settings, "one", tiny())
    look = partial(recover, settings, server, said.append, no_worker=False)
    gone(settings, "one")
    look()
    assert server.gone_on == [("one", "hourly", "manual", 1)]
    assert said[-1] == "run one: its process is gone; it resumes from its last checkpoint"
    gone(settings, "one", MOST_RESUMED)
    look()
    found = runs.find(settings.home, "one")
    assert found is not None
    assert (found.state, len(server.gone_on)) == ("crashed", 1)


def test_a_firing_that_prefect_forgot_before_it_began_is_handed_over_again(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    """None ever began, though the note speaks of another firing by then, or of a clock."""
    hourly(settings, tiny)
    look = partial(recover, settings, server, said.append, no_worker=False)
    look()
    assert server.launched == []  # nothing has fired yet
    tick(settings, server, said.append, MIDNIGHT.replace(hour=1))  # type: ignore[arg-type]
    server.runs = [run_of(server.launched[0], "SCHEDULED", "hourly")]
    look()
    assert server.launched == ["hourly-20260101-010000"]
    server.runs = []
    look()
    assert server.launched == 2 * ["hourly-20260101-010000"]
    assert "Prefect no longer knows of it" in said[-1]
    path = settings.home / "schedules" / "hourly.json"
    kept = json.loads(path.read_text())
    for changed in (
        {"handled": "2026-01-01T02:00:00+00:00", "note": "the firing of 02:00 was skipped"},
        {"note": "the clock was wrong"},
    ):
        path.write_text(json.dumps({**kept, **changed}))
        look()
    assert server.launched == 4 * ["hourly-20260101-010000"]


def test_a_run_that_a_clock_far_ahead_put_off_begins_now(
    settings: Settings, server: Server, said: list[str]
) -> None:
    """Its schedule waited for it: `begins again` was said, and nothing fired for years."""
    ours, theirs, due = (run_of(name, "SCHEDULED", "hourly") for name in ("ours", "theirs", "due"))
    ours.next_scheduled_start_time = datetime.now(UTC) + timedelta(days=3650)
    theirs.next_scheduled_start_time = datetime.now(UTC) + timedelta(days=7)
    due.next_scheduled_start_time = datetime.now(UTC)
    ours.parameters["run_id"], due.parameters["run_id"] = "ours", "due"  # a form asks for none
    server.runs = [ours, theirs, due]
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert server.begun_now == ["ours"]
    assert said == ["run ours: a clock that was wrong put it off; it begins now"]


def test_a_firing_that_was_cancelled_before_it_began_stays_so(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    """Prefect forgets it in time, or a person deletes it there."""
    hourly(settings, tiny)
    tick(settings, server, said.append, MIDNIGHT.replace(hour=1))  # type: ignore[arg-type]
    [name] = server.launched
    server.ended = {name: run_of(name, "CANCELLED", "hourly")}
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    server.ended = {}
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    found = runs.find(settings.home, name)
    assert found is not None
    assert (found.state, server.launched) == ("cancelled", [name])


def test_a_firing_is_skipped_without_forgetting_what_another_clock_launched(
    settings: Settings, tiny: Tiny
) -> None:
    hourly(settings, tiny)
    before = schedules.find(settings, "hourly")
    schedules.mark(settings, before, MIDNIGHT.replace(hour=1), "run", launched=True)
    schedules.mark(settings, before, MIDNIGHT.replace(hour=2), "skipped")
    after = schedules.find(settings, "hourly")
    assert (after.launched[11:13], after.handled[11:13]) == ("01", "02")


def test_a_schedule_of_an_earlier_version_does_not_say_what_was_launched(
    settings: Settings, tiny: Tiny, server: Server, said: list[str]
) -> None:
    """Its last firing may have been skipped, so that none is handed over again."""
    hourly(settings, tiny)
    tick(settings, server, said.append, MIDNIGHT.replace(hour=1))  # type: ignore[arg-type]
    path = settings.home / "schedules" / "hourly.json"
    older = json.loads(path.read_text())
    del older["launched"]
    path.write_text(json.dumps(older))
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert len(server.launched) == 1
    tick(settings, server, said.append, MIDNIGHT.replace(hour=2))  # type: ignore[arg-type]
    assert server.launched[1:] == ["hourly-20260101-020000"]
    recover(settings, server, said.append, no_worker=False)  # type: ignore[arg-type]
    assert server.launched[2:] == ["hourly-20260101-020000"]
