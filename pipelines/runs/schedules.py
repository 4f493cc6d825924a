"""Schedules: one file each in the home folder, which says whole what will run and when.

Presets and overrides are resolved when a schedule is added, so that a preset that changes or moves
later changes nothing. Files can be read, paused and removed while no server is up.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipelines.runs import calendar
from pipelines.services.processes import IMPORTS
from serving.settings import Settings
from srghn.errors import ConfigError
from srghn.files import atomic_write, one_at_a_time

T = TypeVar("T")
Overlap = Literal["queue", "skip"]
#: Prefect's deployment of single runs; no schedule may have its name.
ANY = "run"
#: A firing that was handled so long before its time was handled by a clock that was wrong.
AHEAD = timedelta(days=1)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Schedule:
    """What runs when. `params` are whole; the ancestor that `start` names is found at each firing.

    overlap  what a firing does if the previous run is still running: wait for its end, or skip
    imports  folder that users' own environments and networks are imported from
    handled  the last firing that was run, skipped or missed; at first, when it was added
    launched the last firing that was handed to the workers; empty in files of earlier versions
    ahead_to what `handled` was before a clock seemed to have been ahead; counts once it is past
    note     what became of it
    policy     what its candidates are for
    successor  whether they may see other observations than the policy's champion
    """

    name: str
    cron: str
    timezone: str
    params: Mapping[str, Any]
    preset: str
    start: str = "champion"
    approve: str = "manual"
    overlap: str = "queue"
    imports: str = ""
    added: str = ""
    handled: str = ""
    note: str = ""
    paused: bool = False
    reason: str = ""
    policy: str = "policy"
    successor: bool = False
    ahead_to: str = ""
    launched: str = ""

    def due(self, now: datetime) -> calendar.Due | None:
        if self.paused:
            return None
        handled = datetime.fromisoformat(self.handled)
        if self.ahead_to and (before := datetime.fromisoformat(self.ahead_to)) <= now:
            handled = max(handled, before)
        return calendar.due(self.cron, self.timezone, handled, now)

    def following(self, now: datetime) -> datetime:
        """The next firing, which nothing has handled yet."""
        since = max(now, datetime.fromisoformat(self.handled))
        return calendar.following(self.cron, self.timezone, since)

    def ahead(self, now: datetime) -> bool:
        """Whether a clock that was wrong handled what lies ahead: nothing would fire until then."""
        return datetime.fromisoformat(self.handled) - now > AHEAD

    def late(self, now: datetime) -> bool:
        """Whether a firing has been due for more than a day: the run before does not end, say."""
        return self.due(now - AHEAD) is not None

    def run_id(self, firing: datetime) -> str:
        """The id of the run of one firing: the same firing never runs twice."""
        return f"{self.name}-{firing.astimezone(UTC):%Y%m%d-%H%M%S}"


def add(settings: Settings, schedule: Schedule, now: datetime | None = None) -> Schedule:
    """Write a schedule, or replace the one of that name; raises `ConfigError`.

    Its first firing is the first one after now.
    """
    if not _NAME.fullmatch(schedule.name):
        raise ConfigError(
            f"{schedule.name!r} is not a schedule's name: letters, digits, '.', '_' and '-', "
            "the first a letter or a digit, 100 at most"
        )
    if schedule.name == ANY:
        raise ConfigError(f"{ANY!r} is the name of single runs, so no schedule's; choose another")
    calendar.check(schedule.cron, schedule.timezone)
    moment = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    imports = schedule.imports or os.environ.get(IMPORTS, os.getcwd())
    whole = replace(schedule, added=moment, handled=moment, imports=imports)
    with _locked(settings):
        save(settings, whole)
    return whole


def save(settings: Settings, schedule: Schedule) -> None:
    atomic_write(
        _folder(settings) / f"{schedule.name}.json", json.dumps(asdict(schedule), indent=1)
    )


def listed(settings: Settings) -> list[Schedule]:
    """All schedules by name; raises `ConfigError` naming a file that cannot be read."""
    return [_read(path) for path in _files(settings)]


def names(settings: Settings) -> list[str]:
    """Names of all schedules, of those that cannot be read as well."""
    return [path.stem for path in _files(settings)]


def for_each(settings: Settings, do: Callable[[Schedule], object]) -> None:
    """Do it `apart` for each schedule, though others cannot be read."""

    def read(path: Path) -> None:
        if path.is_file():  # else it was removed meanwhile
            do(_read(path))

    apart(_files(settings), read)


def apart(found: Iterable[T], do: Callable[[T], object]) -> None:
    """Do it for each, though it fails for others; raises the first failure at the end."""
    failures: list[Exception] = []
    for each in found:
        try:
            do(each)
        except Exception as error:  # noqa: BLE001  raised below
            failures.append(error)
    if failures:
        raise failures[0]


def find(settings: Settings, name: str) -> Schedule:
    """One schedule; raises `ConfigError` naming those there are."""
    path = _folder(settings) / f"{name}.json"
    if _NAME.fullmatch(name) and path.is_file():
        return _read(path)
    known = ", ".join(names(settings)) or "none"
    raise ConfigError("; ".join([f"no schedule {name!r}; there are: {known}", *old_note(settings)]))


def old_note(settings: Settings) -> list[str]:
    """A sentence about the schedules of version 0.2 that only `prefect.db` still holds, if any.

    Their deployments have a schedule in Prefect; since 0.3 deployments have none.
    """
    database = settings.home / "prefect" / "prefect.db"
    if not database.is_file():
        return []
    query = (
        "SELECT name FROM deployment WHERE tags LIKE '%\"srghn\"%' AND id IN "
        "(SELECT deployment_id FROM deployment_schedule) ORDER BY name"
    )
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as opened:
            names = [str(row[0]) for row in opened.execute(query)]
    except sqlite3.Error:
        return []  # another version of Prefect, or one that is being written
    if not names:
        return []
    return [f"of version 0.2: {', '.join(names)}; srghn up or srghn worker takes them over"]


def pause(settings: Settings, name: str, reason: str) -> Schedule:
    """Fire no more until it is resumed; the reason is shown meanwhile."""
    return _edit(settings, name, lambda found: replace(found, paused=True, reason=reason))


def resume(settings: Settings, name: str, now: datetime | None = None) -> Schedule:
    """Fire again, from the next firing on: those of the pause are not made up for.

    That holds for one that a wrong clock had handled far ahead, too, whether paused or not.
    """
    clock = now or datetime.now(UTC)
    moment = clock.isoformat(timespec="seconds")

    def resumed(found: Schedule) -> Schedule:
        if found.ahead(clock):
            return replace(found, paused=False, reason="", handled=moment)
        if not found.paused:
            return found
        return replace(found, paused=False, reason="", handled=max(found.handled, moment))

    return _edit(settings, name, resumed)


def _edit(settings: Settings, name: str, change: Callable[[Schedule], Schedule]) -> Schedule:
    find(settings, name)  # a name that is mistyped makes no folder for the lock
    with _locked(settings):
        changed = change(find(settings, name))
        save(settings, changed)
    return changed


def mark(
    settings: Settings, schedule: Schedule, firing: datetime, note: str, *, launched: bool = False
) -> None:
    """Note what became of a firing; nothing where the schedule was removed meanwhile."""
    moment = firing.astimezone(UTC).isoformat(timespec="seconds")
    last = {"launched": moment} if launched else {}
    _change(settings, schedule, handled=moment, note=note, **last)


def put_back(settings: Settings, schedule: Schedule, now: datetime, note: str) -> None:
    """Fire again from now on, though a clock that was ahead, or this one is behind, handled more.

    Once the clock is past what was handled, nothing up to there fires: it may have been skipped.
    """
    moment = now.astimezone(UTC).isoformat(timespec="seconds")
    _change(settings, schedule, handled=moment, note=note, ahead_to=schedule.handled)


def note(settings: Settings, schedule: Schedule, text: str) -> None:
    """Note what a firing waits for; nothing where the schedule was removed meanwhile."""
    _change(settings, schedule, note=text)


def _change(settings: Settings, schedule: Schedule, **fields: str) -> None:
    """Change these fields of the file as it is now, unless another schedule took its place."""
    path = _folder(settings) / f"{schedule.name}.json"
    with _locked(settings):
        if path.is_file() and (found := _read(path)).added == schedule.added:
            save(settings, replace(found, **fields))  # type: ignore[arg-type]


def remove(settings: Settings, name: str) -> None:
    find(settings, name)
    with _locked(settings):
        (_folder(settings) / f"{name}.json").unlink(missing_ok=True)


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """One writer at a time: the clock notes firings while people change schedules."""
    _folder(settings).mkdir(parents=True, exist_ok=True)
    with one_at_a_time(_folder(settings) / ".lock"):
        yield


def _files(settings: Settings) -> list[Path]:
    return sorted(_folder(settings).glob("*.json"))


def _folder(settings: Settings) -> Path:
    return settings.home / "schedules"


def _read(path: Path) -> Schedule:
    try:
        schedule = Schedule(**json.loads(path.read_text(encoding="utf-8")))
        calendar.check(schedule.cron, schedule.timezone)
        datetime.fromisoformat(schedule.launched or schedule.handled)
        datetime.fromisoformat(schedule.handled)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a schedule: {error}; remove the file and add it again"
        ) from error
    return schedule
