"""The `Ledger`'s steps of a trial, a shadow and a champion's window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from serving.registry import champions, guards, holdbacks, trials
from serving.registry.judging import PASS_SECONDS
from serving.registry.reader import Reader
from serving.registry.records import Canary, Champion, Who
from serving.registry.schema import POLICY
from serving.registry.states import State
from serving.registry.steps import Step
from srghn.config import CanaryParams
from srghn.errors import TransitionRefused


class Take(Protocol):
    """`Ledger._take`: work in one transaction, once per idempotency key."""

    def __call__(
        self,
        action: str,
        who: Who,
        request: Mapping[str, Any],
        work: Callable[[Step], Any],
        *,
        version: int | None = None,
        policy: str = POLICY,
    ) -> Any: ...


class TrialSteps:
    """Steps of an approved version before its promotion, and in its window after it."""

    def __init__(self, take: Take, reader: Reader) -> None:
        self._take, self._reader = take, reader

    def start_shadow(self, version: int, *, loaded: Mapping[str, Any], who: Who) -> None:
        """Make an approved version the shadow; `loaded` as for `start_canary`."""

        def work(step: Step) -> None:
            trials.start_shadow(step, version, loaded)

        self._take("start_shadow", who, {"version": version}, work, version=version)

    def stop_shadow(
        self, version: int, *, who: Who, evidence: Mapping[str, Any] | None = None
    ) -> None:
        """End a shadow; the version is approved as before."""

        def work(step: Step) -> None:
            trials.stop_shadow(step, version, evidence)

        self._take("stop_shadow", who, {"version": version}, work, version=version)

    def start_canary(
        self,
        version: int,
        *,
        params: CanaryParams,
        loaded: Mapping[str, Any],
        who: Who,
        weight: float | None = None,
    ) -> Canary:
        """Begin the trial of an approved version, or of one that expired, on a share of episodes.

        `loaded` is the proof that the serving code loaded it: `{"digest": ..., "golden": n}`
        with the candidate's digest and the number of golden outputs that matched
        (`serving.control.loading.proof`). `weight` is a constant share from the first episode on,
        instead of the steps in the rules.
        """

        begun: list[Canary] = []

        def work(step: Step) -> None:
            trials.start(step, version, params, loaded, weight)
            begun.append(guards.running_canary(step))

        request = {"version": version, "weight": weight, "params": params.model_dump(mode="json")}
        self._take("start_canary", who, request, work, version=version)
        if begun:
            return begun[-1]  # a read after the commit could fail
        running = self._reader.canary(self._reader.version(version).policy)
        if running is None or running.version != version:
            raise TransitionRefused(f"the trial of version {version} is over already")
        return running

    def set_canary_weight(
        self, weight: float, *, who: Who, version: int | None = None, policy: str = POLICY
    ) -> None:
        """Change the share of new episodes, in [0, 1); `version`: only if it is on trial."""

        def work(step: Step) -> None:
            trials.set_weight(step, weight, version)

        request = {"weight": weight} | _of(version)
        self._take("set_canary_weight", who, request, work, policy=policy)

    def set_trial_status(
        self, status: trials.Status, *, who: Who, version: int | None = None, policy: str = POLICY
    ) -> None:
        """Run, pause (no new episode) or hold (no decision) the trial; `version` as above."""

        def work(step: Step) -> None:
            trials.set_status(step, status, version)

        request = {"status": status} | _of(version)
        self._take("set_trial_status", who, request, work, policy=policy)

    def abort_canary(
        self,
        *,
        who: Who,
        version: int | None = None,
        evidence: Mapping[str, Any] | None = None,
        policy: str = POLICY,
    ) -> int:
        """End the trial as harmful, and quarantine the version, whose number is returned."""

        def work(step: Step) -> int:
            return trials.end(step, State.ABORTED, version, evidence)

        request = {"version": version}
        return int(self._take("abort_canary", who, request, work, policy=policy))

    def expire_canary(
        self,
        *,
        who: Who,
        version: int | None = None,
        evidence: Mapping[str, Any] | None = None,
        policy: str = POLICY,
    ) -> int:
        """End the trial undecided; the version may be tried again while its pass is valid.

        `version`: only if it is on trial. Returns the version that was.
        """

        def work(step: Step) -> int:
            return trials.end(step, State.EXPIRED, version, evidence, step.now + PASS_SECONDS)

        return int(self._take("expire_canary", who, _of(version), work, policy=policy))

    def rollback_held(self, *, who: Who, policy: str = POLICY) -> Champion:
        """Bring the predecessor of a champion in its window back, if the holdback shows harm.

        The ledger decides again on its outcomes. The present champion is quarantined and the
        window ends, so this happens only once.
        """

        def work(step: Step) -> dict[str, Any]:
            return asdict(champions.rollback_held(step))

        return Champion(**self._take(holdbacks.ROLLBACK, who, {}, work, policy=policy))

    def end_holdback(
        self, *, who: Who, evidence: Mapping[str, Any] | None = None, policy: str = POLICY
    ) -> None:
        """End a champion's window; it stays champion and answers every episode."""

        def work(step: Step) -> None:
            holdbacks.end(step, evidence or {})

        self._take(holdbacks.END, who, {}, work, policy=policy)


def _of(version: int | None) -> dict[str, Any]:
    """The version that a step names, as a part of the request that its key stands for."""
    return {} if version is None else {"version": version}
