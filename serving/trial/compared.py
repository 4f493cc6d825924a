"""Counts from copies of requests: a tried version compared with the champion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from serving.trial.rules import within_share


@dataclass(frozen=True)
class Compared:
    """Counts of copies that a tried version and the champion answered. They can be added.

    differed          copies that both answered, with different actions
    errors, invalid   copies on which only the tried version failed, or its action is invalid
    champion_errors, champion_invalid
                      the same for the champion alone
    timed             copies that both answered, in `seconds` and `champion_seconds` together
    slower            those of them on which the tried version took longer than the guard allows
    """

    copies: int = 0
    differed: int = 0
    errors: int = 0
    champion_errors: int = 0
    invalid: int = 0
    champion_invalid: int = 0
    timed: int = 0
    slower: int = 0
    seconds: float = 0.0
    champion_seconds: float = 0.0

    def __add__(self, other: Compared) -> Compared:
        mine, theirs = vars(self), vars(other)
        return Compared(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def disagreement(self) -> float | None:
        """Share of the copies answered by both on which their actions differ; None without any."""
        return self.differed / self.timed if self.timed else None

    @property
    def latency_ratio(self) -> float | None:
        """The tried version's mean time to answer divided by the champion's; None without any."""
        return self.seconds / self.champion_seconds if self.champion_seconds else None

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "disagreement": self.disagreement,
            "latency_ratio": self.latency_ratio,
        }


NAMES = tuple(field.name for field in fields(Compared))


@dataclass(frozen=True)
class Posted:
    """The counts of one copy, and the caller who sent the request; None: one without a token."""

    seen: Compared
    poster: str | None = None


#: Numbers of copies by kind and poster; "" are all without a token.
Given = Mapping[str, Mapping[str, int]]


def within_shares(copies: Iterable[Posted], given: Given, share: float) -> tuple[Compared, Given]:
    """The sum of the copies that are within their posters' shares, and the numbers after them.

    As with outcomes in a trial, no poster gives more than `share` of what decides a guard, of the
    copies before its own: neither of those on which one version alone failed, nor of those that
    both answered. So no caller's requests alone end a trial. The others are left out.

    Requests without a token may be one caller's or many callers'. They count as one poster's once
    1 / `share` tokens have sent requests. Before, they have no cap: a service whose clients need no
    token would have no guards.
    """
    total, after = Compared(), {kind: dict(given.get(kind, {})) for kind in ("failed", "timed")}
    sums = {kind: sum(counts.values()) for kind, counts in after.items()}
    tokens = {poster for counts in after.values() for poster in counts if poster}
    for one in copies:
        seen, poster = one.seen, one.poster or ""
        failed = seen.errors + seen.champion_errors + seen.invalid + seen.champion_invalid
        added = {kind: n for kind, n in (("failed", failed), ("timed", seen.timed)) if n}
        counted = (within_share(after[kind].get(poster, 0), sums[kind], share) for kind in added)
        tokens |= {poster} - {""}
        if (poster or share * len(tokens) >= 1) and not all(counted):
            continue
        for kind, count in added.items():
            after[kind][poster] = after[kind].get(poster, 0) + count
            sums[kind] += count
        total += seen
    return total, after
