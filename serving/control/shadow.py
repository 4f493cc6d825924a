"""A copy of the traffic that versions not served yet answer, beside the champion; nobody gets it.

Copies wait in a short queue and are answered by a process of its own (`serving.control.copies`), a
bounded number a second: under load they are dropped, and no request waits for one. Each copy is
answered by the champion and by each version that is tried, the shadow and the canary, in random
order; what that shows is added up in the ledger, so that workers' and restarts' counts are one
(`serving.trial.guards`). A version whose native code ends that process, or hangs in it, has failed
on that copy; the process begins again, later each time, and the worker goes on.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from serving.control.copies import Copy, Of, Said
from serving.control.helper import Helper
from serving.control.routing import Served, Tried
from serving.counts import Counts
from serving.limits import Limits
from serving.registry.ledger import Ledger
from serving.registry.records import Canary, Version
from serving.trial.compared import Compared
from serving.trial.guards import Guarded, guarded
from serving.trial.rules import GuardTerms
from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

#: The process that answers; the folder of artefacts is added.
COMMAND = (sys.executable, "-m", "serving.control.copies")
#: Seconds that it may take to begin or to load a version, and to answer.
LOADS, ANSWERS = 60.0, 10.0
#: Seconds without a copy after which it ends; it begins again with the next one.
IDLE = 60.0


@dataclass(frozen=True)
class Taken:
    """A copy of a request that waits."""

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


class Shadow:
    """Has copies of one policy's requests answered, from any thread."""

    def __init__(
        self,
        ledger: Ledger,
        artefacts: Path,
        counts: Counts,
        limits: Limits,
        policy: str,
        command: Sequence[str] | None = None,
    ) -> None:
        self._ledger, self._counts, self._policy = ledger, counts, policy
        self._queue: queue.Queue[Taken | None] = queue.Queue(limits.shadow_queue)
        self._pause, self._retry = 1 / limits.shadow_rate, limits.retry_seconds
        self._helper = Helper([*(command or COMMAND), str(artefacts)])
        self._terms = GuardTerms()
        self._seen: dict[int, Compared] = {}
        self._failed: dict[int, float] = {}  # versions that did not load, and until when
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"shadow-{policy}", daemon=True)
        self._started = False
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(Said).decode

    def offer(
        self, served: Served, observation: list[float], episode: str | None = None, step: int = 0
    ) -> None:
        """Take a copy of a request if there is somebody to answer it and room; never waits."""
        if not served.tried or served.champion is None:
            return
        if not self._started:
            self._start()
        try:
            self._queue.put_nowait(Taken(served, observation, episode, step))
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
            while self._thread.is_alive():  # it may be about to begin the process
                self._helper.kill()
                self._thread.join(0.1)

    def _keep(self, seen: dict[int, Compared]) -> None:
        with self._lock:
            for epoch, counted in seen.items():
                self._seen[epoch] = self._seen.get(epoch, Compared()) + counted

    def _run(self) -> None:
        while True:
            try:
                taken = self._queue.get(timeout=IDLE)
            except queue.Empty:
                self._helper.stop()
                continue
            if taken is None or self._over.is_set():
                break
            try:
                self._answer(taken)
            except Exception:  # a bug, and no reason to stop comparing
                logger.exception("a copy of a request was not answered")
                self._helper.fail()
            if self._over.wait(self._pause):
                break
        self._helper.stop()

    def _answer(self, taken: Taken) -> None:
        """Have one copy answered, and keep what it shows."""
        champion, now = taken.served.champion, time.monotonic()
        assert champion is not None  # or it was not offered
        tried = [one for one in taken.served.tried if self._failed.get(one.version, 0) <= now]
        copy = Copy(
            Of(champion.version, champion.digest),
            tuple(Of(one.version, one.digest) for one in tried),
            taken.observation,
            taken.episode,
            taken.step,
            self._terms.latency,
            self._terms.slack_ms,
        )
        if not tried or not self._helper.begin():
            self._counts.add("shadow_dropped")
            return
        self._helper.send(self._encode(copy))
        last = Said("loads")  # it begins, or was about to
        while last.does in ("loads", "asks"):
            line = self._helper.receive(ANSWERS if last.does == "asks" else LOADS)
            if line is None:
                self._died(last, champion.version, tried)
                return
            last = self._decode(line)
        if last.does == "failed":
            self._not_loaded(last.version, last.why)
            return
        self._helper.well()
        for one, seen in zip(tried, last.seen, strict=True):
            if seen is not None:
                self._keep({one.epoch: seen})

    def _died(self, last: Said, champion: int, tried: list[Tried]) -> None:
        """It ended, or hangs: a failure of the version that it said it was about to ask."""
        if self._over.is_set():
            return
        pause = self._helper.pause
        self._helper.fail()
        at = {"loads": "was loaded", "asks": "answered a copy of a request"}[last.does]
        logger.error(
            "the process that answers copies ended or hung while version %s %s; it begins again "
            "in %g s", last.version or "of the champion", at, pause,
        )  # fmt: skip
        if last.does == "loads":
            if last.version:
                self._not_loaded(last.version, "the process ended or hung")
            return
        for one in tried:
            if last.version == champion:
                self._keep({one.epoch: Compared(copies=1, champion_errors=1)})
            elif last.version == one.version:
                self._keep({one.epoch: Compared(copies=1, errors=1)})

    def _not_loaded(self, version: int, why: str) -> None:
        """Leave a version alone for a while; the champion answers requests, whatever is here."""
        self._failed[version] = time.monotonic() + self._retry
        self._counts.add("load_failures")
        logger.error("version %s did not load to answer copies: %s", version, why)
