# mypy: ignore-errors
# Runs in the environments of the peers; the standard library, Gymnasium and NumPy alone.
"""The shared part of the peers' programs: the clock, the test on fresh episodes, the result."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np


def spec():
    """The task: env, bar, seed, limit (CPU-seconds), episodes, and each peer's settings."""
    return json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


#: A test whose first episodes are on average further below the bar than this share of it is lost:
#: ours, too.
FIRST, FAR = 10, 0.1


class Watch:
    """A clock of CPU-seconds that leaves out its own tests."""

    def __init__(self, spec):
        self.spec, self.begun = spec, time.process_time()
        self.solved, self.score = False, float("nan")

    @property
    def spent(self):
        return time.process_time() - self.begun

    @property
    def over(self):
        return self.solved or self.spent >= self.spec["limit"]

    def test(self, act, steps):
        """Whether `act` (observation -> action) reaches the bar over fresh episodes, in time.

        The score is the mean of those played: of the first ones alone if these are far below it.
        """
        if self.over:
            return
        before, env, returns = time.process_time(), gym.make(self.spec["env"]), []
        bar, fresh = self.spec["bar"], np.random.default_rng([self.spec["seed"], steps])
        for k, seed in enumerate(fresh.integers(2**31, size=self.spec["episodes"])):
            if k == FIRST and np.mean(returns) < bar - FAR * abs(bar):
                break
            (row, _), total, over = env.reset(seed=int(seed)), 0.0, False
            while not over:
                row, reward, ended, cut, _ = env.step(act(row))
                total, over = total + float(reward), ended or cut
            returns.append(total)
        self.score = float(np.mean(returns))
        self.solved = len(returns) == self.spec["episodes"] and self.score >= bar
        self.begun += time.process_time() - before

    def tell(self, steps):
        found = {"solved": bool(self.solved), "cpu_seconds": self.spent}
        found |= {"steps": int(steps), "score": self.score}
        sys.stdout.write(json.dumps(found) + "\n")
