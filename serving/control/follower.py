"""Follows the ledger: loads the versions to serve, swaps one reference, and judges the trial."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from serving.control.controller import Controller
from serving.control.loading import load, vouched
from serving.control.routing import Served, Tried
from serving.control.window import Window
from serving.limits import Limits
from serving.metrics import Metrics
from serving.predictor import PredictionError, Predictor
from serving.registry.artefacts import ArtefactStore
from serving.registry.faults import UNWRITABLE, LedgerGone
from serving.registry.interfaces import difference
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Canary, Champion, Event
from serving.registry.states import State
from serving.trial.assignment import exact_weight, trial_key
from srghn.errors import ArtefactError, LedgerError

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Without a new commit the ledger is read this many times less often, because only time passes.
IDLE_POLLS = 4
#: The watch and the samples are as rare: nobody waits for what they write, and on a busy server
#: they cost as much as the rest of a poll.
SURVEY_POLLS = 4
#: Most episodes that one poll forgets; with 1,000 a worker that is flooded fell behind.
FORGOTTEN = 10_000
#: Seconds that a look may take beyond `blind_seconds`, before it counts as one that hangs.
SLACK = 5.0
NO_CHAMPION = (
    "there is no champion yet: approve a version that passed the gate "
    '(srghn approve VERSION --reason "...")'
)


class Follower:
    """Keeps `served` equal to the ledger's state of one policy.

    Only this class assigns `served`; a reader takes the reference once per request.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: ArtefactStore,
        metrics: Metrics,
        limits: Limits,
        unblind: bool = False,
        policy: str = POLICY,
    ) -> None:
        self.served = Served()
        self.secret = ledger.secret(policy)
        self._policy, self._unblind = policy, unblind
        self.looks: list[Callable[[], None]] = []
        self.surveys: list[Callable[[], None]] = []
        self.controller = Controller(ledger, policy)
        self.window = Window(ledger, policy)
        self._ledger, self._store = ledger, store
        self._metrics, self._limits = metrics, limits
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"follower-{policy}")
        self._failed: dict[int, tuple[float, str]] = {}  # version -> when, why
        self._retired: dict[int, float] = {}  # draining version -> until
        self._seen = self._pruned = time.monotonic()
        self._surveyed = self._seen
        self._loading: float | None = None  # since when a version is being loaded
        self._moment: int | None = None
        self._last: Event | None = None  # the last one that was seen

    async def run(self) -> None:
        """Look at the ledger until cancelled, in a separate thread; errors do not end it."""
        loop = asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(self._executor, self.look)
            await asyncio.sleep(self._limits.poll_seconds)

    @property
    def problem(self) -> str | None:
        """Why the policy is not ready, or None. A look that hangs cannot say so itself."""
        idle = (IDLE_POLLS + 1) * self._limits.poll_seconds
        unread = (self._loading or time.monotonic()) - self._seen
        if self.served.problem is None and unread > self._limits.blind_seconds + idle + SLACK:
            return f"the ledger was not read for {unread:.0f} s: it does not answer"
        return self.served.problem

    def close(self) -> None:
        """Wait for a poll that is under way: it uses the database, which is closed next."""
        self._executor.shutdown()

    def look(self) -> None:
        """`poll` if there may be something to see: a commit, copies to count, time that passed."""
        if self._due():
            passed = time.monotonic() - self._surveyed
            self.poll(survey=passed >= SURVEY_POLLS * self._limits.poll_seconds)

    def _due(self) -> bool:
        idle = time.monotonic() - self._seen
        if idle > IDLE_POLLS * self._limits.poll_seconds or self.served.problem:
            return True
        try:
            self._ledger.database().require()
            before, self._moment = self._moment, self._ledger.database().moment()
        except Exception:  # noqa: BLE001 (poll meets it, too, and says it)
            return True
        return self._moment is None or self._moment != before or bool(self.served.tried)

    def poll(self, survey: bool = True) -> None:
        """Look at the ledger once. Blocks, so call it in a worker thread."""
        with self._lock:
            try:
                self._ledger.database().require()
                self._require_history()
                self._follow()
                if self._beside(lambda: self.controller.judge(self.served)) or self._beside(
                    self.window.judge
                ):
                    self._follow()
                self._count()
                for look in [self._prune, *self.looks]:
                    self._beside(look)
                self._seen = time.monotonic()  # all that must happen did, whatever a survey meets
                if survey:
                    self._surveyed = self._seen
                    for look in self.surveys:
                        self._beside(look)
            except LedgerGone as error:
                logger.error("%s", error)
                self._metrics.counts.add("ledger_errors")
                self.served = replace(self.served, problem=str(error))  # nothing is acknowledged
            except LedgerError as error:
                logger.error("cannot follow the ledger: %s", error)
                self._blind(f"cannot read the ledger: {error}")
            except Exception as error:
                logger.exception("cannot follow the ledger")  # a bug; go on serving
                self._blind(f"cannot follow the ledger: {error!r}")

    def _beside(self, work: Callable[[], T]) -> T | None:
        """Do work without which the champion can still be served; a failure is said and counted.

        Another error than these leaves the poll: with it not even the reading can be trusted.
        """
        try:
            return work()
        except (*UNWRITABLE, ArtefactError) as error:
            logger.error("%sserving goes on without a part of the work: %s", self._of, error)
            artefact = isinstance(error, ArtefactError)
            self._metrics.counts.add("load_failures" if artefact else "ledger_errors")
            return None

    def _blind(self, problem: str) -> None:
        """Keep serving the loaded versions; after `blind_seconds` the server is not ready."""
        self._metrics.counts.add("ledger_errors")
        if time.monotonic() - self._seen > self._limits.blind_seconds:
            self.served = replace(self.served, problem=problem)

    def hold(self, version: int) -> Predictor | None:
        """A retired champion that an episode is pinned to, loaded if necessary; else None."""
        with self._lock:
            found = self.served.find(version)
            if found is not None or self._ledger.version(version).state is not State.RETIRED:
                return found
            loaded = self._load(version)
            if loaded is not None:
                self._retired[version] = time.monotonic() + self._limits.episode_seconds
                draining = {**self.served.draining, version: loaded}
                self.served = replace(self.served, draining=draining)
            return loaded

    def _require_history(self) -> None:
        """Raise `LedgerGone` if the history has lost what was seen of it, here or by the witness.

        An older copy of the file, or a replica that is behind, may have taken its place: what was
        withdrawn since would be served again, and the next version of a number that was undone
        would get the outcomes of the one before. A worker that begins later asks the witness.
        """
        last = self._last or self._ledger.witnessed()
        if last is None or last.seq == 0:
            return
        found = self._ledger.events(since=last.seq - 1, limit=1)
        if not found or found[0].hash != last.hash:
            said = f"event {last.seq}, which was seen, is gone or another: it was wound back"
            self._ledger.database().lose(said)

    def _follow(self) -> None:
        self._beside(self._ledger.expire)  # what is overdue can be served
        champion, canary = self._ledger.served(self._policy)
        before = self.served
        first, problem = self._champion(champion)
        if first is not None and before.champion is not None and first is not before.champion:
            until = time.monotonic() + self._limits.episode_seconds
            self._retired[before.champion.version] = until
        behind = champion is None or first is None or first.version != champion.version
        trial = None if canary is None or behind else self._find(canary.version)
        arms = self._trial(canary, trial) or ({} if behind else self._held())
        if before.held is not None and arms.get("held") is not before.held:
            self._retired[before.held.version] = time.monotonic() + self._limits.episode_seconds
        generation = before.generation if behind or champion is None else champion.generation
        draining = self._draining(first, trial, arms.get("held"))
        tried = _alike(first, self._tried(canary, trial))
        arms = {"deadline": self._limits.episode_seconds, **arms}
        self.served = Served(
            first, generation, tried=tried, draining=draining, problem=problem, **arms
        )
        self._metrics.ledger.champion, self._metrics.ledger.canary = champion, canary
        self._metrics.counts.generation(generation)
        self._say(before, canary)

    def _trial(self, canary: Canary | None, predictor: Predictor | None) -> dict[str, Any]:
        """The fields of `Served` for a trial.

        A paused trial takes no new episode. Nor does one whose weight is 0 or 1: its arms are not
        drawn at random, so episodes would be no evidence.
        """
        if canary is None or predictor is None:
            return {}
        drawn = canary.status != "paused" and 0 < exact_weight(canary.weight) < 1
        return {
            "canary": predictor,
            "weight": canary.weight if drawn else 0.0,
            "epoch": canary.epoch,
            "key": trial_key(self.secret, canary.policy, canary.epoch),
            "deadline": canary.rules.deadline,
            "blind": not self._unblind,
        }

    def _held(self) -> dict[str, Any]:
        """The fields of `Served` for the window of a fresh champion."""
        window = self._ledger.holdback(self._policy)
        held = None
        if window is not None and time.time() < window.until:
            held = self._find(window.predecessor)
        if window is None or held is None:
            return {}
        return {
            "held": held,
            "weight": window.share if 0 < exact_weight(window.share) < 1 else 0.0,
            "epoch": window.epoch,
            "key": trial_key(self.secret, self._policy, window.epoch),
            "deadline": window.rules.deadline,
            "blind": not self._unblind,
        }

    def _tried(self, canary: Canary | None, trial: Predictor | None) -> tuple[Tried, ...]:
        """The versions that answer copies of requests: the canary and the shadow.

        This process does not run the shadow, because native code could end it.
        `serving.control.shadow` has a separate process.
        """
        found = []
        if canary is not None and trial is not None:
            found.append(Tried(canary.epoch, trial.version, trial.digest, trial.face))
        shadow = self._ledger.shadow(self._policy)
        if shadow is not None:
            epoch, _ = self._ledger.compared(self._policy, shadow.version)
            known = [one for one in self.served.tried if one.epoch == epoch]
            found += known or self._vouched(epoch, shadow.version)
        return tuple(found)

    def _vouched(self, epoch: int, version: int) -> list[Tried]:
        """The shadow, if the history vouches for it; a failure counts as a failed load."""

        def look(version: int) -> Tried:
            found, candidate = vouched(self._ledger, self._store, version)
            face = candidate.manifest.get("interface", {})
            return Tried(epoch, version, found.digest, face)

        found = self._attempt(version, look)
        return [] if found is None else [found]

    def _champion(self, wanted: Champion | None) -> tuple[Predictor | None, str | None]:
        """The champion to serve, and the problem with it, if any."""
        if wanted is None:
            return None, NO_CHAMPION
        found = self._find(wanted.version)
        if found is not None:
            return found, None
        old = self.served.champion
        why = self._failed[wanted.version][1]
        if old is not None and self._ledger.version(old.version).state is State.REVOKED:
            old = None
        keeps = f"version {old.version} is still served" if old else "nothing is served"
        return old, f"champion version {wanted.version} did not load ({why}); {keeps}"

    def _find(self, version: int) -> Predictor | None:
        return self.served.find(version) or self._load(version)

    def _load(self, version: int) -> Predictor | None:
        """Load and verify a version; after a failure it is tried again after `retry_seconds`."""
        return self._attempt(version, lambda version: load(self._ledger, self._store, version))

    def _attempt(self, version: int, work: Callable[[int], T]) -> T | None:
        failed = self._failed.get(version)
        if failed is not None and time.monotonic() - failed[0] < self._limits.retry_seconds:
            return None
        self._loading = time.monotonic()
        try:
            done = work(version)
        except (ArtefactError, LedgerError, PredictionError) as error:
            self._metrics.counts.add("load_failures")
            self._failed[version] = (time.monotonic(), str(error))
            logger.error("version %s did not load: %s", version, error)
            return None
        finally:  # the time that the store takes is no silence of the ledger
            self._seen += time.monotonic() - self._loading
            self._loading = None
        self._failed.pop(version, None)
        return done

    def _draining(self, *served: Predictor | None) -> dict[int, Predictor]:
        """Retired champions whose episodes may still run: neither too old nor withdrawn."""
        now, kept = time.monotonic(), {}
        current = {predictor.version for predictor in served if predictor is not None}
        for version, until in list(self._retired.items()):
            predictor = self.served.find(version)
            retired = self._ledger.version(version).state is State.RETIRED
            if predictor is None or version in current or now > until or not retired:
                del self._retired[version]
            else:
                kept[version] = predictor
        return kept

    def _count(self) -> None:
        view = self._metrics.ledger
        found = self._ledger.events(since=view.seq)
        events = [event for event in found if event.policy == self._policy]
        view.add(events, [event.moment for event in events])
        if found:
            self._last, view.seq = found[-1], found[-1].seq
        judged = [event for event in events if event.from_state == State.EVALUATING]
        if judged and judged[-1].evidence_sha256:
            view.add_checks(self._ledger.evidence(judged[-1].evidence_sha256))

    def _prune(self) -> None:
        begun, limits = time.monotonic(), self._limits
        if begun - self._pruned > limits.prune_seconds:
            before, self._pruned = self._pruned, begun  # if it fails, too: it is as rare then
            found = self._ledger.prune_starts(
                self._policy, limits.pin_seconds, limits.starts, FORGOTTEN
            )
            if found == FORGOTTEN:
                self._pruned = before  # the next poll goes on

    @property
    def _of(self) -> str:
        """The beginning of a log line; it names any policy but the default."""
        return "" if self._policy == POLICY else f"policy {self._policy}: "

    def _say(self, before: Served, canary: Canary | None) -> None:
        now = self.served
        if now.champion is not before.champion or now.generation != before.generation:
            version = now.champion.version if now.champion else None
            logger.info("%sserving version %s, generation %s", self._of, version, now.generation)
        if now.canary is not before.canary:
            share = f"version {canary.version} on {100 * now.weight:g}%" if canary else "none"
            logger.info("%scanary: %s", self._of, share)
        if now.problem and now.problem != before.problem:
            # Named even if it is the default one: with another ready policy the server is ready.
            logger.warning("policy %s: not ready: %s", self._policy, now.problem)


def _alike(champion: Predictor | None, tried: tuple[Tried, ...]) -> tuple[Tried, ...]:
    """The versions with the champion's interface, which can answer copies of its traffic."""
    face = {} if champion is None else champion.face
    return tuple(one for one in tried if difference(face, one.face) is None)
