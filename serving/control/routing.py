"""What is served at one moment, and which version a key is sent to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.predictor import Predictor

BUCKETS = 10_000


@dataclass(frozen=True)
class Face:
    """What an answer says of who gave it: its header lines, and the fields after the action."""

    route: str
    lines: bytes
    fields: bytes
    version: str


@dataclass(frozen=True)
class Served:
    """One immutable reference to everything that answers; a request captures it once.

    `draining` holds retired champions whose episodes are still running. `problem` says why the
    server is not ready, if it is not.
    """

    champion: Predictor | None = None
    generation: int = 0
    canary: Predictor | None = None
    weight: float = 0.0
    epoch: int | None = None
    draining: Mapping[int, Predictor] = field(default_factory=dict)
    problem: str | None = "starting: the ledger was not read yet"
    _faces: dict[int, Face] = field(default_factory=dict, compare=False, init=False)

    def find(self, version: int) -> Predictor | None:
        """The predictor of a version that may still answer."""
        for predictor in (self.champion, self.canary):
            if predictor is not None and predictor.version == version:
                return predictor
        return self.draining.get(version)

    def route_of(self, predictor: Predictor) -> str:
        if predictor is self.champion:
            return "champion"
        return "canary" if predictor is self.canary else "draining"

    def face(self, predictor: Predictor) -> Face:
        """How answers of a predictor present it; made once."""
        found = self._faces.get(predictor.version)
        if found is None:
            found = self._faces[predictor.version] = self._make_face(predictor)
        return found

    def _make_face(self, predictor: Predictor) -> Face:
        route, version = self.route_of(predictor), predictor.version
        lines = (
            f"x-model-version: {version}\r\nx-champion-generation: {self.generation}\r\n"
            f"x-route: {route}\r\nx-env-fingerprint: {predictor.env_fingerprint}\r\n"
        )
        fields = f',"version":{version},"generation":{self.generation},"route":"{route}"'
        return Face(route, lines.encode(), fields.encode(), str(version))

    def choose(self, key: str) -> Predictor | None:
        """The canary for the keys in its share, the champion for all others."""
        if self.canary is not None and bucket(str(self.epoch), key) < self.weight * BUCKETS:
            return self.canary
        return self.champion


def bucket(salt: str, key: str) -> int:
    """Where a key falls, in [0, 10000). Raising a weight never moves a key back."""
    digest = hashlib.blake2b(f"{salt}\x1f{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % BUCKETS
