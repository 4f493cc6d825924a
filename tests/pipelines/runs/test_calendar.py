"""When schedules fire: zones, changes of summer time, clocks that jump, and missed firings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.runs.calendar import check, due, following, seed_of
from srghn.errors import ConfigError


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def walked(cron: str, zone: str, start: str, hours: int) -> list[str]:
    """Every firing that is run, when the clock is looked at every ten minutes."""
    handled, fired = at(start), []
    for step in range(hours * 6):
        now = at(start) + timedelta(minutes=10 * step)
        found = due(cron, zone, handled, now)
        if found is not None:
            handled = found.firing
            fired.append(f"{found.firing:%d %H:%M}")
    return fired


@pytest.mark.parametrize(
    ("cron", "zone", "start", "fired"),
    [
        ("30 2 * * *", "UTC", "2026-03-28 12:00", ["29 02:30", "30 02:30"]),
        # 2:30 does not exist on the 29th: it fires right after the gap, at 3:00 (1:00 UTC)
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["29 01:00", "30 00:30"]),
        # 2:30 exists twice on the 25th: it fires once
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["25 00:30", "26 01:30"]),
        ("30 1 * * *", "America/New_York", "2026-11-01 00:00", ["01 05:30", "02 06:30"]),
        ("0 0 * * *", "Asia/Kathmandu", "2026-01-01 00:00", ["01 18:15", "02 18:15"]),
    ],
)
def test_each_time_fires_once_whatever_the_zone_does(
    cron: str, zone: str, start: str, fired: list[str]
) -> None:
    assert walked(cron, zone, start, 48) == fired


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Europe/Berlin", "2026-10-25 01:00"),
        ("America/New_York", "2026-11-01 06:00"),
        ("Australia/Lord_Howe", "2026-04-04 15:00"),  # by half an hour
        ("Europe/Berlin", "2026-03-29 01:00"),
        ("America/New_York", "2026-03-08 07:00"),
        ("Australia/Lord_Howe", "2026-10-03 15:30"),
    ],
)
@pytest.mark.parametrize("minutes", [15, 30])
def test_what_repeats_goes_on_through_a_change_of_summer_time(
    zone: str, change: str, minutes: int
) -> None:
    cron, start = f"*/{minutes} * * * *", at(change) - timedelta(hours=2)
    handled, fired = start, []
    for minute in range(4 * 60 + 1):
        now = start + timedelta(minutes=minute)
        found = due(cron, zone, handled, now)
        if found is not None:
            assert (found.firing, found.missed) == (now, 0)
            assert following(cron, zone, handled) == now
            handled = now
            fired.append(minute)
    assert fired == list(range(minutes, 4 * 60 + 1, minutes))


def test_missed_firings_are_made_up_for_by_one() -> None:
    found = due("0 * * * *", "UTC", at("2026-01-01 00:30"), at("2026-01-04 05:10"))
    assert found is not None
    assert found.firing == at("2026-01-04 05:00")
    assert found.missed == 76
    assert due("0 * * * *", "UTC", found.firing, at("2026-01-04 05:10")) is None


def test_a_clock_set_back_fires_nothing_twice() -> None:
    handled = at("2026-01-01 12:00")
    for minute in range(59):
        assert due("0 * * * *", "UTC", handled, at(f"2026-01-01 11:{minute:02}")) is None
    assert due("0 * * * *", "UTC", handled, at("2026-01-01 12:30")) is None
    assert due("0 * * * *", "UTC", handled, at("2026-01-01 13:00")) is not None


@given(
    st.integers(0, 400_000), st.integers(1, 5_000), st.sampled_from(["* * * * *", "*/7 2-4 * * 1"])
)
def test_what_is_due_lies_between_what_was_handled_and_now(
    minute: int, later: int, cron: str
) -> None:
    handled = at("2026-01-01 00:00") + timedelta(minutes=minute)
    now = handled + timedelta(minutes=later)
    found = due(cron, "Europe/London", handled, now)
    if found is None:
        assert following(cron, "Europe/London", handled) > now
    else:
        assert handled < found.firing <= now
        assert following(cron, "Europe/London", found.firing) > now


def test_the_seed_is_of_the_firing_and_of_nothing_else() -> None:
    moment = at("2026-01-01 03:00")
    seeds = {seed_of(root, moment + timedelta(days=day)) for root in (0, 1) for day in range(500)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)
    berlin = moment.astimezone().astimezone(UTC)
    assert seed_of(7, moment) == seed_of(7, berlin)


@pytest.mark.parametrize("cron", ["every day", "61 * * * *", "* * * * * *", "0 0 31 2 *", ""])
def test_what_is_no_cron_line_is_refused(cron: str) -> None:
    with pytest.raises(ConfigError, match="five fields"):
        check(cron, "UTC")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", ""])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ConfigError, match="unknown time zone"):
        check("0 3 * * *", zone)
