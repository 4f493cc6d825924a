"""When a schedule fires: pure functions of a cron line, a time zone and two moments.

Changes of summer time are treated as Debian's cron does: a time that is skipped fires right after
the gap, one that occurs twice fires once. Where minute or hour begins with `*`, the line repeats:
it fires nothing for what is skipped, and in both of two equal times.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from srghn import seeding
from srghn.errors import ConfigError

#: Missed firings are counted up to here.
MOST_COUNTED = 1000


@dataclass(frozen=True)
class Due:
    """A firing to be run now, and how many before it were missed (`MOST_COUNTED` at most)."""

    firing: datetime
    missed: int


def check(cron: str, zone: str) -> None:
    """Raise `ConfigError` for what is no cron line of five fields, or no time zone."""
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"unknown time zone {zone!r}; expected an IANA name such as Europe/Berlin or UTC"
        ) from error
    try:
        if len(cron.split()) != 5:
            raise CronSimError("it does not have five fields")
        next(CronSim(cron, datetime(2026, 1, 1, tzinfo=place)))
    except (CronSimError, StopIteration) as error:
        raise ConfigError(
            f"{cron!r} is not a cron schedule ({str(error).lower() or 'it never fires'}); expected "
            "five fields, minute hour day month weekday, such as '0 3 * * 2' (Tuesdays at "
            "3:00)"
        ) from error


def following(cron: str, zone: str, moment: datetime) -> datetime:
    """The first firing after a moment, in UTC."""
    return next(CronSim(cron, moment.astimezone(ZoneInfo(zone)))).astimezone(UTC)


def due(cron: str, zone: str, handled: datetime, now: datetime) -> Due | None:
    """The latest firing after `handled` and not after `now`; None where there is none.

    However many were missed (the machine was off, the clock was set forward), the latest stands for
    all. A clock that is set back fires nothing until it has passed `handled` again.
    """
    # Added in UTC: in a zone a sum loses which of two equal times it is.
    end = now.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    latest = next(CronSim(cron, end.astimezone(ZoneInfo(zone)), reverse=True)).astimezone(UTC)
    if latest <= handled or latest > now:
        return None
    between = CronSim(cron, handled.astimezone(ZoneInfo(zone)))
    earlier = takewhile(lambda firing: firing < latest, between)
    return Due(latest, sum(1 for _ in islice(earlier, MOST_COUNTED)))


def seed_of(root: int, firing: datetime) -> int:
    """The evolution seed of a firing, in [0, 2**31): no two firings make the same candidate."""
    moment = firing.astimezone(UTC).isoformat(timespec="seconds")
    return seeding.seed(root, "firing", moment) & 0x7FFFFFFF
