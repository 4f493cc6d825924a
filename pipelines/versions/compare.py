"""`srghn compare A B`: two versions, or candidates' folders, on the same episodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.runs.workspaces import find_workspace
from pipelines.versions.release import Release
from regression_suite.compare import Comparison
from regression_suite.compare import compare as play
from serving.settings import Settings
from srghn.candidates.candidate import MANIFEST, Candidate
from srghn.config import GateParams
from srghn.envs import EnvVersion, verify
from srghn.errors import ConfigError

Progress = Callable[[int, int, str], None]


def compare(
    settings: Settings, a: str, b: str, mode: str | None = None, progress: Progress | None = None
) -> Comparison:
    """Play `a` against `b`, version numbers or folders, in the environment and mode of `a`.

    Those of a number are where it was judged, of a folder where it was evolved.

    The suite and the budgets are those of the gate rules of `a`'s run, where it is still there. The
    page is kept under the home folder; the ledger is only read. Raises `ArtefactError` where one of
    them is not whole or has another interface, `FingerprintMismatch` where the world has moved.
    """
    release = Release(settings)
    (first, rules, world, own), (second, *_) = _find(release, a), _find(release, b)
    verify(world)
    out = settings.home / "comparisons" / f"{first.digest[:16]}-{second.digest[:16]}"
    return play(
        first.path,
        second.path,
        world,
        mode or own,
        rules,
        out,
        names=(_name(a), _name(b)),
        progress=progress,
    )


def _find(release: Release, what: str) -> tuple[Candidate, GateParams, EnvVersion, str]:
    """A candidate, the gate rules of its run, and its environment and mode."""
    if what.isdecimal():
        found = release.ledger.version(int(what))
        workspace = find_workspace(release.settings, found.run_id)
        rules = GateParams() if workspace is None else workspace.params().gate
        mode = release.ledger.leased_mode(found.version) or found.mode
        return release.store.load(found.digest), rules, release.world(found), mode
    if not (Path(what) / MANIFEST).is_file():
        raise ConfigError(
            f"{what!r} is neither a version's number nor a candidate's folder, which holds a "
            f"{MANIFEST}; srghn candidates lists the versions"
        )
    candidate = Candidate.load(Path(what))
    world = EnvVersion.load(candidate.path / "env_version.json")
    return candidate, GateParams(), world, candidate.mode


def _name(what: str) -> str:
    return f"version {what}" if what.isdecimal() else Path(what).name
