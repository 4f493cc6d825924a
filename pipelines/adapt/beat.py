"""One look at every policy's alarm. `srghn up` and `srghn worker` repeat it."""

from __future__ import annotations

from pipelines.adapt.launch import Launch
from pipelines.runs.workspaces import find_workspace
from pipelines.versions.release import Release
from serving.control.watch import standing
from serving.settings import Settings
from srghn.errors import SrghnError


def beat(settings: Settings, launch: Launch) -> list[str]:
    """Take the next step of every policy with an alarm; returns the steps taken, as text.

    An error of one policy, such as a world that is no longer as pinned, or a full disk, does not
    stop the others. It is raised at the end, as `SrghnError`.
    """
    release, told, failed = Release(settings), [], []
    for policy in _alarmed(release):
        from pipelines.adapt.steps import Adaptation  # a slow import that only an alarm needs

        try:
            done = Adaptation(release, policy, launch).step()
        except (SrghnError, OSError) as error:
            failed.append(f"policy {policy}: {error}")
            continue
        if done is not None:
            told.append(f"policy {policy}: {done}")
    release.ledger.close()
    if failed and not told:
        raise SrghnError("; ".join(failed))
    return told


def _alarmed(release: Release) -> list[str]:
    """Policies whose latest event of the watch is an alarm, if this home adapts them."""
    ledger = release.ledger
    alarmed = [each.name for each in ledger.policies() if standing(ledger, each.name) is not None]
    return [name for name in alarmed if _leads(release, name)]


def _leads(release: Release, policy: str) -> bool:
    """Whether this home adapts the policy: of several hosts, the one that evolved the champion."""
    champion = release.ledger.champion(policy)
    if not release.settings.work_pool or champion is None:
        return True
    found = release.ledger.version(champion.version)
    while found.recall_of is not None:
        found = release.ledger.version(found.recall_of)
    return find_workspace(release.settings, found.run_id) is not None
