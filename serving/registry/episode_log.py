"""The server's writes while episodes run: starts, outcomes, and the states computed from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from serving.registry import comparisons, episodes, rows, schema
from serving.registry.database import Database
from serving.registry.records import Outcome, Running, Start, StartRow
from serving.registry.schema import POLICY
from serving.trial.compared import Compared, Posted

#: Most episodes that one transaction forgets: starts and outcomes wait for it.
TOGETHER = 1000


class EpisodeLog:
    """Starts and outcomes in their order. They are not steps: they change no version's state."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def start_episodes(self, starts: Sequence[Start]) -> list[int]:
        """Commit a group of starts in one transaction; returns their numbers, in their order."""
        with self._database.write() as connection:
            return episodes.start(connection, starts)

    def find_episode(self, episode: str, policy: str = POLICY) -> StartRow | None:
        with self._database.read() as connection:
            return episodes.find_start(connection, policy, episode)

    def record_outcome(
        self,
        policy: str,
        episode: str,
        ret: float,
        length: int,
        terminated: bool,
        poster: str | None = None,
    ) -> Outcome:
        """Store how an episode ended, once. Version and arm are those of its start.

        Raises `UnknownEpisode`, and `TransitionRefused` if another outcome is stored already.
        """
        said = (ret, length, terminated)
        with self._database.write() as connection:
            return episodes.record_outcome(connection, policy, episode, said, poster, self._clock())

    def outcomes(
        self,
        version: int | None = None,
        since: int = 0,
        *,
        policy: str | None = None,
        limit: int | None = None,
    ) -> list[Outcome]:
        """Outcomes with number above `since`, in order of arrival."""
        with self._database.read() as connection:
            return episodes.outcomes(connection, policy, version, since, limit)

    def started(
        self, policy: str, version: int, limit: int, *, after: int = 0, since: float = 0.0
    ) -> list[StartRow]:
        """A version's first `limit` episodes after start `after` and `since` (Unix seconds)."""
        with self._database.read() as connection:
            return episodes.started(connection, policy, version, limit, after, since)

    def resolved(
        self, policy: str, trial: int, after: int, now: float, limit: int = 10_000
    ) -> list[StartRow]:
        """A trial's starts after number `after`, up to the first that still runs at `now`."""
        with self._database.read() as connection:
            return episodes.resolved(connection, policy, trial, after, now, limit)

    def last_started(self, policy: str, trial: int) -> float | None:
        """When a trial's latest episode began, in Unix seconds; None while there is none."""
        table = schema.starts
        query = select(table.c.started_at).where(table.c.policy == policy, table.c.trial == trial)
        with self._database.read() as connection:
            return connection.execute(query.order_by(table.c.n.desc()).limit(1)).scalar()

    def trial_state(self, policy: str = POLICY, trial: int | None = None) -> Running | None:
        """The stored state of a trial; of the current one if none is named."""
        with self._database.read() as connection:
            running = rows.find_canary(connection, policy) if trial is None else None
            epoch = running.epoch if running else trial
            if epoch is None:
                return None
            return episodes.find_running(connection, schema.trial_state, policy, epoch)

    def advance_trial(
        self, policy: str, trial: int, from_n: int, to_n: int, state: Mapping[str, Any]
    ) -> bool:
        """Update a trial's state from start `from_n` to `to_n`; False if another worker did."""
        with self._database.write() as connection:
            return episodes.advance(
                connection, schema.trial_state, policy, trial, from_n, to_n, state
            )

    def add_compared(
        self, policy: str, epoch: int, seen: Compared | Sequence[Posted], share: float = 1.0
    ) -> None:
        """Add counts from copies of requests to the shadow or trial of event `epoch`.

        Of copies with their posters none gives more than `share` of what decides a guard.
        """
        copies = [Posted(seen)] if isinstance(seen, Compared) else seen
        with self._database.write() as connection:
            comparisons.add(connection, policy, epoch, copies, share)

    def compared(self, policy: str, version: int) -> tuple[int, Compared]:
        """The event that last made a version shadow or canary, and the counts since then.

        The event is 0 if the version was never either.
        """
        with self._database.read() as connection:
            epoch = comparisons.epoch(connection, version) or 0
            return epoch, comparisons.find(connection, policy, epoch)

    def watch_state(self, policy: str = POLICY) -> Running | None:
        """The stored state of a policy's watch; `n` is the last start that is counted."""
        with self._database.read() as connection:
            return episodes.find_running(connection, schema.watch, policy, 0)

    def advance_watch(self, policy: str, from_n: int, to_n: int, state: Mapping[str, Any]) -> bool:
        """Update the watch's state from start `from_n` to `to_n`; False if another worker did."""
        with self._database.write() as connection:
            return episodes.advance(connection, schema.watch, policy, 0, from_n, to_n, state)

    def prune_starts(self, policy: str, older_than: float, newest: int, limit: int) -> int:
        """Delete a policy's first `limit` episodes outside trials that never ended and are old.

        They were started over `older_than` seconds ago, or are past their deadline and not among
        the `newest` of the policy. Returns their number.
        """
        now = self._clock()
        with self._database.read() as connection:  # which takes long, and locks nobody out
            found = episodes.stale(connection, policy, now - older_than, now, newest, limit)
        for first in range(0, len(found), TOGETHER):
            with self._database.write() as connection:
                episodes.forget(connection, found[first : first + TOGETHER])
        return len(found)
