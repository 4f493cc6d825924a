"""From what a user asks for to the parameters of a run: presets, overrides, and the ancestor."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.runs.calendar import seed_of
from pipelines.runs.presets import load_preset
from pipelines.versions.release import Release
from serving.settings import Settings
from srghn.config import RunParams, with_overrides
from srghn.errors import ConfigError, FingerprintMismatch

if TYPE_CHECKING:
    from srghn.envs import EnvVersion
    from srghn.evolution.run import Founder


def resolved(preset: str, overrides: Sequence[str]) -> RunParams:
    """A preset with its overrides: all the parameters of a run but its ancestor."""
    return with_overrides(load_preset(preset), overrides)


def prepared(
    settings: Settings, params: RunParams, start: str, firing: datetime | None = None
) -> RunParams:
    """The parameters of a new run: with its ancestor and, for a scheduled one, its own seed.

    `start` says where the lineage begins: 'champion' (from scratch while there is none), 'scratch',
    or a version's number. The ancestor's digest becomes part of the parameters, so the run can be
    repeated.
    """
    evolution = params.evolution
    if evolution.ancestor is None:
        digest = _ancestor(Release(settings), start)
        evolution = evolution.model_copy(update={"ancestor": digest})
    if firing is not None:
        evolution = evolution.model_copy(update={"seed": seed_of(evolution.seed, firing)})
    return params.model_copy(update={"evolution": evolution})


def check(settings: Settings, params: RunParams) -> EnvVersion:
    """Build environment, network, strategy and ancestor once; returns the environment as it is now.

    What is wrong with them is told here, before anything is started or written.
    """
    from srghn.envs import pin
    from srghn.evolution.registry import make_strategy

    version = pin(params.env)
    make_strategy(params, version.interface)
    find_founder(params, version, settings)
    return version


def prepare(settings: Settings, preset: str, overrides: Sequence[str], start: str) -> RunParams:
    """`resolved`, `prepared` and checked."""
    params = prepared(settings, resolved(preset, overrides), start)
    check(settings, params)
    return params


def find_founder(params: RunParams, version: EnvVersion, settings: Settings) -> Founder | None:
    """The candidate that `evolution.ancestor` names, as evolution takes it; None for none.

    Raises `FingerprintMismatch` where it lived in another world.
    """
    from srghn.evolution.ancestry import Ancestry
    from srghn.evolution.run import Founder

    digest = params.evolution.ancestor
    if digest is None:
        return None
    candidate = Release(settings).store.load(digest)
    if candidate.env_fingerprint != version.fingerprint:
        raise FingerprintMismatch(
            f"the ancestor {digest[:12]} lived in world {candidate.env_fingerprint}, this run is "
            f"in world {version.fingerprint} ({version.id}); begin a new lineage in it: "
            "srghn run --from scratch"
        )
    ancestry = Ancestry.from_json((candidate.path / "ancestry.json").read_text(encoding="utf-8"))
    return Founder(candidate.load_genome(), candidate.generation, digest, ancestry)


def _ancestor(release: Release, start: str) -> str | None:
    if start == "scratch":
        return None
    if start == "champion":
        champion = release.incumbent()
        return champion.digest if champion else None
    if not start.isdecimal():
        raise ConfigError(f"--from takes champion, scratch or a version's number, got {start!r}")
    return release.ledger.version(int(start)).digest
