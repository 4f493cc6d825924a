"""Detects a sharp drop of fitness, with hysteresis: a sign that the environment has changed.

A run is not told that its environment has changed. Level and depth are those of its own fitness, so
the rule has no unit: the alarm is raised when a generation's best falls by more than half of the
way from the usual level to the lowest upper quartile so far. It ends when the best is back within a
twentieth of it: ended sooner, it left the last and hardest part of a recovery to the small steps of
a population at rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from srghn.evolution.base import F64

#: Shares of the way from level to low at which the alarm is raised, and at which it ends.
RAISED, OVER = 0.5, 0.05
#: Share of its distance to a worse best by which the level sinks in a generation: at rest, and
#: during an alarm, which so ends in a world where the old level cannot be reached.
AT_REST, IN_ALARM = 0.2, 0.01


@dataclass(frozen=True)
class Alarm:
    """Whether fitness has dropped.

    level  the usual best fitness of a generation; minus infinity before the first
    low    the lowest upper quartile of a generation so far
    on     whether the alarm is raised
    """

    level: float = -math.inf
    low: float = math.inf
    on: bool = False

    def after(self, fitness: F64) -> Alarm:
        """The alarm after a generation with this fitness (n,); one without any changes nothing."""
        ordered = np.sort(fitness)[::-1]
        best, quarter = float(ordered[0]), float(ordered[len(ordered) // 4])
        if not math.isfinite(best):
            return self
        low = min(self.low, quarter) if math.isfinite(quarter) else min(self.low, best)
        if not math.isfinite(self.level):
            return Alarm(best, low)
        on = best < self.level - (OVER if self.on else RAISED) * (self.level - low)
        return Alarm(self._sunk(best, on), low, on)

    def _sunk(self, best: float, on: bool) -> float:
        if on and not self.on:
            return self.level
        share = IN_ALARM if on else AT_REST
        return max(best, self.level + share * (best - self.level))
