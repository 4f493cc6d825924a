"""Schedules as files: whole, checked, and read, paused and removed while no server is up."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.runs import schedules
from pipelines.runs.prepare import prepared
from pipelines.runs.schedules import Schedule
from serving.settings import Settings
from srghn.config import RunParams
from srghn.errors import ConfigError
from srghn.files import lock
from tests.conftest import Srghn
from tests.pipelines.conftest import Tiny, home_at

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def nightly(settings: Settings, tiny: Tiny) -> Schedule:
    params = tiny().model_dump(mode="json")
    nightly = Schedule("nightly", "0 3 * * *", "UTC", params, "tiny.yaml")
    return schedules.add(settings, nightly, NOON)


def asked(schedule: Schedule) -> RunParams:
    return RunParams.model_validate(schedule.params)


def test_it_is_read_as_it_was_added(settings: Settings, nightly: Schedule, tiny: Tiny) -> None:
    assert schedules.listed(settings) == [nightly]
    assert asked(schedules.find(settings, "nightly")) == tiny()
    assert nightly.due(datetime(2026, 1, 2, 2, 59, tzinfo=UTC)) is None
    found = nightly.due(datetime(2026, 1, 2, 3, 0, 5, tzinfo=UTC))
    assert found is not None
    assert nightly.run_id(found.firing) == "nightly-20260102-030000"


def test_a_preset_that_changes_later_changes_nothing(
    srghn_here: Srghn, tiny: Tiny, tmp_path: Path
) -> None:
    """It is given by a relative path, and is gone when the schedule fires."""
    preset = tmp_path / "mine.yaml"
    preset.write_text(tiny().to_yaml())
    done = srghn_here(
        "schedule", "add", "mine", "--cron", "0 3 * * *", "--preset", "mine.yaml",
        "--set", "evolution.generations=3", "--overlap", "skip", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["replaced"] is None
    again = ("schedule", "add", "mine", "--cron", "0 3 * * *", "--preset", "mine.yaml")
    again += ("--set", "evolution.generations=3", "--overlap", "skip")
    said = srghn_here(*again).stdout
    assert "It replaces the one of that name: mine.yaml, 0 3 * * * (UTC)." in said
    preset.unlink()
    found = schedules.find(home_at(tmp_path / ".srghn"), "mine")
    assert asked(found) == tiny(generations=3)
    assert (found.overlap, found.imports) == ("skip", str(tmp_path))
    shown = json.loads(srghn_here("schedule", "show", "mine", "--json").stdout)
    assert shown["params"]["evolution"]["generations"] == 3


def test_no_next_run_is_promised_where_no_worker_lives(
    srghn_here: Srghn, settings: Settings, nightly: Schedule
) -> None:
    place = {"SRGHN_HOME": str(settings.home)}
    listed = json.loads(srghn_here("schedule", "list", "--json", env=place).stdout)
    assert [(each["name"], each["next_run"], each["worker"]) for each in listed] == [
        ("nightly", None, False)
    ]
    assert "No worker is running here" in srghn_here("schedule", "list", env=place).stdout
    assert not (settings.home / "prefect").exists()  # no server was started for it


def test_pausing_needs_no_server_and_keeps_its_reason(
    srghn_here: Srghn, settings: Settings, nightly: Schedule
) -> None:
    place = {"SRGHN_HOME": str(settings.home)}
    done = srghn_here("schedule", "pause", "nightly", "--reason", "the rig is moved", env=place)
    assert done.returncode == 0, done.stderr
    paused = schedules.find(settings, "nightly")
    assert (paused.paused, paused.reason) == (True, "the rig is moved")
    assert paused.due(datetime(2027, 1, 1, tzinfo=UTC)) is None
    listed = json.loads(srghn_here("schedule", "list", "--json", env=place).stdout)
    assert listed[0]["reason"] == "the rig is moved"
    later = datetime(2026, 1, 5, 4, tzinfo=UTC)
    resumed = schedules.resume(settings, "nightly", later)
    assert resumed.due(later) is None  # the firings of the pause are not made up for
    assert resumed.due(datetime(2026, 1, 6, 3, tzinfo=UTC)) is not None
    assert srghn_here("schedule", "remove", "nightly", env=place).returncode == 0
    assert schedules.listed(settings) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "x", "--cron", "every day"), "five fields"),
        (("add", "x", "--cron", "0 3 * * *", "--timezone", "Mars"), "unknown time zone"),
        (("add", "a/b", "--cron", "0 3 * * *"), "not a schedule's name"),
        (("add", "run", "--cron", "0 3 * * *"), "'run' is the name of single runs"),
        (("add", "x", "--cron", "0 3 * * *", "--preset", "nowhere"), "unknown preset"),
        (("pause", "weekly"), "no schedule 'weekly'; there are: nightly"),
        (("remove", "weekly"), "no schedule 'weekly'; there are: nightly"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    srghn_here: Srghn,
    settings: Settings,
    nightly: Schedule,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    done = srghn_here("schedule", *arguments, env={"SRGHN_HOME": str(settings.home)})
    assert done.returncode == 3
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_no_schedule_is_named(settings: Settings, nightly: Schedule) -> None:
    (settings.home / "schedules" / "nightly.json").write_text("{")
    with pytest.raises(ConfigError, match=r"nightly\.json is not a schedule"):
        schedules.listed(settings)


def test_no_two_firings_make_the_same_run(settings: Settings, nightly: Schedule) -> None:
    days = [datetime(2026, 1, day, 3, tzinfo=UTC) for day in range(2, 9)]
    made = [prepared(settings, asked(nightly), "scratch", day) for day in days]
    assert len({params.evolution.seed for params in made}) == len(days)
    assert {replace_seed(params) for params in made} == {replace_seed(asked(nightly))}
    assert made == [prepared(settings, asked(nightly), "scratch", day) for day in days]


def replace_seed(params: object) -> str:
    data = params.model_dump(mode="json")  # type: ignore[attr-defined]
    return json.dumps({**data, "evolution": {**data["evolution"], "seed": 0}})


def test_a_mark_outlives_a_schedule_that_was_removed(settings: Settings, nightly: Schedule) -> None:
    firing = datetime(2026, 1, 2, 3, tzinfo=UTC)
    schedules.mark(settings, nightly, firing, "run")
    assert schedules.find(settings, "nightly") == replace(
        nightly, handled="2026-01-02T03:00:00+00:00", note="run"
    )
    schedules.remove(settings, "nightly")
    schedules.mark(settings, nightly, firing, "run")
    assert schedules.listed(settings) == []


@pytest.mark.parametrize("does", ["pause", "remove", "add"])
def test_what_a_person_does_while_a_firing_is_noted_stays(
    settings: Settings, nightly: Schedule, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    """The clock has read the file, and writes it once the person's command had time to end."""

    def person() -> None:
        if does == "pause":
            schedules.pause(settings, "nightly", "holidays")
        elif does == "remove":
            schedules.remove(settings, "nightly")
        else:
            schedules.add(settings, replace(nightly, preset="another"), NOON)

    save, thread = schedules.save, threading.Thread(target=person)

    def slow(settings: Settings, schedule: Schedule) -> None:
        if threading.current_thread() is not thread:
            thread.start()
            thread.join(0.3)
        save(settings, schedule)

    monkeypatch.setattr(schedules, "save", slow)
    schedules.mark(settings, nightly, datetime(2026, 1, 2, 3, tzinfo=UTC), "run")
    thread.join()
    found = schedules.listed(settings)
    assert [(each.paused, each.preset) for each in found] == {
        "pause": [(True, "tiny.yaml")],
        "remove": [],
        "add": [(False, "another")],
    }[does]


