"""Checks and the verdict made of them: which check decided, and what would have changed it.

The gate writes a verdict by this rule, and the ledger decides again by the same rule from the
checks it was given (`contradiction`): a verdict that does not follow from its checks, or a check
whose own bound does not clear its threshold, is never taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from srghn.files import canonical_json

Outcome = Literal["passed", "failed", "inconclusive", "error"]
#: Which end of the interval must clear the threshold, and whether equality is enough; "" where a
#: check was not decided by an interval.
Sense = Literal["", "low >", "low >=", "high <", "high <="]
#: The worst outcome of a binding check decides. An error comes first: a check that did not finish
#: leaves nothing judged.
PRECEDENCE: tuple[Outcome, ...] = ("error", "failed", "inconclusive", "passed")
#: What of a rejected verdict is quoted.
_QUOTED = 200


@dataclass(frozen=True)
class Check:
    """One question put to the candidate.

    `value` with its interval [low, high] was held against `threshold`, all in the unit of the
    check; `sense` says how. `reason` says what was found, `remedy` what would have changed it. A
    check that is not `binding` is reported and decides nothing. `n` episodes were looked at.
    `scale` is the width of the range of what was measured, by which checks of different units are
    compared; verdicts of earlier versions have none, and are compared as they were.
    """

    name: str
    outcome: Outcome
    reason: str
    value: float | None = None
    threshold: float | None = None
    low: float | None = None
    high: float | None = None
    remedy: str = ""
    binding: bool = True
    sense: Sense = ""
    n: int | None = None
    scale: float = 1.0

    @property
    def slack(self) -> float | None:
        """How far the deciding end is on the right side of the threshold; None without one."""
        end = self.high if self.sense.startswith("high") else self.low
        if end is None or self.threshold is None:
            return None
        return self.threshold - end if self.sense.startswith("high") else end - self.threshold

    @property
    def room(self) -> float | None:
        """The slack as a share of the range of what was measured; None without a slack."""
        return None if self.slack is None else self.slack / self.scale

    @property
    def cleared(self) -> bool | None:
        """Whether the interval clears the threshold; None where the check has no sense."""
        if not self.sense:
            return None
        slack = self.slack
        if slack is None or math.isnan(slack):
            return False
        return slack >= 0 if self.sense.endswith("=") else slack > 0


@dataclass(frozen=True)
class Verdict:
    """What `gate.judge` found, for this candidate, world, mode, suite, policy and incumbent.

    `report_digest` is the SHA-256 of `report.html`; `evidence` holds the SHA-256 of each file that
    the verdict rests on, by its name. `lease` is the hash of the ledger's event from which the
    gate's seeds were drawn; None where there was no ledger. `deviation` is the standard deviation
    of the candidate's primary returns, clipped, as a share of their range: a trial in service is
    planned with it. `promise` is the lower bound of their mean on the same scale: what the watch
    holds the champion to. None where nothing was played.
    """

    verdict: Outcome
    checks: tuple[Check, ...]
    bound_by: str
    summary: str
    candidate_digest: str
    env_fingerprint: str
    mode: str
    suite_version: str
    policy_digest: str
    incumbent_digest: str | None
    attempt: int
    report_digest: str = ""
    lease: str | None = None
    evidence: Mapping[str, str] = field(default_factory=dict)
    deviation: float | None = None
    promise: float | None = None

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `from_dict` is the inverse."""
        checks = [asdict(check) for check in self.checks]
        return asdict(self) | {"checks": checks, "evidence": dict(self.evidence)}

    def to_json(self) -> bytes:
        return canonical_json(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verdict:
        return cls(**{**data, "checks": tuple(Check(**check) for check in data["checks"])})

    @classmethod
    def from_json(cls, text: bytes | str) -> Verdict:
        return cls.from_dict(json.loads(text))


def decide(checks: Sequence[Check]) -> tuple[Outcome, Check]:
    """The outcome of all checks, and the check that decided it.

    Of several checks with the worst outcome the first binds; if all passed, the one with the least
    room. No binding check at all is an error, never a pass.
    """
    binding = [check for check in checks if check.binding]
    if not binding:
        nothing = Check("suite", "error", "no check was made, so it cannot pass")
        return "error", nothing
    worst = min((check.outcome for check in binding), key=PRECEDENCE.index)
    bound = [check for check in binding if check.outcome == worst]
    if worst == "passed":
        bound.sort(key=lambda check: float("inf") if check.room is None else check.room)
    return worst, bound[0]


def summarise(outcome: Outcome, bound: Check) -> str:
    """The verdict in one line."""
    if outcome == "passed":
        return f"PASSED; the closest check was {bound.name}: {bound.reason}"
    return f"{outcome.upper()} by {bound.name}: {bound.reason}"


def contradiction(verdict: Mapping[str, Any]) -> str | None:
    """Why a verdict, as plain data, does not follow from its own checks; None where it does.

    Asked by whoever takes a verdict from outside: it never raises, whatever it is given.
    """
    try:
        checks = [_read(check) for check in verdict["checks"]]
        claimed, named = verdict["verdict"], verdict["bound_by"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return f"it is not a verdict with checks: {str(error)[:_QUOTED]}"
    for check in checks:
        if problem := _contradicts(check):
            return problem
    outcome, bound = decide(checks)
    if claimed != outcome:
        return f"it says {claimed!r}, but its checks give {outcome!r} ({bound.name})"
    if named != bound.name:
        return f"it says that {named!r} decided it, but by its checks {bound.name!r} did"
    names = [check.name for check in checks]
    twice = sorted({name for name in names if names.count(name) > 1})
    return f"check {twice[0]!r} appears twice" if twice else None


def _read(data: Any) -> Check:
    known = {f.name for f in fields(Check)}
    if not isinstance(data, Mapping) or not set(data) <= known:
        raise ValueError(f"not a check: {data!r}")
    check = Check(**data)
    if check.outcome not in PRECEDENCE or not isinstance(check.binding, bool):
        raise ValueError(f"not an outcome: {data!r}")
    if check.sense not in get_args(Sense) or not isinstance(check.name, str):
        raise ValueError(f"not a sense, or not a name: {data!r}")
    given = (check.value, check.threshold, check.low, check.high)
    numbers = [check.scale, *(v for v in given if v is not None)]
    if not all(isinstance(v, int | float) for v in numbers):
        raise ValueError(f"not numbers: {data!r}")
    finite = [math.isfinite(v) for v in numbers]  # raises for an int beyond all floats
    if not (finite[0] and check.scale > 0):
        raise ValueError(f"not a width: {data!r}")
    return check


def _contradicts(check: Check) -> str | None:
    """A pass whose bound does not clear its threshold, or whose interval is none."""
    low, high = check.low, check.high
    if low is not None and high is not None and not low <= high:
        return f"check {check.name!r} has the interval [{low}, {high}], which is empty"
    if check.outcome == "passed" and check.cleared is False:
        return (
            f"check {check.name!r} says passed, but its interval [{low}, {high}] does not clear "
            f"{check.threshold} ({check.sense})"
        )
    return None
