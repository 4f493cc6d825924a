# mypy: ignore-errors
"""pycma with a plain Gymnasium loop until it has solved the goal: `python pycma.py SPEC.json`.

It is written as its users write it: the defaults of `cma.CMAEvolutionStrategy`, a policy in NumPy
with one hidden layer of tanh, a few episodes each. The mean of the search is tested in each
generation whose best individual reaches the bar.
"""

from __future__ import annotations

import cma
import gymnasium as gym
import numpy as np
from watch import Watch, spec

SIGMA = 0.5


class Policy:
    """observation -> action for a flat vector of weights; continuous actions are clipped."""

    def __init__(self, env, width):
        self.space, n = env.action_space, env.observation_space.shape[0]
        self.discrete = isinstance(self.space, gym.spaces.Discrete)
        outputs = int(self.space.n) if self.discrete else self.space.shape[0]
        self.shapes = ((n, width), (width,), (width, outputs), (outputs,))
        self.size = sum(int(np.prod(shape)) for shape in self.shapes)

    def of(self, weights):
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = np.split(np.asarray(weights), ends)
        w1, b1, w2, b2 = (p.reshape(s) for p, s in zip(parts, self.shapes, strict=True))

        def act(row):
            outputs = np.tanh(row @ w1 + b1) @ w2 + b2
            if self.discrete:
                return int(outputs.argmax())
            return np.clip(outputs, self.space.low, self.space.high).astype(self.space.dtype)

        return act


def play(env, act, seeds):
    """The mean return and the number of steps."""
    total, steps = 0.0, 0
    for seed in seeds:
        (row, _), over = env.reset(seed=int(seed)), False
        while not over:
            row, reward, ended, cut, _ = env.step(act(row))
            total, steps, over = total + float(reward), steps + 1, ended or cut
    return total / len(seeds), steps


def main():
    asked = spec()
    env = gym.make(asked["env"])
    policy, rng = Policy(env, asked["hidden"]), np.random.default_rng(asked["seed"])
    options = {"seed": asked["seed"] + 1, "verbose": -9}
    es = cma.CMAEvolutionStrategy(np.zeros(policy.size), SIGMA, options)
    watch, steps = Watch(asked), 0
    while not watch.over:
        points, scores = es.ask(), []
        seeds = rng.integers(2**31, size=asked["per"])
        for point in points:
            score, played = play(env, policy.of(point), seeds)
            scores.append(score)
            steps += played
        es.tell(points, [-score for score in scores])
        if max(scores) >= asked["bar"]:
            watch.test(policy.of(es.mean), steps)
    watch.tell(steps)


main()
