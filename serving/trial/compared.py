"""Counts of what copies of requests showed of a version that is tried, beside the champion."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Compared:
    """What copies of requests showed of one version beside the champion. Counts; they add up.

    `differed`: copies that both answered, with other actions. `errors`, `invalid`: only the version
    tried failed, or its action was none of the interface; `champion_errors`, `champion_invalid`:
    only the champion. `timed`: copies that both answered, in `seconds` and `champion_seconds`;
    `slower`: those on which it took longer than the guard allows.
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
        """Share of copies that both answered on which their actions differ."""
        return self.differed / self.timed if self.timed else None

    @property
    def latency_ratio(self) -> float | None:
        """Mean time to answer over the champion's."""
        return self.seconds / self.champion_seconds if self.champion_seconds else None

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "disagreement": self.disagreement,
            "latency_ratio": self.latency_ratio,
        }


NAMES = tuple(field.name for field in fields(Compared))
