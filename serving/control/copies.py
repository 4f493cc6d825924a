"""The process that answers copies of requests: `python -m serving.control.copies ARTEFACTS`.

A worker of the server writes one copy per line to its stdin and reads the results from its stdout.
The process gets versions and digests and loads them from the store itself, so neither code nor
models are sent. Before each load and each answer it names the version. If native code then crashes
the process, the worker knows which version was running. The process ends with its worker.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from serving.actions import Actions
from serving.control.loading import ready
from serving.predictor import InvalidAction, PredictionError, Predictor
from serving.registry.artefacts import ArtefactStore
from serving.trial.compared import Compared
from serving.trial.rules import GuardTerms
from srghn.errors import ArtefactError
from srghn.parents import die_with_parent

#: Most episodes whose state is kept, for networks with memory; the latest ones.
EPISODES = 10_000
#: Versions that stay loaded: the champion, a canary, a shadow, and a former one.
LOADED = 4
#: Lower priority than the server's requests.
NICE = 5


class Of(msgspec.Struct, frozen=True):
    """A version by its number and its candidate's digest."""

    version: int
    digest: str


class Copy(msgspec.Struct, frozen=True):
    """One observation, its episode (None: outside an episode) and the step in it.

    `latency` and `slack_ms` define a slow answer (`GuardTerms`).
    """

    champion: Of
    tried: tuple[Of, ...]
    observation: list[float]
    episode: str | None
    step: int
    latency: float
    slack_ms: float


class Said(msgspec.Struct, frozen=True):
    """The process's next action and its version, or the results of a copy.

    `seen`: the counts for each tried version, in their order; None if a network's state was lost
    with an earlier copy.
    """

    does: Literal["loads", "asks", "failed", "seen"]
    version: int = 0
    why: str = ""
    seen: tuple[Compared | None, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One version's answer to a copy. `failed` is "error", "invalid", or "" with an action."""

    action: Any
    failed: str
    seconds: float


class Answers:
    """Lets the champion and each tried version answer copies, in random order."""

    def __init__(
        self,
        load: Callable[[Of], Predictor],
        tell: Callable[[Said], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._load, self._tell, self._clock = load, tell, clock
        self._loaded: OrderedDict[Of, Predictor] = OrderedDict()
        self._memories: OrderedDict[tuple[int, str], tuple[int, bytes]] = OrderedDict()
        self._random = random.Random()

    def answer(self, copy: Copy) -> None:
        """Answer a copy and tell the results for each tried version, or a failed load."""
        of = copy.champion
        try:
            champion = self._find(of)
            tried = [self._find(of := one) for one in copy.tried]
        except (ArtefactError, PredictionError) as error:
            self._tell(Said("failed", of.version, str(error)))
            return
        seen = tuple(self._compare(copy, champion, one) for one in tried)
        self._tell(Said("seen", seen=seen))

    def _find(self, of: Of) -> Predictor:
        found = self._loaded.get(of)
        if found is None:
            self._tell(Said("loads", of.version))
            found = self._loaded[of] = self._load(of)
        self._loaded.move_to_end(of)
        while len(self._loaded) > LOADED:
            self._loaded.popitem(last=False)
        return found

    def _compare(self, copy: Copy, champion: Predictor, tried: Predictor) -> Compared | None:
        both = [tried, champion]
        memories = [self._memory(copy, predictor) for predictor in both]
        if None in memories:
            return None
        order = [0, 1] if self._random.random() < 0.5 else [1, 0]
        answers: dict[int, Answer] = {}
        for at in order:
            self._tell(Said("asks", both[at].version))
            answers[at] = self._ask(copy, both[at], memories[at] or b"")
        terms = GuardTerms(latency=copy.latency, slack_ms=copy.slack_ms)
        return compared(answers[0], answers[1], tried.actions, terms)

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
            key = predictor.version, copy.episode
            self._memories[key] = copy.step + 1, after
            self._memories.move_to_end(key)
            if len(self._memories) > EPISODES:
                self._memories.popitem(last=False)
        return Answer(action, failed, seconds)


def compared(
    tried: Answer, champion: Answer, actions: Actions | None, terms: GuardTerms
) -> Compared:
    """The counts that one copy adds."""
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


def main(folder: Path) -> None:
    """Answer copies until stdin ends or the worker is gone."""
    die_with_parent()
    os.nice(NICE)
    said = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # other output to stdout, also by native code, must not look like an answer
    store, encode = ArtefactStore(folder), msgspec.json.Encoder().encode
    answers = Answers(
        lambda of: ready(store.load(of.digest), of.version),
        lambda one: _write(said.fileno(), encode(one) + b"\n"),
    )
    decode = msgspec.json.Decoder(Copy).decode
    with contextlib.suppress(BrokenPipeError):  # the worker was killed
        for line in sys.stdin.buffer:
            answers.answer(decode(line))


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
