"""The versions that are served at one moment, and the choice among them for a request."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from serving.predictor import Predictor
from serving.registry.interfaces import difference
from serving.registry.records import CANARY_ARM, CHAMPION_ARM, HELD_ARM
from serving.trial.assignment import arm_of


@dataclass(frozen=True)
class Face:
    """The part of an answer that names its version: header lines, and fields after the action.

    While a trial runs it is the same for both arms, unless the operator unblinded answers.
    """

    route: str
    lines: bytes
    fields: bytes
    version: str | None


@dataclass(frozen=True)
class Tried:
    """A version that answers copies of requests in another process.

    `epoch` is the event that made it shadow or canary.
    """

    epoch: int
    version: int
    digest: str
    #: The interface as the manifest describes it.
    face: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Served:
    """Everything that answers, in one immutable object; a request takes the reference once.

    `key` decides the arm of each episode in the trial `epoch`; `deadline` is in seconds after an
    episode's start. `held` is the predecessor of a fresh champion in its window; it gets the share
    `weight` of new episodes. `tried` are the versions that answer copies of requests; those
    answers go to nobody. `blind` means that a trial or a window runs and no answer tells its arm.
    `draining` holds retired champions whose episodes are still running. `problem` says why the
    server is not ready; None if it is.
    """

    champion: Predictor | None = None
    generation: int = 0
    canary: Predictor | None = None
    weight: float = 0.0
    epoch: int | None = None
    key: bytes = field(default=b"", repr=False)
    deadline: float = 3600.0
    blind: bool = False
    held: Predictor | None = None
    tried: tuple[Tried, ...] = ()
    draining: Mapping[int, Predictor] = field(default_factory=dict)
    problem: str | None = "starting: the ledger has not been read yet"
    _faces: dict[int, Face] = field(default_factory=dict, compare=False, init=False)

    @cached_property
    def memory_bytes(self) -> int:
        """Bytes for the larger state of both arms, so a token's length does not tell its arm."""
        arms = (self.champion, self.canary, self.held)
        sizes = (predictor.state_size for predictor in arms if predictor is not None)
        return 4 * max(sizes, default=0)

    @cached_property
    def flat(self) -> bool:
        """Whether all versions that answer take only flat vectors."""
        return all(predictor.layout is None for predictor in self._all())

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Numbers in all forms of an observation in one request, and their bytes of names."""
        forms = {predictor.interface: predictor for predictor in self._all()}.values()
        return sum(p.observation_size for p in forms), sum(p.beside for p in forms)

    @cached_property
    def marks(self) -> tuple[int, int]:
        """Most commas, and most opening brackets, of an observation in all its forms."""
        found = [p.marks for p in {p.interface: p for p in self._all()}.values()]
        return sum(commas for commas, _ in found), sum(brackets for _, brackets in found)

    @cached_property
    def asked(self) -> frozenset[str]:
        """Names that an episode's observations must have for it to be on trial; empty: none.

        If the two arms have different interfaces, only episodes that send both observations are
        on trial. The names are those of the successor, which is on trial or a fresh champion.
        """
        champion, other = self.champion, self.canary or self.held
        if champion is None or other is None or not difference(champion.face, other.face):
            return frozenset()
        newer = champion if self.canary is None else other
        return frozenset({newer.interface, str(newer.version)})

    def able(self, names: Iterable[str]) -> bool:
        """Whether both arms can answer a request with observations of these names."""
        return not self.asked or not self.asked.isdisjoint(names)

    def _all(self) -> Iterator[Predictor]:
        for predictor in (self.champion, self.canary, self.held, *self.draining.values()):
            if predictor is not None:
                yield predictor

    def find(self, version: int) -> Predictor | None:
        """The predictor of a version, if it may still answer; else None."""
        for predictor in (self.champion, self.canary, self.held):
            if predictor is not None and predictor.version == version:
                return predictor
        return self.draining.get(version)

    def nobody(self) -> Face:
        """The face of an answer without a version, such as a refusal."""
        line = f"x-champion-generation: {self.generation}\r\n"
        return Face("none", line.encode(), b"", None)

    def route_of(self, predictor: Predictor) -> str:
        if predictor is self.champion:
            return "champion"
        if predictor is self.held:
            return "holdback"
        return "canary" if predictor is self.canary else "draining"

    def face(self, predictor: Predictor) -> Face:
        """The face of a predictor's answers; it is made once and kept."""
        found = self._faces.get(predictor.version)
        if found is None:
            found = self._faces[predictor.version] = self._make_face(predictor)
        return found

    def _make_face(self, predictor: Predictor) -> Face:
        route, version = self.route_of(predictor), predictor.version
        if self.blind:
            lines = f"x-champion-generation: {self.generation}\r\nx-route: trial\r\n"
            fields = f',"generation":{self.generation},"route":"trial"'
            return Face("trial", lines.encode(), fields.encode(), None)
        lines = (
            f"x-model-version: {version}\r\nx-champion-generation: {self.generation}\r\n"
            f"x-route: {route}\r\nx-env-fingerprint: {predictor.env_fingerprint}\r\n"
        )
        fields = f',"version":{version},"generation":{self.generation},"route":"{route}"'
        return Face(route, lines.encode(), fields.encode(), str(version))

    def assign(self, episode: str, names: Iterable[str] = ()) -> tuple[int, Predictor | None]:
        """The arm of a new episode and the predictor; only the trial's secret key decides."""
        if not self.able(names):
            return CHAMPION_ARM, self.champion
        if self.canary is not None and arm_of(self.key, episode, self.weight):
            return CANARY_ARM, self.canary
        if self.held is not None and arm_of(self.key, episode, self.weight):
            return HELD_ARM, self.held
        return CHAMPION_ARM, self.champion

    def choose(self, client: str | None, names: Iterable[str] = ()) -> Predictor | None:
        """The predictor outside an episode: the canary for its share of clients or requests."""
        if self.canary is None:
            return self.champion
        return self.assign(f"client {client}" if client else secrets.token_hex(8), names)[1]
