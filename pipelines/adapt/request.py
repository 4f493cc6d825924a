"""The evolution run that an alarm asks for: from all former champions, in the diagnosed mode."""

from __future__ import annotations

from pipelines.runs.target import Target
from pipelines.runs.work import Request
from pipelines.versions.release import Release
from serving.registry.records import Champion
from serving.registry.rules import AdaptTerms
from srghn import seeding
from srghn.config import RunParams
from srghn.envs import EnvVersion


def request_of(
    release: Release,
    champion: Champion,
    world: EnvVersion,
    mode: str,
    terms: AdaptTerms,
    until: float,
    run_id: str,
) -> Request:
    """The champion's own parameters, in that world and mode, within the budget.

    It ends when its best returns `until`, which the gate had promised of the champion. Its seed is
    made of the run's id, which is the alarm's, so that no two alarms make the same candidate. In
    another pinned world than the champion's a new lineage begins.
    """
    found = release.ledger.version(champion.version)
    params = RunParams.model_validate(found.manifest["params"])
    own = world.fingerprint == champion.env_fingerprint
    evolution = params.evolution.model_copy(
        update={
            "ancestor": None,
            "companions": (),
            "mode": mode,
            "seed": seeding.text_seed("adapt", run_id) % 2**31,
            "generations": terms.generations,
            "evaluations": terms.evaluations,
            "until": until,
        }
    )
    params = params.model_copy(update={"evolution": evolution, "env": world.params})
    start = "scratch" if not own else "champions" if _keeps_lineages(params, world) else "champion"
    target = Target(champion.policy)
    return Request(params, start=start, name="adapt", run_id=run_id, target=target)


def _keeps_lineages(params: RunParams, world: EnvVersion) -> bool:
    """Whether the strategy begins from several genomes: one that draws from a distribution not."""
    from srghn.evolution.registry import make_strategy

    return make_strategy(params, world.interface).encoding is not None
