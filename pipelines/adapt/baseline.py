"""Records a champion's sandbox observations in the ledger at its promotion, for the watch."""

from __future__ import annotations

from pipelines.versions.release import Release
from serving.control.sight import BASELINE, baseline
from serving.registry.records import Champion, Who
from serving.settings import Settings
from srghn import seeding
from srghn.errors import SrghnError
from srghn.inference.whereabouts import quantiles

#: Episodes in the sandbox; each ends at the step whose observation is kept.
EPISODES = 400
ACTOR = "watch"


def keep(settings: Settings) -> list[str]:
    """Record the observations of each champion without a record; returns a line for each.

    Does nothing if no observations in service are kept. An error of one policy, such as a world
    that is not installed here, does not stop the others. It is raised, as `SrghnError`, by the
    first call that has nothing to tell.
    """
    if not settings.samples:
        return []
    release, told, failed = Release(settings), [], []
    for policy in release.ledger.policies():
        champion = release.ledger.champion(policy.name)
        if champion is None or baseline(release.ledger, champion) is not None:
            continue
        try:
            told.append(_keep(release, champion))
        except (SrghnError, OSError) as error:
            failed.append(f"policy {policy.name}: {error}")
    release.ledger.close()
    if failed and not told:
        raise SrghnError("; ".join(failed))
    return told


def _keep(release: Release, champion: Champion) -> str:
    from pipelines.adapt.play import play  # a slow import that only a new champion needs

    world = release.world(release.ledger.version(champion.version))
    seed = seeding.text_seed("observations", champion.digest, world.fingerprint)
    candidate = release.store.load(champion.digest)
    played = play(candidate, world, champion.mode, EPISODES, seed, observe=True, whole=False)
    assert played.observed is not None
    size = candidate.policy().observation_size
    seen = played.observed[:, 1 : 1 + size]
    said = {
        "version": champion.version,
        "generation": champion.generation,
        "mode": champion.mode,
        "count": len(seen),
        "quantiles": quantiles(seen).tolist(),
    }
    why = f"what version {champion.version} sees in the sandbox, in mode {champion.mode}"
    who = Who(ACTOR, why, f"{BASELINE}:{champion.policy}:{champion.generation}")
    release.ledger.note(BASELINE, said, who=who, policy=champion.policy)
    return f"policy {champion.policy}: {why}: {len(seen)} observations"
