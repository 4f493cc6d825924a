"""The evolution run after an alarm: from all former champions, in the diagnosed mode."""

from __future__ import annotations

import json
from typing import Any

from pipelines.runs.target import Target
from pipelines.runs.work import Request
from pipelines.runs.workspaces import find_workspace
from pipelines.versions.release import Release
from serving.registry.records import Champion, Version
from serving.registry.reports import NUMBERS, problem
from serving.registry.rules import AdaptTerms
from srghn import seeding
from srghn.config import CanaryParams, GateParams, RunParams
from srghn.envs import EnvVersion
from srghn.errors import TransitionRefused


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

    Its candidate is judged by the rules by which the champion passed. It ends when its best
    individual returns `until`, the gate's promise for the champion. Its seed is derived from the
    run's id, which is the alarm's, so no two alarms make the same candidate. In a pinned world
    other than the one its genome was evolved in, the run begins a new lineage. Raises
    `TransitionRefused` where those rules are gone.
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
    rules = {"gate": gate_rules(release, found), "canary": _trial_rules(release, found)}
    params = params.model_copy(update={"evolution": evolution, "env": world.params, **rules})
    start = "scratch" if not own else "champions" if _keeps_lineages(params, world) else "champion"
    target = Target(champion.policy)
    return Request(params, start=start, name="adapt", run_id=run_id, target=target)


def gate_rules(release: Release, found: Version) -> GateParams:
    """The rules by which a version passed, as its report holds them; else as its run named them.

    A candidate's manifest has none: they do not decide its bytes. A report's rules name the range
    of returns and the failure of the world that it was judged in; another one has its own.
    Raises `TransitionRefused` where neither is here.
    """
    verdict = release.ledger.verdict(found.version)
    folder = release.store.report(verdict) if verdict is not None else None
    if verdict is not None and folder is not None and problem(folder, verdict, NUMBERS) is None:
        held = json.loads((folder / NUMBERS).read_bytes())["params"]
        return _without_range(GateParams.model_validate(held), release.world(found))
    name = found.run_id if found.recall_of is None else f"recall-{found.version}"
    workspace = find_workspace(release.settings, name)
    if workspace is None:
        raise TransitionRefused(
            f"the gate rules of version {found.version} are gone: neither its report nor the "
            f"workspace {name} is here; put one back, or evolve by rules of your own: srghn run"
        )
    return workspace.params().gate


def _without_range(rules: GateParams, world: EnvVersion) -> GateParams:
    known: dict[str, Any] = {"failure_return": world.failure_return}
    if world.returns is not None:
        known |= {"return_low": world.returns.low, "return_high": world.returns.high}
    own = {name: None for name, value in known.items() if getattr(rules, name) == value}
    return rules.model_copy(update=own)


def _trial_rules(release: Release, found: Version) -> CanaryParams:
    """How the version's own trial ran; its range is the one that the gate judges in."""
    own = release.canary_rules(found.version)
    return own.model_copy(update={"return_low": None, "return_high": None})


def _keeps_lineages(params: RunParams, world: EnvVersion) -> bool:
    """Whether the strategy can begin from several genomes; one with a distribution cannot."""
    from srghn.evolution.registry import make_strategy

    return make_strategy(params, world.interface).encoding is not None
