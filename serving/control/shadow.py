"""Lets the shadow and the canary answer copies of the traffic; these answers go to nobody.

Copies wait in a short queue. A separate process (`serving.control.copies`) answers them, a bounded
number a second. Under load copies are dropped, and no request waits for one. The champion and each
tried version (the shadow, the canary) answer each copy, in random order. The results are summed in
the ledger, over all workers and restarts (`serving.trial.guards`). If a version's native code ends
that process, or hangs in it, the version has failed on that copy. The process is then restarted,
after a longer pause each time, and the worker goes on.
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
from serving.control.ordinary import ordinary
from serving.control.routing import Served, Tried
from serving.counts import Counts
from serving.limits import Limits
from serving.registry.ledger import Ledger
from serving.registry.records import Canary, Version
from serving.registry.rules import DeploymentRules
from serving.trial.compared import Compared, Posted
from serving.trial.guards import Guarded, guarded
from serving.trial.rules import GuardTerms
from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

#: Command of the process that answers; the folder of artefacts is appended.
COMMAND = (sys.executable, "-m", "serving.control.copies")
#: Seconds that it may take to start or to load a version, and to answer.
LOADS, ANSWERS = 60.0, 10.0
#: Seconds without a copy after which it ends; the next copy starts it again.
IDLE = 60.0
#: Most copies that are kept, where posters have a cap, while the ledger cannot be written.
KEPT = 10_000


@dataclass(frozen=True)
class Taken:
    """A copy of a request in the queue."""

    served: Served
    observation: list[float]
    episode: str | None
    step: int
    poster: str | None = None


@dataclass(frozen=True)
class TriedView:
    """The results of a shadow or canary for people: the counts of copies and each guard."""

    kind: Literal["shadow", "canary"]
    version: int
    seen: Compared
    guards: tuple[Guarded, ...]
    #: What follows for a shadow, where the deployment rules say it; else "".
    then: str = ""


def views(ledger: Ledger, policy: str) -> list[TriedView]:
    """The views of a policy's shadow and canary; empty without any. Raises `LedgerError`."""
    shadow, canary = ledger.shadow(policy), ledger.canary(policy)
    rules = ledger.deployment_rules(policy)
    found = []
    kinds: tuple[tuple[Literal["shadow", "canary"], Version | Canary | None], ...] = (
        ("shadow", shadow),
        ("canary", canary),
    )
    for kind, one in kinds:
        if one is not None:
            _, seen = ledger.compared(policy, one.version)
            guards = guarded(seen, rules.guards)
            then = _then(rules) if kind == "shadow" else ""
            found.append(TriedView(kind, one.version, seen, guards, then))
    return found


def _then(rules: DeploymentRules) -> str:
    """What follows once a shadow has answered enough copies."""
    if rules.shadow_then == "trial":
        return f"After {rules.shadow_copies} copies its trial begins by itself."
    if rules.shadow_first:
        return f"After {rules.shadow_copies} copies a person may begin its trial."
    return ""


class Shadow:
    """Gets answers to copies of one policy's requests; safe to call from any thread."""

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
        self._terms, self._share = GuardTerms(), 0.0  # until the first look
        self._seen: dict[int, list[Posted]] = {}
        self._failed: dict[int, float] = {}  # versions that did not load, and until when
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"shadow-{policy}", daemon=True)
        self._started = False
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(Said).decode

    def offer(
        self,
        served: Served,
        observation: list[float],
        episode: str | None = None,
        step: int = 0,
        poster: str | None = None,
    ) -> None:
        """Queue a copy of a request if a version is tried and there is room; never waits.

        `poster` is the owner of the token that it came with.
        """
        if not served.tried or served.champion is None:
            return
        if not self._started:
            self._start()
        try:
            self._queue.put_nowait(Taken(served, observation, episode, step, poster))
        except queue.Full:
            self._counts.add("shadow_dropped")

    def _start(self) -> None:
        with self._lock:  # requests are answered in several threads
            if not self._started:
                self._started = True
                self._thread.start()

    def look(self) -> None:
        """Add the counts since the last look to the ledger. Blocks; raises `LedgerError`."""
        rules = self._ledger.deployment_rules(self._policy)
        self._terms, self._share = rules.guards, rules.poster_share
        with self._lock:
            seen, self._seen = self._seen, {}
        try:
            while seen:
                epoch, copies = next(iter(seen.items()))
                self._ledger.add_compared(self._policy, epoch, copies, self._share)
                del seen[epoch]
        except LedgerError:
            with self._lock:
                for epoch, copies in seen.items():
                    self._seen[epoch] = copies + self._seen.get(epoch, [])
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

    def _keep(self, epoch: int, seen: Compared, poster: str | None = None) -> None:
        """Keep the counts of a copy until the next look; where no poster has a cap, their sum."""
        with self._lock:
            kept = self._seen.setdefault(epoch, [])
            if kept and self._share == 1:
                kept[-1] = Posted(kept[-1].seen + seen)
            elif len(kept) < KEPT:
                kept.append(Posted(seen, poster))
            else:
                self._counts.add("shadow_dropped")

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
            except Exception:  # a bug; go on comparing
                logger.exception("a copy of a request was not answered")
                self._helper.fail()
            if self._over.wait(self._pause):
                break
        self._helper.stop()

    def _answer(self, taken: Taken) -> None:
        """Get the answers to one copy, and keep the counts."""
        champion, now = taken.served.champion, time.monotonic()
        assert champion is not None  # without a champion no copy is offered
        if not ordinary(taken.observation, champion.face):
            self._counts.add("shadow_outside")
            self._counts.add("shadow_dropped")
            return
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
        last = Said("loads")  # it is starting
        while last.does in ("loads", "asks"):
            line = self._helper.receive(ANSWERS if last.does == "asks" else LOADS)
            if line is None:
                self._died(last, champion.version, tried, taken.poster)
                return
            last = self._decode(line)
        if last.does == "failed":
            self._not_loaded(last.version, last.why)
            return
        self._helper.well()
        for one, seen in zip(tried, last.seen, strict=True):
            if seen is not None:
                self._keep(one.epoch, seen, taken.poster)

    def _died(self, last: Said, champion: int, tried: list[Tried], poster: str | None) -> None:
        """Count a process that ended or hung as a failure of the version it was running."""
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
                self._keep(one.epoch, Compared(copies=1, champion_errors=1), poster)
            elif last.version == one.version:
                self._keep(one.epoch, Compared(copies=1, errors=1), poster)

    def _not_loaded(self, version: int, why: str) -> None:
        """Do not try a version for a while; requests are not affected."""
        self._failed[version] = time.monotonic() + self._retry
        self._counts.add("load_failures")
        logger.error("version %s did not load to answer copies: %s", version, why)
