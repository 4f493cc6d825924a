"""The steps that bring a passed version into service, taken by a person or automatically.

The command line and the HTTP routes call the same functions, so both do the same.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

from serving.control.loading import proof
from serving.registry.artefacts import ArtefactStore
from serving.registry.ledger import Ledger
from serving.registry.records import Version, Who
from serving.registry.states import State
from serving.trial.guards import broken
from srghn.config import CanaryParams
from srghn.errors import ConfigError, TransitionRefused

#: Key, in the ledger's record of a version, of the parameters of its trial.
CANARY = "canary"


def canary_rules(found: Version) -> CanaryParams:
    """The parameters of a version's trial, as registered with the version.

    Raises `TransitionRefused` if it was registered without them.
    """
    if CANARY not in found.manifest:
        raise TransitionRefused(
            f"version {found.version} was registered without canary parameters, before 0.3, and "
            f"the workspace of its run {found.run_id} is not here; put it back, or evolve again"
        )
    return CanaryParams.model_validate(found.manifest[CANARY])


def set_mode(ledger: Ledger, store: ArtefactStore, policy: str, mode: str, *, who: Who) -> None:
    """Record the present mode of a policy's environment.

    Raises `ConfigError` for a mode that the champion's environment lacks: a typing error would end
    every pass. Without a champion, or if its environment cannot be read, any mode is taken.
    """
    champion = ledger.champion(policy)
    known = () if champion is None else store.modes(ledger.version(champion.version))
    if known and mode not in known:
        raise ConfigError(
            f"the champion's environment has no mode {mode!r}; modes: {', '.join(known)}"
        )
    ledger.set_mode(policy, mode, who=who)


def approve(
    ledger: Ledger,
    store: ArtefactStore,
    version: int,
    rules: CanaryParams,
    *,
    report_digest: str,
    who: Who,
) -> State:
    """Approve a pass; the first champion is promoted at once, a later one goes on trial.

    While another version is on trial it stays APPROVED (see `introduce`). Everything that can fail
    is checked before the approval is recorded: the candidate must load and give its golden outputs.
    Returns the version's new state. Raises `TransitionRefused`, `ArtefactError`.
    """
    proof(store.load(ledger.version(version).digest))
    _fetch_report(ledger, store, version)
    ledger.approve(version, report_digest=report_digest, who=_part(who, "approve"))
    if ledger.version(version).state is State.APPROVED:
        introduce(ledger, store, version, rules, who)
    return ledger.version(version).state


def introduce(
    ledger: Ledger, store: ArtefactStore, version: int, rules: CanaryParams, who: Who
) -> None:
    """Make an approved version the first champion, or begin its trial against the champion.

    If the deployment rules require a shadow first, it becomes the shadow. It stays approved while
    another version is on trial or shadow, or while the champion is in its window.
    """
    policy = ledger.version(version).policy
    champion, running = ledger.served(policy)
    if champion is None:
        ledger.promote(version, expected_generation=0, who=_part(who, "promote"))
    elif ledger.deployment_rules(policy).shadow_first:
        if ledger.shadow(policy) is None:
            start_shadow(ledger, store, version, who)
    elif running is None and not in_window(ledger, policy):
        start_canary(ledger, store, version, rules, who)


def in_window(ledger: Ledger, policy: str) -> bool:
    """Whether the champion's window is still open; no trial begins before it ends."""
    window = ledger.holdback(policy)
    return window is not None and time.time() < window.until


def start_shadow(ledger: Ledger, store: ArtefactStore, version: int, who: Who) -> None:
    """Make an approved version the shadow: it answers a copy of the traffic."""
    loaded = proof(store.load(ledger.version(version).digest))
    ledger.start_shadow(version, loaded=loaded, who=_part(who, "shadow"))


def end_shadow(ledger: Ledger, store: ArtefactStore, policy: str) -> None:
    """Begin the trial of a shadow with enough copies, if `shadow_then` is "trial".

    It waits while another version is on trial, or while the champion is in its window.
    """
    rules, found = ledger.deployment_rules(policy), ledger.shadow(policy)
    if rules.shadow_then != "trial" or found is None or CANARY not in found.manifest:
        return
    if ledger.canary(policy) is not None or in_window(ledger, policy):
        return
    _, seen = ledger.compared(policy, found.version)
    if seen.copies < rules.shadow_copies or broken(seen, rules.guards) is not None:
        return
    who = Who("shadow", f"it answered {seen.copies} copies of requests and broke no guard")
    with contextlib.suppress(TransitionRefused):  # another worker or a person was first
        start_canary(ledger, store, found.version, canary_rules(found), who)


def start_canary(
    ledger: Ledger, store: ArtefactStore, version: int, rules: CanaryParams, who: Who
) -> None:
    """Begin the trial of an approved version on its share of episodes."""
    loaded = proof(store.load(ledger.version(version).digest))
    ledger.start_canary(version, params=rules, loaded=loaded, who=_part(who, "canary"))


def _fetch_report(ledger: Ledger, store: ArtefactStore, version: int) -> None:
    """Have the report here that the approval is about: another host may have judged the version."""
    verdict = ledger.verdict(version)
    if verdict is not None:
        store.report(verdict)


def _part(who: Who, step: str) -> Who:
    """The actor of one step of a request, with a separate idempotency key."""
    return replace(who, key=f"{who.key}:{step}" if who.key else None)
