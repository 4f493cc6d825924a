"""A candidate as the founder of a run that continues its lineage."""

from __future__ import annotations

from pathlib import Path

from srghn.candidates.candidate import Candidate, load_candidate
from srghn.envs.pinning import diff
from srghn.envs.version import EnvVersion
from srghn.errors import FingerprintMismatch
from srghn.evolution.ancestry import Ancestry
from srghn.evolution.run import Founder

#: Most differences between two environments that an error lists.
MOVED = 3


def founder_of(candidate: Candidate | Path | str, version: EnvVersion) -> Founder:
    """What `evolve` takes to go on from a candidate, or its folder, in the same world: a `founder`.

    The run's parameters name the candidate: `evolution.ancestor` is its digest. Raises
    `FingerprintMismatch` where it was evolved in another world.
    """
    if isinstance(candidate, Path | str):
        candidate = load_candidate(candidate)
    if candidate.env_fingerprint != version.fingerprint:
        version.check_not_fuller(candidate.path / "env_version.json")
        raise FingerprintMismatch(
            f"the ancestor {candidate.digest[:12]} was evolved in environment "
            f"{candidate.env_fingerprint}, this run is in {version.fingerprint} ({version.id}): "
            f"{_moved(candidate, version)}; restore what changed, or start a new lineage: srghn "
            "run --from scratch"
        )
    genome, ancestry = candidate.load_genome(), Ancestry.from_json(candidate.ancestry)
    return Founder(genome, candidate.generation, candidate.digest, ancestry)


def _moved(candidate: Candidate, version: EnvVersion) -> str:
    """What differs from the environment that a candidate was evolved in: the first few fields."""
    lines = diff(EnvVersion.load(candidate.path / "env_version.json"), version)
    more = f" and {len(lines) - MOVED} more" if len(lines) > MOVED else ""
    return "; ".join(line[:120] for line in lines[:MOVED]) + more
