"""The decisions that a person can take in the browser: the name, text and action of each.

A decision applies to the page that the person saw: the champion's generation (`Who.generation`),
and the version that was on trial, waiting, or to be brought back. If either has changed, nothing is
done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from serving.control import release
from serving.registry.artefacts import ArtefactStore
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Canary, Champion, Version, Who
from serving.registry.states import TRANSITIONS, State
from srghn.errors import TransitionRefused

#: The version that a step is about: one named by the link, the one on trial, a former champion.
About = Literal["named", "trial", "former"]


@dataclass(frozen=True)
class Seen:
    """The state that the page showed when the person decided, and the form's fields."""

    version: int
    report_digest: str = ""
    weight: float | None = None
    policy: str = POLICY


Take = Callable[[Ledger, ArtefactStore, Seen, Who], object]


@dataclass(frozen=True)
class Step:
    """One decision. `scope` is the token's scope that it needs; `harsh`: it cannot be undone.

    `title` and `effect` may contain `{version}`.
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
        "If there is no champion, it becomes the first. Otherwise its trial against the champion "
        "begins, or waits while another version is on trial.",
        "Approve",
        _approve,
    ),
    "reject": Step(
        "review",
        "named",
        "Reject version {version}",
        "It is refused for good: the same genome is never tried again automatically.",
        "Reject",
        _reject,
        harsh=True,
    ),
    "start": Step(
        "review",
        "named",
        "Begin the trial of version {version}",
        "It answers its share of new episodes until the evidence decides. The champion answers "
        "the rest.",
        "Begin the trial",
        _start,
    ),
    "pause": Step(
        "admin",
        "trial",
        "Pause the trial of version {version}",
        "No new episode joins the trial: the champion answers all of them. The evidence is kept.",
        "Pause",
        _status("paused"),
    ),
    "hold": Step(
        "admin",
        "trial",
        "Hold the trial of version {version}",
        "Both arms answer episodes as before. Nothing is promoted or aborted until you resume it.",
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
        "The new share applies to new episodes. Running episodes keep their version.",
        "Change",
        _weight,
    ),
    "abort": Step(
        "admin",
        "trial",
        "Abort the trial of version {version}",
        "The champion answers every episode. The version is quarantined: a retry cannot promote "
        "it.",
        "Abort",
        _abort,
        harsh=True,
    ),
    "rollback": Step(
        "admin",
        "former",
        "Roll back to version {version}",
        "It is served within a second. The present champion is quarantined: a retry cannot promote "
        "it. A running trial ends, because it was against that champion.",
        "Roll back",
        _roll_back,
        harsh=True,
    ),
}

#: How the step `start` is shown while there is no champion.
FIRST = replace(
    STEPS["start"],
    title="Promote version {version}",
    effect="There is no champion yet: it becomes the first, and answers every request.",
    button="Promote",
)

#: Steps that a trial of this status has behind it.
_STATUS = {"pause": "paused", "hold": "held", "resume": "running"}


def hindrance(
    name: str,
    version: Version | None,
    champion: Champion | None,
    canary: Canary | None,
    former: Sequence[int],
) -> str:
    """Why a step cannot be taken now, in words; empty if the ledger has to say it.

    `version` is None only if the step is about a trial or a former champion, and there is none.
    """
    about = STEPS[name].about
    if about == "former":
        return "" if former else "There is no former champion that could be brought back."
    if about == "trial":
        if canary is None:
            return "No version is on trial now."
        done = _STATUS.get(name) == canary.status
        return f"The trial of version {canary.version} is {canary.status} already." if done else ""
    assert version is not None  # a named version is there
    said = f"Version {version.version} is {version.state}"
    if name == "approve" and version.state is not State.PASSED:
        return f"{said}. Only a version that is PASSED can be approved."
    if name == "reject" and State.REJECTED not in TRANSITIONS[version.state]:
        trial = ": its trial can be aborted" if version.state is State.CANARY else ""
        return f"{said} and cannot be rejected{trial}."
    return _no_start(version, said, champion, canary) if name == "start" else ""


def _no_start(version: Version, said: str, champion: Champion | None, canary: Canary | None) -> str:
    """Why no trial of a version can begin now; without a champion it becomes the first."""
    if version.state is State.CANARY:
        return f"{said}: it is on trial already."
    if version.state is State.PASSED:
        return f"{said}. Approve it first: then its trial begins."
    to = State.CHAMPION if champion is None else State.CANARY
    if version.state is State.RETIRED or to not in TRANSITIONS[version.state]:
        return f"{said}. Only a version that is approved can go on trial."
    if canary is not None:
        return f"Version {canary.version} is on trial, one at a time: wait, or abort it."
    return ""
