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

    `key` decides the arm of each episode in the trial `epoch`, which new episodes join if `weight`
    is not 0; `deadline` is in seconds after an episode's start. `held` is the predecessor of a
    fresh champion in its window; it gets the share `weight` of new episodes. `tried` are the
    versions that answer copies of requests; those answers go to nobody. `blind` means that a trial
    or a window runs and no answer tells its arm. `draining` holds retired champions whose episodes
    are still running. `problem` says why the server is not ready; None if it is.
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
    _names: dict[int, frozenset[str]] = field(default_factory=dict, compare=False, init=False)

    @cached_property
    def arms(self) -> tuple[Predictor, ...]:
        """The versions that new episodes may get, the champion first."""
        arms = (self.champion, self.canary, self.held)
        return tuple(predictor for predictor in arms if predictor is not None)

    @cached_property
    def size(self) -> int | None:
        """Numbers in a flat observation if all arms take the same; else None."""
        sizes = {predictor.observation_size for predictor in self.arms}
        return sizes.pop() if len(sizes) == 1 else None

    @cached_property
    def stateful(self) -> bool:
        """Whether an arm keeps a state, which the episode's token carries."""
        return any(predictor.state_size for predictor in self.arms)

    @cached_property
    def memory_bytes(self) -> int:
        """Bytes for the largest state of those that answer, so no token's length tells its arm."""
        return 4 * max((predictor.state_size for predictor in self._all()), default=0)

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
        return self.names(champion if self.canary is None else other)

    def able(self, names: Iterable[str], plain: bool = True) -> bool:
        """Whether both arms find their form in a request that has forms of these names.

        `plain`: it also has one without a name, which is for the older arm.
        """
        if not self.asked:
            return True
        if self.asked.isdisjoint(names):
            return False
        others = (self.names(arm) for arm in self.arms)
        return plain or all(not other.isdisjoint(names) for other in others)

    def names(self, predictor: Predictor) -> frozenset[str]:
        """What clients may call a predictor's form: its interface, or the number of a version.

        Arms with one interface share all their names, so no name tells them apart.
        """
        found = self._names.get(predictor.version)
        if found is None:
            peers = {one.version: one for one in (*self.arms, predictor)}.values()
            same = [one for one in peers if difference(one.face, predictor.face) is None]
            found = frozenset(name for one in same for name in (one.interface, str(one.version)))
            self._names[predictor.version] = found
        return found

    def reader(self, predictor: Predictor) -> Predictor:
        """The predictor that reads observations for this one: the first arm of the same form."""
        return self._readers.get(predictor.version, predictor)

    @cached_property
    def _readers(self) -> dict[int, Predictor]:
        found: dict[int, Predictor] = {}
        for arm in self.arms:
            same = (one for one in found.values() if self._form(one) == self._form(arm))
            found[arm.version] = next(same, arm)
        return found

    def _form(self, arm: Predictor) -> tuple[Any, ...]:
        return arm.observation_size, arm.layout, self.names(arm)

    def hides(self, trial: int | None) -> bool:
        """Whether no answer may tell the arm of an episode, by the epoch of its trial."""
        return self.blind and trial is not None and trial == self.epoch

    def _all(self) -> Iterator[Predictor]:
        yield from (*self.arms, *self.draining.values())

    def find(self, version: int) -> Predictor | None:
        """The predictor of a version, if it may still answer; else None."""
        for predictor in self.arms:
            if predictor.version == version:
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

    def assign(self, episode: str, joins: bool = True) -> tuple[int, Predictor | None]:
        """The arm of a new episode and the predictor; only the trial's secret key decides.

        `joins`: both arms can answer it (`able`).
        """
        if not joins:
            return CHAMPION_ARM, self.champion
        if self.canary is not None and arm_of(self.key, episode, self.weight):
            return CANARY_ARM, self.canary
        if self.held is not None and arm_of(self.key, episode, self.weight):
            return HELD_ARM, self.held
        return CHAMPION_ARM, self.champion

    def choose(self, client: str | None, joins: bool = True) -> Predictor | None:
        """The predictor outside an episode: the canary for its share of clients or requests."""
        if self.canary is None:
            return self.champion
        return self.assign(f"client {client}" if client else secrets.token_hex(8), joins)[1]
