"""Episodes: they begin in the ledger, continue by their token, and stay on one version."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, overload

from serving.control.follower import Follower
from serving.control.routing import Served
from serving.control.writer import GroupWriter, Late
from serving.limits import Limits
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.registry import groups
from serving.registry.faults import LedgerLocked
from serving.registry.groups import Spoilt
from serving.registry.ledger import Ledger
from serving.registry.records import Outcome, Start, StartRow
from serving.schemas import BadRequest
from serving.trial.assignment import exact_weight
from serving.trial.tokens import BadToken, Episode, Sealer
from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

#: Seconds until the ledger is told again that an episode is no evidence, if it could not be.
AGAIN = 1.0
#: Most episodes that are told at once, so that no transaction is long.
TOLD = 256
#: Tokens of this worker's last answers whose episodes it remembers, so that it need not open them.
REMEMBERED = 4096


class NotReady(BadRequest):
    """The service has no champion to answer with (503); the error says why."""

    def __init__(self, problem: str | None) -> None:
        super().__init__(503, "service", "a champion to be served", "none", hint=problem or "")


@dataclass(frozen=True)
class Ended:
    """How an episode ended, as posted with its token; implements `groups.Ending`."""

    episode: Episode
    return_: float
    terminated: bool
    poster: str | None

    @property
    def policy(self) -> str:
        return self.episode.policy

    @property
    def name(self) -> str:
        return self.episode.name

    @property
    def length(self) -> int:
        return self.episode.steps

    @property
    def evidence(self) -> bool:
        return self.episode.evidence


class Episodes:
    """Chooses the version of an episode when it begins; its token keeps the version until it ends.

    The start of an episode is in the ledger before its first answer is sent. No later action waits
    for the ledger. If its version is withdrawn or it runs longer than `episode_seconds`, an
    episode is moved to another version and is no evidence. If its start could not be recorded
    within `start_seconds`, it goes on but is no evidence either. A request that names an episode
    but lacks its token is answered by the episode's version, if this worker or the ledger knows it.
    After such a request, or a move, the ledger is told that the episode is no evidence: an older
    token of it would not say so.
    """

    def __init__(
        self, ledger: Ledger, follower: Follower, metrics: Metrics, limits: Limits, policy: str
    ) -> None:
        self._database, self._follower = ledger.database(), follower
        self._counts, self._limits, self._policy = metrics.counts, limits, policy
        self._sealer: Sealer | None = None
        self._known: OrderedDict[str, Episode] = OrderedDict()
        self._sealed: dict[str, Episode] = {}
        self._spoilt: OrderedDict[str, None] = OrderedDict()
        self._untold: dict[str, None] = {}  # those that the ledger does not know yet, in order
        self._telling = False
        # One writer for all: a second one would wait for the first one's commits.
        self._writer: GroupWriter[Start | Spoilt | Ended, StartRow | Outcome | None] = GroupWriter(
            self._write, "episodes"
        )

    def close(self) -> None:
        self._writer.close()
        while self._untold:
            spoilt = self._some_untold()
            try:
                self._write([spoilt])
            except LedgerError as error:
                logger.error("%d episodes may count that should not: %s", len(self._untold), error)
                return
            self._forget(spoilt)

    def knows(self, name: str) -> bool:
        """Whether this worker remembers the episode, so that `begin` writes no start."""
        return name in self._known

    async def begin(
        self, served: Served, name: str, joins: bool
    ) -> tuple[Served, Predictor, Episode]:
        """The version for a request that names an episode without a token, usually its first.

        The caller has checked the request's observation: a start that is written stays. `joins`:
        both arms can answer it; see `Served.able`. Raises `NotReady`, or `BadRequest` (409) after
        the episode's outcome.
        """
        known = self._known.get(name)
        if known is not None:
            self._known.move_to_end(name)
            self._spoil(known)
            return await self.go_on(known)
        episode, predictor = self._assign(served, name, joins)
        try:
            row = await self._put(_start(served, episode), self._limits.start_seconds)
        except LedgerError as error:
            self._counts.add("ledger_errors")
            self._counts.add("unpinned_episodes")
            logger.error("episode %s is not recorded: %s", name, error)
            self._remember(episode)
            self._spoil(episode)  # it may have begun before, at another worker
            return served, predictor, episode
        return await self._settle(served, predictor, episode, row)

    async def go_on(self, episode: Episode) -> tuple[Served, Predictor, Episode]:
        """The version for the next step of an episode; raises `NotReady`."""
        served = self._follower.served
        if time.time() - episode.began <= self._limits.episode_seconds:
            predictor = served.find(episode.version)
            if predictor is None:
                predictor = await asyncio.to_thread(self._hold, episode.version)
                served = self._follower.served
            if predictor is not None:
                return served, predictor, episode
        if served.champion is None:
            raise NotReady(served.problem)
        self._spoil(episode)
        version = served.champion.version
        moved = episode.but(version=version, moved=True, began=time.time(), memory=b"")
        return served, served.champion, moved

    async def end(self, ended: Ended) -> Outcome:
        """Record how an episode ended, once. Raises `UnknownEpisode` and `TransitionRefused`.

        It waits for the ledger for up to `outcome_seconds`: no step of a control loop waits for it.
        """
        until = time.monotonic() + self._limits.outcome_seconds
        while True:
            if ended.name in self._untold:
                ended = replace(ended, episode=ended.episode.but(moved=True))
            try:
                stored = await self._put(ended, until - time.monotonic())
                break
            except Late:
                raise Late(self._limits.outcome_seconds) from None  # not only the last try's wait
            except LedgerLocked:
                if time.monotonic() >= until:
                    raise
        self._known.pop(ended.episode.name, None)
        return stored

    def open(self, token: str) -> Episode:
        """The episode of a token; raises `BadRequest` (422)."""
        sealed = self._sealed.pop(token, None)
        if sealed is not None:
            return sealed
        try:
            episode = self._seals().open(token)
        except BadToken as error:
            raise BadRequest(
                422, "token", "the token of this episode's last answer", f"another: {error}"
            ) from None
        if episode.policy != self._policy:
            got = f"one of policy {episode.policy!r}"
            raise BadRequest(422, "token", f"a token of policy {self._policy!r}", got)
        return episode

    def seal(self, episode: Episode, version: int, memory: bytes = b"") -> str:
        """The token after one more action. If `version` is another than before, the episode moved.

        `memory` is the network's state after the action.
        """
        room, seals = self._follower.served.memory_bytes, self._seals()
        if version != episode.version:
            self._spoil(episode)
        if episode.sealed and version == episode.version and not room and episode.trial is None:
            after = episode.stepped()
            token = seals.step(after)
        else:
            after = episode.but(
                version=version,
                moved=episode.moved or version != episode.version,
                steps=episode.steps + 1,
                memory=memory or episode.memory,
            )
            token = seals.seal(after, room)
            if room:  # states may be large, and whoever calls begins as many episodes as they like
                return token
            after = after.kept(token)
        if len(self._sealed) >= REMEMBERED:
            self._sealed.clear()
        self._sealed[token] = after
        return token

    def _seals(self) -> Sealer:
        if self._sealer is None:
            self._sealer = Sealer(self._follower.secret)
        return self._sealer

    def _assign(self, served: Served, name: str, joins: bool) -> tuple[Episode, Predictor]:
        arm, predictor = served.assign(name, joins)
        if predictor is None:
            raise NotReady(served.problem)
        now = time.time()
        trial = served.epoch if joins and served.weight else None
        generation = served.generation
        return Episode(
            name, self._policy, predictor.version, arm, None, trial, generation, now
        ), predictor

    async def _settle(
        self, served: Served, predictor: Predictor, episode: Episode, row: StartRow
    ) -> tuple[Served, Predictor, Episode]:
        """Use the ledger's record of the start: the episode may have begun at another worker."""
        if row.arrived is not None:
            raise BadRequest(
                409, "episode_id", "a running episode", "one whose outcome was posted",
                hint="use a new id for the next episode",
            )  # fmt: skip
        fresh = row.started_at == episode.began and row.version == episode.version
        found = episode.but(
            version=row.version,
            arm=row.arm,
            start=row.n,
            trial=row.trial,
            generation=row.generation,
            began=row.started_at,
            loose=not fresh,
            moved=row.moved,
        )
        self._remember(found)
        if fresh:
            self._spoilt.pop(found.name, None)  # of an earlier episode of that name
            return served, predictor, found
        self._spoil(found)
        return await self.go_on(found)

    def _remember(self, episode: Episode) -> None:
        """Remember the version for later requests without a token; those make the episode loose."""
        self._known[episode.name] = episode.but(loose=True)
        if len(self._known) > self._limits.pins:
            self._known.popitem(last=False)

    def _spoil(self, episode: Episode) -> None:
        """Have the ledger told, once, that an episode is no evidence; no step waits for it."""
        if episode.name in self._spoilt:
            return
        self._spoilt[episode.name] = None
        if len(self._spoilt) > self._limits.pins:
            self._spoilt.popitem(last=False)
        self._untold[episode.name] = None
        if len(self._untold) > self._limits.pins:
            lost = next(iter(self._untold))
            del self._untold[lost]
            self._counts.add("ledger_errors")
            logger.error("episode %s may count that should not: too many wait to be told", lost)
        if not self._telling:
            self._tell()

    def _some_untold(self) -> Spoilt:
        return Spoilt(self._policy, tuple(islice(self._untold, TOLD)))

    def _forget(self, spoilt: Spoilt) -> None:
        for name in spoilt.names:
            self._untold.pop(name, None)

    def _tell(self) -> None:
        self._telling, spoilt = True, self._some_untold()
        self._writer.post(spoilt).add_done_callback(partial(self._told, spoilt))

    def _told(self, spoilt: Spoilt, written: asyncio.Future[Any]) -> None:
        failed = written.cancelled() or written.exception() is not None
        if failed:
            self._counts.add("ledger_errors")
        else:
            self._forget(spoilt)
        self._telling = bool(self._untold)
        if self._telling:
            written.get_loop().call_later(AGAIN if failed else 0, self._tell)

    def _hold(self, version: int) -> Predictor | None:
        try:
            return self._follower.hold(version)
        except LedgerError as error:
            logger.error("version %s cannot be held: %s", version, error)
            return None

    @overload
    async def _put(self, item: Start, seconds: float) -> StartRow: ...
    @overload
    async def _put(self, item: Ended, seconds: float) -> Outcome: ...
    async def _put(self, item: Any, seconds: float) -> Any:
        return await self._writer.put(item, seconds)

    def _write(
        self, items: Sequence[Start | Spoilt | Ended]
    ) -> Sequence[StartRow | Outcome | Exception | None]:
        with self._database.write() as connection:
            return groups.write(connection, items, time.time())


def _start(served: Served, episode: Episode) -> Start:
    return Start(
        episode.name,
        episode.version,
        episode.arm,
        exact_weight(served.weight) if episode.trial is not None else 0.0,
        episode.trial,
        episode.generation,
        episode.began,
        episode.began + served.deadline,
        episode.policy,
    )
