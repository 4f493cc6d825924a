"""What the ledger answers with: frozen records, no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.registry.states import State
from srghn.config import CanaryParams


@dataclass(frozen=True)
class Champion:
    """The one version that is served; `generation` counts its predecessors and fences writers."""

    version: int
    generation: int
    digest: str
    env_fingerprint: str
    mode: str
    since: str
    by: str


@dataclass(frozen=True)
class Canary:
    """The version on trial. `epoch` names the trial: the seq of the event that began it."""

    version: int
    digest: str
    weight: float
    epoch: int
    params: CanaryParams
    since: str


@dataclass(frozen=True)
class Version:
    """A registered candidate and the tuple that its last evaluation holds for."""

    version: int
    digest: str
    env_fingerprint: str
    mode: str
    run_id: str
    manifest: Mapping[str, Any]
    state: State
    quarantined: bool
    attempt: int
    suite_version: str | None
    policy_digest: str | None
    incumbent_digest: str | None
    incumbent_generation: int
    report_path: str | None
    report_digest: str | None
    registered_at: str


@dataclass(frozen=True)
class Event:
    """One step, linked to the one before it by `prev_hash`."""

    seq: int
    prev_hash: str
    version: int
    action: str
    actor: str
    reason: str
    from_state: str | None
    to_state: str
    generation: int
    evidence_sha256: str | None
    policy_sha256: str | None
    idempotency_key: str | None
    at: str
    hash: str


@dataclass(frozen=True)
class Evaluation:
    """A lease to judge one version: against this incumbent, as this attempt, until then."""

    version: int
    attempt: int
    incumbent_digest: str | None
    incumbent_generation: int
    lease_until: float


@dataclass(frozen=True)
class Pin:
    """The version an episode runs on. `over`: its outcome came. `moved`: it changed version."""

    episode_id: str
    version: int
    route: str
    epoch: int | None
    generation: int
    pinned_at: float
    moved: bool
    over: bool


@dataclass(frozen=True)
class Outcome:
    """How one episode ended, on the version and route it was pinned to."""

    n: int
    episode_id: str
    version: int
    route: str
    epoch: int | None
    return_: float
    length: int
    terminated: bool
    counted: bool
