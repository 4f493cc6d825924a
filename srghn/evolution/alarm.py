"""Detects a sharp drop of fitness, with hysteresis: a sign that the environment has changed.

A run is not told that its environment has changed, and fitness has no unit of its own. So the alarm
is raised when a generation's best is worse than the upper quartile of the one before, and further
below its usual level than eight times what it usually moves in a generation. It ends when the best
is back within a twentieth of the depth: ended sooner, it left the last and hardest part of a
recovery to the small steps of a population at rest.

Where fitness has no noise and has long stood still, its usual movement is zero, and a small drop
counts as a sharp one: the only lower bound is a millionth of the level, which covers rounding. If
such alarms harm, set `evolution.memory` and `evolution.newcomers` to 0.

Not in the paper.

A share of the way to the lowest fitness so far, which this rule replaced, misses changes where a
few episodes go very badly: on LunarLander founders crash at -750, and a generation's best in
another world is at -100. The median of the generation before, which the quartile replaced, can be
as low where most children fail, as they do where they are raced or survive without their parents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from srghn.evolution.base import F64

#: How many usual movements below the level the alarm is raised, and the share of the depth within
#: which it ends.
UNUSUAL, OVER = 8.0, 0.05
#: Share of the level below it that is rounding, not a drop.
ROUNDING = 1e-6
#: Which part of a generation a best must be worse than.
QUARTILE = 0.75
#: Share of its distance to a worse best by which the level sinks in a generation: at rest, and
#: during an alarm, which so ends where the old level is out of reach, unless the best stays lowest.
AT_REST, IN_ALARM = 0.2, 0.01
#: Weight of the last movement in the usual one.
RECENT = 0.1


@dataclass(frozen=True)
class Alarm:
    """Whether fitness has dropped.

    level  the usual best fitness of a generation; minus infinity before the first
    low    the last generation's upper quartile, of those that did not crash; in an alarm the lowest
           best since it was raised
    last   the last generation's best
    usual  how far the best usually moves in a generation; at first its distance from the median
    on     whether the alarm is raised
    """

    level: float = -math.inf
    low: float = -math.inf
    last: float = -math.inf
    usual: float = 0.0
    on: bool = False

    def after(self, fitness: F64) -> Alarm:
        """The alarm after a generation with this fitness (n,); one without any changes nothing."""
        known = fitness[np.isfinite(fitness)]  # who crashed says nothing about the others
        if not len(known):
            return self
        best, upper = float(known.max()), float(np.quantile(known, QUARTILE))
        if not math.isfinite(self.level):
            return Alarm(best, upper, best, best - float(np.median(known)))
        usual = self.usual + RECENT * (abs(best - self.last) - self.usual)
        if self.on:
            low = min(self.low, best)
            if best < self.level - OVER * (self.level - low):
                return Alarm(self._sunk(best, IN_ALARM), low, best, usual, on=True)
        elif best < self.low and self.level - best > max(
            UNUSUAL * self.usual, ROUNDING * abs(self.level)
        ):
            return Alarm(self.level, best, best, self.usual, on=True)
        return Alarm(self._sunk(best, AT_REST), upper, best, usual)

    def _sunk(self, best: float, share: float) -> float:
        return max(best, self.level + share * (best - self.level))
