"""Checks, and the verdict they add up to: what bound it, and what would have changed it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from regression_suite.stats import Interval
from srghn.files import canonical_json

Outcome = Literal["passed", "failed", "inconclusive", "error"]
#: The worst outcome of a binding check decides. An error comes first: a check that did not finish
#: leaves nothing judged.
PRECEDENCE: tuple[Outcome, ...] = ("error", "failed", "inconclusive", "passed")


@dataclass(frozen=True)
class Check:
    """One question put to the candidate.

    `value` with its interval [low, high] was held against `threshold`, all in the unit of the
    check. `reason` says what was found, `remedy` what would have changed it. A check that is not
    `binding` is reported and decides nothing.
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

    @property
    def slack(self) -> float | None:
        """How far the interval's lower bound is above the threshold; None without an interval."""
        if self.low is None or self.threshold is None:
            return None
        return self.low - self.threshold


@dataclass(frozen=True)
class Verdict:
    """What `gate.judge` found, for this candidate, world, mode, suite, policy and incumbent.

    `report_digest` is the SHA-256 of `report.html`, which names the digest of `report.json`, which
    names the digest of `episodes.parquet`: one digest stands for all the evidence.
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

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `from_dict` is the inverse."""
        return asdict(self) | {"checks": [asdict(check) for check in self.checks]}

    def to_json(self) -> bytes:
        return canonical_json(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verdict:
        return cls(**{**data, "checks": tuple(Check(**check) for check in data["checks"])})

    @classmethod
    def from_json(cls, text: bytes | str) -> Verdict:
        return cls.from_dict(json.loads(text))


def decide(checks: Sequence[Check]) -> tuple[Outcome, Check]:
    """The outcome of all checks and the one that bound it.

    Of several checks with the worst outcome the first binds; if all passed, the one that passed by
    least. No binding check at all is an error, never a pass.
    """
    binding = [check for check in checks if check.binding]
    if not binding:
        nothing = Check("suite", "error", "no check was made, and nothing is not a pass")
        return "error", nothing
    worst = min((check.outcome for check in binding), key=PRECEDENCE.index)
    bound = [check for check in binding if check.outcome == worst]
    if worst == "passed":
        bound.sort(key=lambda check: float("inf") if check.slack is None else check.slack)
    return worst, bound[0]


def summarise(outcome: Outcome, bound: Check) -> str:
    """The verdict in one line."""
    if outcome == "passed":
        return f"PASSED; the closest check was {bound.name}: {bound.reason}"
    return f"{outcome.upper()} by {bound.name}: {bound.reason}"


def interval_check(
    name: str, outcome: Outcome, interval: Interval, threshold: float, reason: str, remedy: str = ""
) -> Check:
    """A check whose value is an estimate with its interval."""
    return Check(
        name=name,
        outcome=outcome,
        reason=reason,
        value=interval.value,
        threshold=threshold,
        low=interval.low,
        high=interval.high,
        remedy=remedy,
    )
