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


#: A test whose first episodes are on average further below the bar than this share of it is lost.
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
        """Whether `act` (observation -> action) reaches the bar over fresh episodes.

        The score is the mean of those played: of the first ones alone if these are far below it.
        """
        before, env, returns = time.process_time(), gym.make(self.spec["env"]), []
        bar = self.spec["bar"]
        for k in range(self.spec["episodes"]):
            if k == FIRST and np.mean(returns) < bar - FAR * abs(bar):
                break
            seed = 10**6 * (self.spec["seed"] + 1) + steps + k
            (row, _), total, over = env.reset(seed=seed % 2**31), 0.0, False
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
