"""Outcomes from service, checked by Great Expectations as the gate's tables are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.versions.release import Release
from regression_suite.expectations import DataQuality, validate_outcomes
from serving.settings import Settings
from srghn.errors import ConfigError
from srghn.files import atomic_write


@dataclass(frozen=True)
class Checked:
    """What was found, and the page about it."""

    quality: DataQuality
    page: Path

    def to_dict(self) -> dict[str, Any]:
        told = {"success": self.quality.success, "page": str(self.page)}
        return {**told, **self.quality.to_dict()}


def check_outcomes(settings: Settings, policy: str, version: int | None = None) -> Checked:
    """Check a policy's outcomes, or those of one version; the suite and a page stay in the home.

    Raises `ConfigError` where there are no outcomes: nothing is not a success.
    """
    release = Release(settings)
    outcomes = release.ledger.outcomes(version, policy=policy)
    if not outcomes:
        whose = f"policy {policy!r}" if version is None else f"version {version}"
        raise ConfigError(f"{whose} has no outcome yet: clients post them when an episode ends")
    known = {found.version: found for found in release.ledger.versions(policy)}
    served = [known[number] for number in {o.version for o in outcomes} if number in known]
    limit = max(release.world(found).max_episode_steps for found in served)
    quality = validate_outcomes(outcomes, limit, set(known))
    quality.keep_suites(settings.home / "expectations")
    page = settings.home / "data_docs" / f"outcomes-{policy}.html"
    atomic_write(page, quality.docs)
    return Checked(quality, page)
