"""The records that the ledger takes and returns. They are frozen and independent of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from serving.registry.schema import POLICY
from serving.registry.states import State
from serving.trial.rules import TrialRules

#: In a holdback the champion keeps its arm, and the predecessor has the third.
CHAMPION_ARM, CANARY_ARM, HELD_ARM = 0, 1, 2


@dataclass(frozen=True)
class Who:
    """Who takes a step and why; `key` makes it safe to send the same step twice.

    If a key is repeated with the same request, the first answer is returned and nothing is done;
    with another request it is refused. `generation` is the champion's generation for which the
    step was decided. If the champion has changed, the step is refused (`StaleGeneration`). None
    means any generation.
    """

    actor: str
    reason: str
    key: str | None = None
    generation: int | None = None


@dataclass(frozen=True)
class Policy:
    """One policy. `service_mode` None: the mode in which its champion passed."""

    name: str
    interface: Mapping[str, Any] | None
    service_mode: str | None
    created_at: str


@dataclass(frozen=True)
class Champion:
    """The served version. `generation` counts a policy's champions; stale writers are refused."""

    version: int
    generation: int
    digest: str
    env_fingerprint: str
    mode: str
    since: str
    by: str
    policy: str = POLICY


@dataclass(frozen=True)
class Canary:
    """The version on trial. `epoch` identifies the trial: the seq of the event that began it.

    `status` is running, paused (no new episode of the trial) or held (no decision is taken).
    """

    version: int
    digest: str
    weight: float
    epoch: int
    rules: TrialRules
    since: str
    status: str = "running"
    policy: str = POLICY


@dataclass(frozen=True)
class Holdback:
    """A fresh champion's window: `share` of new episodes stays on its predecessor.

    `epoch` is the seq of the event that promoted it; `until` is in Unix seconds.
    """

    version: int
    predecessor: int
    share: float
    epoch: int
    rules: TrialRules
    until: float
    policy: str = POLICY


@dataclass(frozen=True)
class Version:
    """A registered candidate and the tuple that its last evaluation is about.

    `genome` is the digest of the genome, whatever the manifest says. `recall_of` is the former
    champion that this version recalls; None otherwise.
    """

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
    genome: str
    recall_of: int | None = None
    policy: str = POLICY


@dataclass(frozen=True)
class Event:
    """One step, linked to the one before it by `prev_hash`.

    `format` says which fields its hash covers. A step of a policy (its mode, its deployment rules)
    has neither version nor states.
    """

    seq: int
    prev_hash: str
    version: int | None
    action: str
    actor: str
    reason: str
    from_state: str | None
    to_state: str | None
    generation: int
    evidence_sha256: str | None
    policy_sha256: str | None
    idempotency_key: str | None
    at: str
    hash: str
    policy: str = POLICY
    format: int = 2

    @property
    def moment(self) -> float:
        """`at` in Unix seconds."""
        return datetime.fromisoformat(self.at).timestamp()


@dataclass(frozen=True)
class Evaluation:
    """A lease to judge one version: the incumbent, the attempt, and the time it ends.

    `lease` is the hash of the event that began this attempt. Nobody can know it before, so the
    seeds of the gate's episodes are derived from it.
    """

    version: int
    attempt: int
    incumbent_digest: str | None
    incumbent_generation: int
    lease_until: float
    lease: str | None = None  # None: an answer of version 0.2.0


@dataclass(frozen=True)
class Start:
    """An episode that begins. Times in Unix seconds.

    `trial` is the epoch of the trial or holdback, None outside one; `arm` is 0 (champion), 1
    (canary) or 2 (a predecessor held back), and `weight` the probability of the latter two. After
    its `deadline` an episode without an outcome counts as missing.
    """

    episode: str
    version: int
    arm: int = CHAMPION_ARM
    weight: float = 0.0
    trial: int | None = None
    generation: int = 0
    started_at: float = 0.0
    deadline: float = 0.0
    policy: str = POLICY


@dataclass(frozen=True)
class StartRow:
    """A stored start: `n` is its number. The outcome's fields are None until there is one.

    The fields are in the order of the table's columns.

    `moved`: it is evidence for neither arm, whatever its outcome, because another version went on
    with it or a request lacked its token. `counted` is False if the outcome is no evidence: outside
    a trial, or moved. (One beyond its poster's share is left out where evidence is counted.)
    """

    n: int
    policy: str
    trial: int | None
    episode: str
    version: int
    generation: int
    arm: int
    weight: float
    started_at: float
    deadline: float
    moved: bool
    arrived: int | None
    ended_at: float | None
    return_: float | None
    length: int | None
    terminated: bool | None
    poster: str | None
    counted: bool | None

    def runs(self, now: float) -> bool:
        """Whether its outcome may still come in time; `now` is in Unix seconds."""
        return self.arrived is None and self.deadline >= now


@dataclass(frozen=True)
class Outcome:
    """How one episode ended, with the version and route of its start. `n`: order of arrival."""

    n: int
    episode_id: str
    version: int
    route: str
    epoch: int | None
    return_: float
    length: int
    terminated: bool
    counted: bool
    generation: int = 0
    poster: str | None = None
    policy: str = POLICY


@dataclass(frozen=True)
class Running:
    """State that workers update together: of a trial (`trial`: its epoch) or of a watch (0).

    `n` is the last start, or outcome, that is included; `state` belongs to the decision code.
    """

    policy: str
    trial: int
    n: int
    state: Mapping[str, Any] = field(default_factory=dict)