def test_a_firing_of_a_schedule_that_was_replaced_is_not_noted_on_the_new_one(
    settings: Settings, nightly: Schedule
) -> None:
    new = schedules.add(settings, nightly, datetime(2026, 1, 2, 4, tzinfo=UTC))
    schedules.mark(settings, nightly, datetime(2026, 1, 2, 3, tzinfo=UTC), "run")
    assert schedules.listed(settings) == [new]


def test_one_that_a_wrong_clock_handled_far_ahead_is_resumed(
    settings: Settings, nightly: Schedule
) -> None:
    """It was added then, too: the clock of schedules leaves it to a person, who sees it."""
    late, now = datetime(2036, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    wrong = schedules.add(settings, nightly, late)
    assert wrong.following(now) == datetime(2036, 1, 2, 3, tzinfo=UTC)
    schedules.resume(settings, "nightly", now)
    found = schedules.find(settings, "nightly")
    assert found.following(now) == datetime(2026, 1, 2, 3, tzinfo=UTC)
    assert found.due(datetime(2026, 1, 2, 3, tzinfo=UTC)) is not None


def test_a_process_that_was_stopped_while_it_changed_a_schedule_holds_nobody_up(
    settings: Settings, nightly: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock would fire nothing more, and say nothing."""
    monkeypatch.setattr("srghn.files.LOCK_SECONDS", 0.1)
    with (settings.home / "schedules" / ".lock").open("w") as file:
        assert lock(file)
        with pytest.raises(ConfigError, match="it may have been stopped"):
            schedules.pause(settings, "nightly", "the simulator moves")
    assert schedules.pause(settings, "nightly", "the simulator moves").paused
