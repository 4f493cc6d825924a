"""`srghn demo --shift`: the world changes under the champion without notice, and the loop reacts.

Clients run CartPole. Its actions swap meaning, later swap back, and then the pole changes. After
each change the demo does what `srghn up` does unattended: the watch alarms, the diagnosis names the
mode, a former champion is recalled or a run evolves, and gate and trial decide.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np

from pipelines.adapt.beat import beat
from pipelines.adapt.launch import by_hand
from pipelines.demo.picture import draw
from pipelines.demo.traffic import Met, Place, Traffic
from pipelines.progress import console
from pipelines.runs.runner import start_run
from pipelines.runs.workspaces import require_writable
from pipelines.services.processes import free_port
from pipelines.services.up import http_server
from pipelines.versions.release import Release
from serving.control.adapted import ADAPT
from serving.control.watch import DIAGNOSIS, DRIFT
from serving.registry.records import Event, Who
from serving.registry.rules import AdaptTerms
from serving.settings import Settings
from srghn.candidates.play import play_candidate
from srghn.envs import EnvVersion, parse
from srghn.errors import ConfigError, SrghnError

PRESET = "cartpole-switch"
NORMAL, FLIPPED = Place("normal", "normal"), Place("flipped", "flipped")
#: Episodes in a familiar world, before and after each shift.
CALM = 20
#: Most seconds for one shift, and seconds between two looks.
PATIENCE, LOOK = 180.0, 0.25
#: Seconds between two episodes of a client while the machine evolves or judges.
PAUSE = 0.3
#: Factors of the pole's length; the champion fails at one of them.
POLES = (12, 16, 24, 32, 48)


@dataclass(frozen=True)
class Shift:
    """One change of the world, with the numbers of the episodes at which it began and ended.

    It ends when a champion serves the new world. The alarm was raised after `alarm` outcomes of the
    champion. `at` is in Unix seconds.
    """

    world: str
    at: float
    begun: int
    alarm: int
    ended: int
    diagnosis: dict[str, Any]
    recalled: int | None
    evaluations: int
    champion: int


def run_shift(settings: Settings, seed: int) -> dict[str, Any]:
    """Run the story; returns its results. Raises `SrghnError` that names the failed step.

    The home must be new, because the first champion must be the story's own.
    """
    require_writable(settings.home)
    begun = time.monotonic()
    story = _Story(settings, seed)
    story.check_home()
    story.first()
    with http_server(settings.model_copy(update={"unblind": True}), free_port()) as url:
        shifts = story.live(url)
    return story.sum_up(shifts, time.monotonic() - begun)


class _Story:
    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.release = Release(settings)
        self.ledger = self.release.ledger
        self.episodes: list[Met] = []

    def check_home(self) -> None:
        if self.ledger.champion() is not None:
            raise ConfigError(
                f"{self.settings.home} has a champion already; give the story a home of its own: "
                "SRGHN_HOME=shift-home srghn demo --shift"
            )

    def first(self) -> None:
        _say("1", "Evolve and promote the first champion in the pinned world")
        result = start_run(
            self.settings, PRESET, (f"evolution.seed={self.seed}",), "scratch", "auto"
        )
        if result["state"] != "CHAMPION":
            raise SrghnError(f"the first candidate did not pass the gate: {result['summary']}")
        terms = AdaptTerms(act="run", approve="auto", cooldown=0.0)
        rules = self.ledger.deployment_rules().model_copy(update={"adapt": terms})
        why = "the demo is unattended: adapt, and let gate and trial decide"
        self.ledger.set_deployment_rules(rules, who=Who("demo", why))

    def live(self, url: str) -> list[Shift]:
        """Three shifts during the clients' traffic; the adaptation runs in a separate thread."""
        version = self._world()
        over = threading.Event()
        beating = threading.Thread(target=self._beat, args=(over,), name="adaptation")
        with Traffic(url, version, NORMAL, self.seed, f"shift-{uuid4().hex[:8]}") as traffic:
            beating.start()
            try:
                self._calm(traffic)
                _say("2", "The actions swap meaning. The service is not told")
                shifts = [self._adapted(traffic, FLIPPED)]
                _say("3", "They swap back: a former champion was good there")
                shifts.append(self._adapted(traffic, NORMAL))
                pole = self._pole()
                _say(
                    "4", f"The pole changes ({pole.perturbation}): no pinned world has such a pole"
                )
                shifts.append(self._told(traffic, pole))
            finally:
                over.set()
                beating.join()
                self.episodes = list(traffic.episodes)
        return shifts

    def sum_up(self, shifts: list[Shift], seconds: float) -> dict[str, Any]:
        """The results that are printed as JSON, and the picture."""
        picture = self.settings.home / "shift.svg"
        draw(picture, self.episodes, [(s.at, s.world) for s in shifts], self._marks())
        console.print(f"\n  picture: {picture}", markup=False, soft_wrap=True)
        return {
            "shifts": [self._shown(shift) for shift in shifts],
            "served": self._served(),
            "episodes": len(self.episodes),
            "picture": str(picture),
            "seconds": round(seconds, 1),
        }

    # ------------------------------------------------------------------------------- pieces

    def _beat(self, over: threading.Event) -> None:
        """As `srghn up` after an alarm, but runs are worked on in this process."""
        launch, told = by_hand(self.settings), ""
        while not over.wait(LOOK):
            try:
                for line in beat(self.settings, launch):
                    _say("", line)
            except Exception as error:  # noqa: BLE001  as in `srghn up`: shown, and tried again
                if str(error) != told:
                    told = str(error)
                    _say("", f"the adaptation waits: {told}")

    def _calm(self, traffic: Traffic) -> None:
        """Wait for `CALM` more episodes."""
        traffic.pause = 0.0
        until = len(traffic.episodes) + CALM
        self._wait(traffic, lambda: len(traffic.episodes) >= until, "episodes of clients")

    def _adapted(self, traffic: Traffic, place: Place) -> Shift:
        """Move the world; wait until another champion serves it, and `CALM` episodes more."""
        before, seq, begun = self._champion(), self.ledger.count(), len(traffic.episodes)
        known, at = self._outcomes(), time.time()
        traffic.place = place
        alarm, found = self._alarm(traffic, seq, known)
        if found["found"] != "known" or found["mode"] != place.mode:
            raise SrghnError(f"the diagnosis is wrong: {found['why']}")

        def served() -> bool:
            traffic.pause = 0.0 if self.ledger.canary() is not None else PAUSE
            return self._champion() != before

        self._wait(traffic, served, "another champion")
        ended = len(traffic.episodes)
        champion = self.ledger.version(self._champion())
        _say("", f"version {champion.version} serves the moved world")
        self._calm(traffic)
        return Shift(
            place.name, at, begun, alarm, ended, found,
            champion.recall_of, self._spent(seq), champion.version,
        )  # fmt: skip

    def _told(self, traffic: Traffic, place: Place) -> Shift:
        """Move the world to an unknown place, and check that nothing is started."""
        seq, begun = self.ledger.count(), len(traffic.episodes)
        known, at = self._outcomes(), time.time()
        traffic.place, traffic.pause = place, 0.05
        alarm, found = self._alarm(traffic, seq, known)
        if found["found"] != "none":
            raise SrghnError(f"an unknown world was taken for a known one: {found['why']}")
        self._calm(traffic)
        if self.ledger.notes("policy", ADAPT, since=seq):
            raise SrghnError("something was begun in a world that nobody knows")
        return Shift(
            place.name, at, begun, alarm, len(traffic.episodes), found, None, 0, self._champion()
        )

    def _alarm(self, traffic: Traffic, seq: int, known: int) -> tuple[int, dict[str, Any]]:
        """Wait for alarm and diagnosis; returns the outcomes until the alarm, and the diagnosis.

        `known` is the number of the champion's outcomes before the shift.
        """
        self._wait(traffic, lambda: bool(self.ledger.notes("policy", DRIFT, since=seq)), "an alarm")
        [event] = self.ledger.notes("policy", DRIFT, since=seq)
        alarm = int(self.ledger.evidence(str(event.evidence_sha256))["outcomes"]) - known
        _say("", f"alarm after {alarm} episodes: {event.reason}")
        traffic.pause = 0.05
        self._wait(
            traffic, lambda: bool(self.ledger.notes("policy", DIAGNOSIS, since=seq)), "a diagnosis"
        )
        [event] = self.ledger.notes("policy", DIAGNOSIS, since=seq)
        return alarm, self.ledger.evidence(str(event.evidence_sha256))

    def _wait(self, traffic: Traffic, ready: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not ready():
            traffic.check()
            if time.monotonic() > until:
                raise SrghnError(f"waited {PATIENCE:.0f} s for {what} in vain; see serve.log")
            time.sleep(LOOK)

    def _outcomes(self) -> int:
        """Number of outcomes of the champion since its promotion."""
        champion = self.ledger.champion()
        assert champion is not None
        found = self.ledger.outcomes(champion.version, policy="policy")
        return sum(outcome.generation == champion.generation for outcome in found)

    def _champion(self) -> int:
        champion = self.ledger.champion()
        assert champion is not None
        return champion.version

    def _world(self) -> EnvVersion:
        return self.release.world(self.ledger.version(self._champion()))

    def _pole(self) -> Place:
        """A pole with which the champion fails."""
        candidate = self.release.store.load(self.ledger.version(self._champion()).digest)
        for factor in POLES:
            moved = parse(f"pole_length:{factor}")
            if play_candidate(candidate, 20, mode="normal", perturbation=moved).fitness[0] < 250:
                return Place("another pole", "normal", moved)
        raise SrghnError("the champion balances a pole of any length; choose another seed")

    def _spent(self, seq: int) -> int:
        """Episodes that evolution played for the adaptation after an event."""
        spent = 0
        for event in self.ledger.notes("policy", ADAPT, since=seq):
            said = self.ledger.evidence(str(event.evidence_sha256))
            if said["step"] == "run":
                path = self.settings.workspaces / said["run_id"] / "data" / "evolution.json"
                spent += int(json.loads(path.read_text(encoding="utf-8"))["evaluations"])
        return spent

    def _place(self, event: Event) -> int:
        """The number of episodes that had ended by the event."""
        return sum(met.ended <= event.moment for met in self.episodes)

    def _marks(self) -> list[tuple[float, str]]:
        """The events with their times (Unix seconds), as short labels."""
        found = []
        for event in self.ledger.events():
            known = event.evidence_sha256
            evidence = self.ledger.evidence(known) if known is not None else {}
            words = _words(event, evidence)
            if words is not None:
                found.append((event.moment, words))
        return found

    def _served(self) -> list[dict[str, Any]]:
        """The champions, each with the number of the episode at which it was promoted."""
        return [
            {
                "episode": self._place(event),
                "version": event.version,
                "recall_of": self.ledger.version(int(event.version or 0)).recall_of,
                "mode": self.ledger.version(int(event.version or 0)).mode,
            }
            for event in self.ledger.events()
            if event.to_state == "CHAMPION"
        ]

    def _shown(self, shift: Shift) -> dict[str, Any]:
        found = shift.diagnosis
        return {
            "world": shift.world,
            "episodes_until_alarm": shift.alarm,
            "diagnosis": found["found"],
            "mode": found["mode"],
            "evidence": found["evidence"],
            "recalled": shift.recalled,
            "evaluations": shift.evaluations,
            "champion": shift.champion,
            "mean_return": {
                "before": self._mean(max(0, shift.begun - CALM), shift.begun),
                "during": self._mean(shift.begun, shift.ended),
                "after": self._mean(shift.ended, shift.ended + CALM),
            },
        }

    def _mean(self, start: int, stop: int) -> float | None:
        returns = [met.played.return_ for met in self.episodes[start:stop]]
        return round(float(np.mean(returns)), 1) if returns else None


def _words(event: Event, evidence: Mapping[str, Any]) -> str | None:
    """The picture's label for an event; None if it has none."""
    if event.to_state == "CHAMPION":
        return f"version {event.version} is champion"
    if event.action == "start_canary":
        return f"version {event.version} on trial"
    if event.action == DRIFT:
        return "alarm"
    if event.action == DIAGNOSIS:
        return f"diagnosis: {evidence['mode'] or evidence['found']}"
    if event.action == ADAPT and evidence["step"] == "recall":
        return f"recall of version {evidence['of']}"
    return "evolution" if event.action == ADAPT and evidence["step"] == "run" else None


def _say(number: str, text: str) -> None:
    if number:
        console.print(f"\n[bold cyan]{number}[/bold cyan] [bold]{text}[/bold]")
    else:
        console.print(f"  {text}", markup=False, soft_wrap=True)
