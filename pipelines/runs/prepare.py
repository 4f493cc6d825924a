"""From what a user asks for to the parameters of a run: presets, overrides, and the ancestor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.progress import patient
from pipelines.runs.calendar import seed_of
from pipelines.runs.presets import load_preset
from pipelines.runs.target import DEFAULT_TARGET, Target
from pipelines.versions.recall import former_champions
from pipelines.versions.release import Release
from serving.registry.interfaces import difference
from serving.registry.records import Champion
from serving.settings import Settings
from srghn.candidates.candidate import Candidate
from srghn.config import RunParams, with_overrides
from srghn.errors import ConfigError

if TYPE_CHECKING:
    from srghn.envs import EnvVersion
    from srghn.evolution.run import Founder


def resolved(preset: str, overrides: Sequence[str]) -> RunParams:
    """A preset with its overrides: all the parameters of a run but its ancestor."""
    return with_overrides(load_preset(preset), overrides)


def prepared(
    settings: Settings,
    params: RunParams,
    start: str,
    firing: datetime | None = None,
    target: Target = DEFAULT_TARGET,
) -> RunParams:
    """The parameters of a new run: with its ancestor and, for a scheduled one, its own seed.

    `start` says where the lineage begins: 'champion' (from scratch while there is none, and for a
    successor, whose observations are others), 'champions' (the champion and all former ones
    together), 'scratch', or a version's number. The ancestors' digests become part of the
    parameters, so the run can be repeated.
    """
    evolution = params.evolution
    if evolution.ancestor is None:
        found = _ancestors(Release(settings), start, target, evolution.mode)
        first = {"ancestor": found[0] if found else None, "companions": tuple(found[1:])}
        evolution = evolution.model_copy(update=first)
    if firing is not None:
        evolution = evolution.model_copy(update={"seed": seed_of(evolution.seed, firing)})
    return params.model_copy(update={"evolution": evolution})


def check(settings: Settings, params: RunParams, target: Target = DEFAULT_TARGET) -> EnvVersion:
    """Build environment, network, strategy and ancestor once; returns the environment as it is now.

    What is wrong with them is told here, before anything is started or written: an interface that
    the policy's clients do not know, most of all.
    """
    from srghn.evolution.registry import make_strategy

    with patient(f"pin {params.env.id}"):
        version = pin_for(settings, params)
    check_judged(params, version)
    release = Release(settings)
    release.require_interface(target, version.interface.to_dict())
    check_served_mode(release, version, target)
    if params.evolution.mode is not None:
        version.check_mode(params.evolution.mode)
    make_strategy(params, version.interface)
    find_founder(params, version, settings)
    return version


def pin_for(
    settings: Settings, params: RunParams, tell: Callable[[str], None] = lambda note: None
) -> EnvVersion:
    """Pin the environment of a run; `tell` is called as by `srghn.envs.pin`.

    A run that continues a candidate of an earlier release, which recorded fewer packages, goes on
    in that one's version if nothing that it records has moved. `tell` names the other packages.
    """
    from srghn.envs import EnvVersion, pin

    now, ancestor = pin(params.env, tell), params.evolution.ancestor
    if ancestor is None:
        return now
    world = EnvVersion.load(Release(settings).store.load(ancestor).path / "env_version.json")
    version = now.named_by(world)
    if version.fingerprint != world.fingerprint:
        return now
    if others := ", ".join(name for name in now.packages if name not in version.packages):
        tell(
            f"{now.id}: the ancestor's environment was pinned before the version of {others} was "
            "recorded, so a change of it shows in the behaviour alone; a lineage from scratch "
            "records it (srghn run --from scratch)"
        )
    return version


def check_judged(params: RunParams, version: EnvVersion) -> None:
    """Raise now what judging a candidate would raise after the evolution, in one line."""
    from regression_suite.suite import plan, trial_of

    plan(version, params.evolution.mode or version.modes[0], params.gate)
    trial_of(params, version)


def check_served_mode(
    release: Release, version: EnvVersion, target: Target = DEFAULT_TARGET
) -> None:
    """Raise `ConfigError` where candidates would be judged in a mode that their world lacks.

    They are judged in the mode that their policy serves; a successor is judged in its own.
    """
    ledger, policy = release.ledger, target.policy
    if policy not in {known.name for known in ledger.policies()}:
        return
    served = ledger.interface(policy)
    if target.successor and difference(served, version.interface.to_dict()) is not None:
        return
    mode = ledger.service_mode(policy)
    if mode is None or mode in version.modes:
        return
    own = "; or give it a policy of its own: srghn run --policy NAME"
    other = "" if ledger.champion(policy) is None else own
    raise ConfigError(
        f"policy {policy!r} is in mode {mode!r}, in which candidates are judged, and {version.id} "
        f"has no such mode; modes: {', '.join(version.modes)}; set the one it is in: srghn mode "
        f"set {version.modes[0]}{target.option} --reason ...{other}"
    )


def prepare(settings: Settings, preset: str, overrides: Sequence[str], start: str) -> RunParams:
    """`resolved`, `prepared` and checked."""
    params = prepared(settings, resolved(preset, overrides), start)
    check(settings, params)
    return params


def find_founder(params: RunParams, version: EnvVersion, settings: Settings) -> Founder | None:
    """The candidate that `evolution.ancestor` names, as evolution takes it; None for none.

    With it come those that `evolution.companions` names. Raises `FingerprintMismatch` where one
    lived in another world, `ConfigError` where the strategy begins from one genome at most.
    """
    from srghn.candidates.founder import founder_of
    from srghn.evolution.registry import make_strategy

    digest, companions = params.evolution.ancestor, params.evolution.companions
    if digest is None:
        return None
    release = Release(settings)
    founder = founder_of(release.store.load(digest), version)
    if not companions:
        return founder
    if make_strategy(params, version.interface).encoding is None:
        raise ConfigError(
            f"evolution.strategy: {params.evolution.strategy} goes on from one candidate, not "
            f"from {1 + len(companions)}: srghn run --from champion"
        )
    found = [founder_of(release.store.load(each), version) for each in companions]
    latest = max(each.generation for each in (founder, *found))
    return replace(founder, generation=latest, companions=tuple(found))


def _ancestors(release: Release, start: str, target: Target, mode: str | None) -> list[str]:
    """Digests of the candidates that the lineage begins from; none: from scratch."""
    if start == "scratch" or (start in ("champion", "champions") and target.successor):
        return []
    if start in ("champion", "champions"):
        champion = release.incumbent(target.policy)
        if champion is None:
            return []
        former = _former(release, champion, mode) if start == "champions" else []
        return [champion.digest, *former]
    if not start.isdecimal():
        raise ConfigError(
            f"--from takes champion, champions, scratch or a version's number, got {start!r}"
        )
    return [release.ledger.version(int(start)).digest]


def _former(release: Release, champion: Champion, mode: str | None) -> list[str]:
    """Former champions of the champion's own world and architecture, latest first."""
    from srghn.evolution.base import same_architecture

    own = release.store.load(champion.digest)
    digests = [found.digest for found in former_champions(release, champion.policy, mode)]
    others = [release.store.load(each) for each in digests if each != champion.digest]
    return [
        candidate.digest
        for candidate in others
        if candidate.env_fingerprint == own.env_fingerprint
        and (
            same_architecture(_architecture(candidate), _architecture(own))
            or same_architecture(_architecture(own), _architecture(candidate))
        )
    ]


def _architecture(candidate: Candidate) -> str:
    return str(candidate.manifest["architecture_digest"])
