"""Finds a former champion that is good in a world, by short play in the sandbox."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.versions.recall import former_champions
from pipelines.versions.release import Release
from serving.control.release import canary_rules
from serving.registry.records import Champion
from serving.trial.rules import terms_of
from srghn.candidates.candidate import Candidate
from srghn.candidates.play import play_candidate
from srghn.envs import EnvVersion

EPISODES = 100


@dataclass(frozen=True)
class Former:
    """A retired champion and its mean return over `EPISODES` in that world, raw and scaled."""

    version: int
    mean: float
    scaled: float


def best_former(
    release: Release, champion: Champion, world: EnvVersion, mode: str, promise: float
) -> Former | None:
    """The former champion with the best returns there, if its scaled mean reaches `promise`.

    `promise` is the gate's promise for the present champion, which that no longer keeps.
    """
    rules = terms_of(canary_rules(release.ledger.version(champion.version)))
    found = []
    for version in former_champions(release, champion.policy, mode):
        candidate = release.store.load(version.digest)
        if candidate.digest == champion.digest or not _can_play(candidate, world):
            continue
        returns = play_candidate(candidate, EPISODES, mode=mode, version=world).returns[0]
        scaled = [rules.scale(float(each)) for each in returns]
        mean = sum(scaled) / len(scaled)
        found.append(Former(version.version, rules.low + mean * (rules.high - rules.low), mean))
    best = max(found, key=lambda former: former.scaled, default=None)
    return best if best is not None and best.scaled >= promise else None


def _can_play(candidate: Candidate, world: EnvVersion) -> bool:
    """Whether the world is seen as the candidate knows it; a successor's predecessor had other
    sensors."""
    own = EnvVersion.load(candidate.path / "env_version.json")
    return own.interface.for_clients() == world.interface.for_clients()
