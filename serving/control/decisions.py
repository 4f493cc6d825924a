"""What a person may decide in the browser: what each step is called, says and does.

Each is taken on what the person saw: the champion's generation (`Who.generation`), and the version
that was on trial, waiting, or to be brought back. Where either has changed, nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from serving.control import release
from serving.registry.artefacts import ArtefactStore
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Who
from srghn.errors import TransitionRefused

#: Which version a step is about: one that the link names, the one on trial, a former champion.
About = Literal["named", "trial", "former"]


@dataclass(frozen=True)
class Seen:
    """What was on the page that the decision was made on, and what was filled in there."""

    version: int
    report_digest: str = ""
    weight: float | None = None
    policy: str = POLICY


Take = Callable[[Ledger, ArtefactStore, Seen, Who], object]


@dataclass(frozen=True)
class Step:
    """One decision. `scope` is what the token needs; `harsh`: it cannot be taken back.

    `title` and `effect` speak of `{version}`.
    """

    scope: Literal["review", "admin"]
    about: About
    title: str
    effect: str
    button: str
    take: Take
    harsh: bool = False


def _approve(ledger: Ledger, store: ArtefactStore, seen: Seen, who: Who) -> None:
    release.approve(
        ledger,
        store,
        seen.version,
        release.canary_rules(ledger.version(seen.version)),
        report_digest=seen.report_digest,
        who=who,
    )


def _start(ledger: Ledger, store: ArtefactStore, seen: Seen, who: Who) -> None:
    rules = release.canary_rules(ledger.version(seen.version))
    if ledger.champion(seen.policy) is None:
        release.introduce(ledger, store, seen.version, rules, who)
    else:
        release.start_canary(ledger, store, seen.version, rules, who)


def _reject(ledger: Ledger, store: ArtefactStore, seen: Seen, who: Who) -> None:
    ledger.reject(seen.version, who=who)


def _status(status: Literal["running", "paused", "held"]) -> Take:
    def take(ledger: Ledger, store: ArtefactStore, seen: Seen, who: Who) -> None:
        ledger.set_trial_status(status, who=who, version=seen.version, policy=seen.policy)

    return take


def _weight(ledger: Ledger, store: ArtefactStore, seen: Seen, who: Who) -> None:
    if seen.weight is None:
        raise TransitionRefused("the weight is missing: give a share of new episodes")
    ledger.set_canary_weight(seen.weight, who=who, version=seen.version, policy=seen.policy)


def _abort(ledger: Ledger, store: ArtefactStore, seen: Seen, who: Who) -> None:
    ledger.abort_canary(who=who, version=seen.version, policy=seen.policy)


def _roll_back(ledger: Ledger, store: ArtefactStore, seen: Seen, who: Who) -> None:
    ledger.rollback(who=who, to_version=seen.version, policy=seen.policy)


STEPS: dict[str, Step] = {
    "approve": Step(
        "review",
        "named",
        "Approve version {version}",
        "It becomes the first champion, or its trial begins beside the champion. While another "
        "version is on trial, it waits.",
        "Approve",
        _approve,
    ),
    "reject": Step(
        "review",
        "named",
        "Reject version {version}",
        "It is turned down for good; what was evolved is never tried again by itself.",
        "Reject",
        _reject,
        harsh=True,
    ),
    "start": Step(
        "review",
        "named",
        "Begin the trial of version {version}",
        "It answers its share of new episodes beside the champion, until the evidence decides.",
        "Begin the trial",
        _start,
    ),
    "pause": Step(
        "admin",
        "trial",
        "Pause the trial of version {version}",
        "No new episode joins the trial: the champion answers them all. What is known stays known.",
        "Pause",
        _status("paused"),
    ),
    "hold": Step(
        "admin",
        "trial",
        "Hold the trial of version {version}",
        "Episodes go on on both arms; nothing is promoted or aborted until it is resumed.",
        "Hold",
        _status("held"),
    ),
    "resume": Step(
        "admin",
        "trial",
        "Resume the trial of version {version}",
        "New episodes join the trial again, and the evidence decides.",
        "Resume",
        _status("running"),
    ),
    "weight": Step(
        "admin",
        "trial",
        "Change the share of version {version}",
        "Of new episodes alone: nobody changes version within an episode.",
        "Change",
        _weight,
    ),
    "abort": Step(
        "admin",
        "trial",
        "Abort the trial of version {version}",
        "The champion answers every episode, and the version is quarantined: it is never promoted "
        "by a retry.",
        "Abort",
        _abort,
        harsh=True,
    ),
    "rollback": Step(
        "admin",
        "former",
        "Roll back to version {version}",
        "It is served within a second, and the champion that goes is quarantined: it is never "
        "promoted by a retry. A running trial ends, for it was against that champion.",
        "Roll back",
        _roll_back,
        harsh=True,
    ),
}
