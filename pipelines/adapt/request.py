"""The evolution run after an alarm: from all former champions, in the diagnosed mode."""

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

    It ends when its best individual returns `until`, the gate's promise for the champion. Its seed
    is derived from the run's id, which is the alarm's, so no two alarms make the same candidate. In
    a pinned world other than the one its genome was evolved in, the run begins a new lineage.
    """
    found = release.ledger.version(champion.version)
    params = RunParams.model_validate(found.manifest["params"])
    # not the champion's world: a recall may have passed in another one than its genome's
    own = release.store.load(champion.digest).env_fingerprint == world.fingerprint
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
    """Whether the strategy can begin from several genomes; one with a distribution cannot."""
    from srghn.evolution.registry import make_strategy

    return make_strategy(params, world.interface).encoding is not None
