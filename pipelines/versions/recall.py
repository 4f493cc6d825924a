"""Former champions, judged again: a recall is a new version in the world that there is now.

It is gated, approved and tried as any candidate. Recalling takes minutes where evolving takes
hours, and a world that returns is met by who was good in it.
"""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import Any

from pipelines.runs.target import Target
from pipelines.runs.workspaces import Workspace, create_workspace, find_workspace, open_workspace
from pipelines.versions.judge import judge_version, recorded
from pipelines.versions.release import Approval, Release, trial_rules
from serving.registry.artefacts import replace, sync_tree
from serving.registry.records import Version, Who
from serving.registry.states import State
from srghn.candidates.candidate import Candidate
from srghn.envs import EnvVersion
from srghn.errors import ConfigError, SrghnError, TransitionRefused
from srghn.files import atomic_write, one_at_a_time
from srghn.inference.verdict import Verdict

#: States in which a recall that was judged is judged once more.
JUDGED_AGAIN = (State.EVALUATING, State.INCONCLUSIVE, State.ERROR, State.STALE)


def recall(release: Release, version: int, world: EnvVersion, mode: str, who: Who) -> int:
    """Register a former champion to be judged in a world and mode; returns the new version.

    One that was recalled there before and is retired again is recalled once more. Raises
    `ConfigError` for a mode that the world lacks, `TransitionRefused` for a version that is no
    retired champion, was withdrawn, is what is served, or whose recall there was rejected; where
    the tables of its run are gone.
    """
    world.check_mode(mode)
    ledger, found = release.ledger, release.ledger.version(version)
    _require_other(release, found, world, mode)
    changed = trial_rules(_tables(release, found).params(), world)
    where: Any = {"env_fingerprint": world.fingerprint, "mode": mode, "changed": changed}
    release.store.push_world(world.fingerprint)
    number = ledger.recall(version, **where, who=who)
    while ledger.version(number).state is State.RETIRED:
        number = ledger.recall(number, **where, who=who)
    if ledger.version(number).state is State.REJECTED:  # its pass still stands in the ledger
        raise TransitionRefused(
            f"version {number}, the recall of version {version} to that world and mode, was "
            "rejected; evolve another candidate: srghn run"
        )
    _lay_out(release, ledger.version(number), world)
    return number


def judge(release: Release, number: int, approve: Approval) -> Verdict:
    """Judge a recall, or tell its verdict; with `approve` auto, do with a pass what the rules say.

    An evaluation that was killed goes on while its lease runs. Raises what judging raises.
    """
    found = release.ledger.version(number)
    verdict = recorded(release, number)
    if verdict is None or found.state in JUDGED_AGAIN:
        workspace = workspace_of(release, found)
        with workspace.held():
            attempt = found.attempt + (found.state is not State.EVALUATING)
            verdict = judge_version(release, number, workspace, f"{workspace.name}:again:{attempt}")
    if approve == "auto" and verdict.passed:
        release.release(number, f"{_name(found)}:{found.attempt}")
    release.deliver()
    return verdict


def served_world(release: Release, policy: str) -> EnvVersion:
    """The world that the policy's champion passed in; raises `TransitionRefused` without one."""
    champion = release.ledger.champion(policy)
    if champion is None:
        raise TransitionRefused(
            f"policy {policy!r} has no champion, so nothing says which world it is in; "
            "srghn run --approve auto makes the first"
        )
    return release.world(release.ledger.version(champion.version))


def former_champions(release: Release, policy: str, mode: str | None = None) -> list[Version]:
    """Retired champions that may be recalled to a mode, latest first, one of each genome.

    None whose genome was withdrawn, as whatever version, and none whose genome failed in that mode:
    its candidate would be refused.
    """
    versions = release.ledger.versions(policy, newest=True)
    gone = {
        version.genome
        for version in versions
        if version.quarantined
        or version.state in (State.ABORTED, State.REVOKED)
        or (version.state is State.FAILED and version.mode == mode)
    }
    found: dict[str, Version] = {}
    for version in versions:
        if version.state is State.RETIRED and version.genome not in gone:
            found.setdefault(version.genome, version)
    return list(found.values())


def workspace_of(release: Release, found: Version) -> Workspace:
    """Where a version is judged: in its run's workspace, or a recall in one of its own."""
    if found.recall_of is None:
        return open_workspace(release.settings, found.run_id)
    return _laid_out(release, found) or _lay_out(release, found, release.world(found))


def _name(found: Version) -> str:
    return f"recall-{found.version}"


def _require_other(release: Release, found: Version, world: EnvVersion, mode: str) -> None:
    champion = release.ledger.champion(found.policy)
    here = (found.digest, world.fingerprint, mode)
    if champion and (champion.digest, champion.env_fingerprint, champion.mode) == here:
        raise TransitionRefused(
            f"version {found.version} is the candidate that is served, as version "
            f"{champion.version}, in that mode; there is nothing to recall"
        )


def _tables(release: Release, found: Version) -> Workspace:
    """The workspace of the run that made it, whose tables the gate reads."""
    try:
        workspace = open_workspace(release.settings, found.run_id)
    except ConfigError:
        workspace = None
    if workspace is None or not workspace.run.is_dir():
        raise TransitionRefused(
            f"version {found.version} cannot be judged again: the workspace of its run "
            f"{found.run_id} is not here; put it back, or evolve: srghn run"
        )
    return workspace


def _laid_out(release: Release, found: Version) -> Workspace | None:
    """The workspace of a recall; None if there is none, or no whole one.

    One of the same number may be of a version that a restore of the ledger has undone.
    """
    workspace = find_workspace(release.settings, _name(found))
    if workspace is None or not workspace.run.is_dir():
        return None
    try:
        laid = (
            Candidate.load(workspace.candidate).digest,
            EnvVersion.load(workspace.env_version).fingerprint,
        )
    except SrghnError:  # it was cut off, or damaged
        return None
    return workspace if laid == (found.digest, found.env_fingerprint) else None


def _lay_out(release: Release, found: Version, world: EnvVersion) -> Workspace:
    """A workspace with the candidate, the tables of its run, and the world it is recalled to."""
    known = _laid_out(release, found)
    if known is not None:
        return known
    origin = _tables(release, found)
    candidate = Candidate.load(release.store.path(found.digest))
    target = release.settings.workspaces / _name(found)
    # each process has its own; of digits, by which `srghn prune` knows one that was cut off
    aside = target.with_name(f".{target.name}{secrets.randbelow(10**12):012}")
    try:
        workspace = create_workspace(
            release.settings, aside.name, origin.params(), Target(found.policy)
        )
        world.save(workspace.env_version)
        shutil.copytree(candidate.path, workspace.candidate)
        shutil.copytree(origin.run, workspace.run)
        told = {"version": found.version, "recall_of": found.recall_of, "run_id": found.run_id}
        atomic_write(workspace.outcome, json.dumps(told, indent=1))  # no run to be resumed
        sync_tree(aside)
        _put_in_place(release, found, aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Workspace(target)


def _put_in_place(release: Release, found: Version, aside: Path, target: Path) -> None:
    """Rename a workspace to its name, unless another process was first; replace one not whole.

    One at a time: of two that find one wreck, the second would remove what the first put there.
    """
    with one_at_a_time(target.parent / ".lock"):
        if _laid_out(release, found) is None:
            replace(target, aside)
