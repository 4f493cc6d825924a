"""A candidate as the founder of a run that continues its lineage."""

from __future__ import annotations

from srghn.candidates.candidate import Candidate
from srghn.envs.version import EnvVersion
from srghn.errors import FingerprintMismatch
from srghn.evolution.ancestry import Ancestry
from srghn.evolution.run import Founder


def founder_of(candidate: Candidate, version: EnvVersion) -> Founder:
    """What `evolve` takes to go on from a candidate in the same world, its `founder`.

    The run's parameters name the candidate: `evolution.ancestor` is its digest. Raises
    `FingerprintMismatch` where it was evolved in another world.
    """
    if candidate.env_fingerprint != version.fingerprint:
        raise FingerprintMismatch(
            f"the ancestor {candidate.digest[:12]} was evolved in environment "
            f"{candidate.env_fingerprint}, this run is in {version.fingerprint} ({version.id}); "
            "start a new lineage: srghn run --from scratch"
        )
    ancestry = Ancestry.from_json((candidate.path / "ancestry.json").read_text(encoding="utf-8"))
    return Founder(candidate.load_genome(), candidate.generation, candidate.digest, ancestry)
