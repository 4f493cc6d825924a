"""A copy of the traffic that versions not served yet answer, beside the champion; nobody gets it.

Copies wait in a short queue and are answered in a thread of its own, a bounded number a second:
under load they are dropped, and no request waits for one. Each copy is answered by the champion and
by each version that is tried, the shadow and the canary, in random order; what that shows is added
up in the ledger, so that workers' and restarts' counts are one (`serving.trial.guards`).
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from serving.actions import Actions
from serving.control.routing import Served, Tried
from serving.counts import Counts
from serving.limits import Limits
from serving.predictor import InvalidAction, PredictionError, Predictor
from serving.registry.ledger import Ledger
from serving.registry.records import Canary, Version
from serving.trial.compared import Compared
from serving.trial.guards import Guarded, guarded
from serving.trial.rules import GuardTerms
from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

#: Episodes whose memory is kept for networks that keep a state.
EPISODES = 10_000


@dataclass(frozen=True)
class Copy:
    """One observation, the episode it is of (None: of none) and that episode's step."""

    served: Served
    observation: list[float]
    episode: str | None
    step: int


@dataclass(frozen=True)
class TriedView:
    """A shadow or canary as people see it: what copies showed, and how near each guard is."""

    kind: Literal["shadow", "canary"]
    version: int
    seen: Compared
    guards: tuple[Guarded, ...]


def views(ledger: Ledger, policy: str) -> list[TriedView]:
    """The shadow and the canary of a policy, where there are any."""
    shadow, canary = ledger.shadow(policy), ledger.canary(policy)
    terms = ledger.deployment_rules(policy).guards
    found = []
    kinds: tuple[tuple[Literal["shadow", "canary"], Version | Canary | None], ...] = (
        ("shadow", shadow),
        ("canary", canary),
    )
    for kind, one in kinds:
        if one is not None:
            _, seen = ledger.compared(policy, one.version)
            found.append(TriedView(kind, one.version, seen, guarded(seen, terms)))
    return found


@dataclass(frozen=True)
class Answer:
    """What one version gave to a copy. `failed`: "error", "invalid", or "" with an action."""

    action: Any
    failed: str
    seconds: float


class Shadow:
    """Answers copies of one policy's requests, from any thread."""

    def __init__(
        self,
        ledger: Ledger,
        counts: Counts,
        limits: Limits,
        policy: str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._ledger, self._counts, self._policy, self._clock = ledger, counts, policy, clock
        self._queue: queue.Queue[Copy | None] = queue.Queue(limits.shadow_queue)
        self._pause = 1 / limits.shadow_rate
        self._terms = GuardTerms()
        self._seen: dict[int, Compared] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._memories: OrderedDict[tuple[int, str], tuple[int, bytes]] = OrderedDict()
        self._random = random.Random()
        self._thread = threading.Thread(target=self._run, name=f"shadow-{policy}", daemon=True)
        self._started = False

    def offer(
        self, served: Served, observation: list[float], episode: str | None = None, step: int = 0
    ) -> None:
        """Take a copy of a request if there is somebody to answer it and room; never waits."""
        if not served.tried or served.champion is None:
            return
        if not self._started:
            self._start()
        try:
            self._queue.put_nowait(Copy(served, observation, episode, step))
        except queue.Full:
            self._counts.add("shadow_dropped")

    def _start(self) -> None:
        with self._lock:  # requests are answered in several threads
            if not self._started:
                self._started = True
                self._thread.start()

    def look(self) -> None:
        """Add to the ledger what was counted since the last look. Blocks; raises `LedgerError`."""
        self._terms = self._ledger.deployment_rules(self._policy).guards
        with self._lock:
            seen, self._seen = self._seen, {}
        try:
            while seen:
                epoch, counted = next(iter(seen.items()))
                self._ledger.add_compared(self._policy, epoch, counted)
                del seen[epoch]
        except LedgerError:
            self._keep(seen)
            raise

    def close(self) -> None:
        self._over.set()
        if self._started:
            while not self._queue.empty():
                self._queue.get_nowait()
            self._queue.put(None)
            self._thread.join()

    def _keep(self, seen: dict[int, Compared]) -> None:
        with self._lock:
            for epoch, counted in seen.items():
                self._seen[epoch] = self._seen.get(epoch, Compared()) + counted

    def _run(self) -> None:
        while (copy := self._queue.get()) is not None:
            for tried in copy.served.tried:
                try:
                    counted = self._compare(copy, tried)
                except Exception:  # a bug, and no reason to stop comparing
                    logger.exception("a copy of a request was not answered")
                    continue
                if counted is not None:
                    self._keep({tried.epoch: counted})
            if self._over.wait(self._pause):
                return

    def _compare(self, copy: Copy, tried: Tried) -> Compared | None:
        """Both answers to one copy; None where a network's memory was lost with a copy."""
        champion = copy.served.champion
        assert champion is not None  # or it was not offered
        both = [tried.predictor, champion]
        memories = [self._memory(copy, predictor) for predictor in both]
        if None in memories:
            return None
        order = [0, 1] if self._random.random() < 0.5 else [1, 0]
        answers: dict[int, Answer] = {}
        for at in order:
            answers[at] = self._ask(copy, both[at], memories[at] or b"")
        return compared(answers[0], answers[1], tried.predictor.actions, self._terms)

    def _memory(self, copy: Copy, predictor: Predictor) -> bytes | None:
        if not predictor.state_size or copy.episode is None or copy.step == 0:
            return b""
        step, memory = self._memories.get((predictor.version, copy.episode), (-1, b""))
        return memory if step == copy.step else None

    def _ask(self, copy: Copy, predictor: Predictor, memory: bytes) -> Answer:
        begun = self._clock()
        try:
            action, after = predictor.step_one(copy.observation, memory)
            failed = ""
        except InvalidAction:
            action, after, failed = None, b"", "invalid"
        except PredictionError:
            action, after, failed = None, b"", "error"
        seconds = self._clock() - begun
        if after and copy.episode is not None:
            self._memories[predictor.version, copy.episode] = copy.step + 1, after
            if len(self._memories) > EPISODES:
                self._memories.popitem(last=False)
        return Answer(action, failed, seconds)


def compared(
    tried: Answer, champion: Answer, actions: Actions | None, terms: GuardTerms
) -> Compared:
    """What one copy shows."""
    both = not tried.failed and not champion.failed
    return Compared(
        copies=1,
        differed=int(both and _differ(tried.action, champion.action, actions)),
        errors=int(tried.failed == "error" != champion.failed),
        champion_errors=int(champion.failed == "error" != tried.failed),
        invalid=int(tried.failed == "invalid" != champion.failed),
        champion_invalid=int(champion.failed == "invalid" != tried.failed),
        timed=int(both),
        slower=int(both and terms.slow(tried.seconds, champion.seconds)),
        seconds=tried.seconds if both else 0.0,
        champion_seconds=champion.seconds if both else 0.0,
    )


def _differ(first: Any, second: Any, actions: Actions | None) -> bool:
    return bool(first != second) if actions is None else actions.differ(first, second)
