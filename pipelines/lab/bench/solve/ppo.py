# mypy: ignore-errors
# Runs in the environment of the peer, whose packages are not here.
"""Stable-Baselines3's PPO until it has solved the goal: `python ppo.py SPEC.json`.

Prints one JSON object. It ends when solved, at the CPU limit, or at its published budget of steps.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize


def schedule(value):
    if isinstance(value, str):
        start = float(value.removeprefix("lin_"))
        return lambda left: left * start
    return value


class Judge(BaseCallback):
    def __init__(self, spec):
        super().__init__()
        self.spec, self.begun = spec, time.process_time()
        self.solved, self.score = False, float("nan")

    @property
    def spent(self):
        return time.process_time() - self.begun

    def _on_step(self):
        return self.spent < self.spec["limit"] and not self.solved

    def _on_rollout_end(self):
        last = [info["r"] for info in self.model.ep_info_buffer]
        if last and np.mean(last) >= self.spec["bar"]:
            before = time.process_time()
            self.score = self._test()
            self.solved = self.score >= self.spec["bar"]
            self.begun += time.process_time() - before

    def _test(self):
        env, returns = gym.make(self.spec["env"]), []
        normal = self.model.get_vec_normalize_env()
        for k in range(self.spec["episodes"]):
            seed = 10**6 * (self.spec["seed"] + 1) + self.num_timesteps + k
            (row, _), total, over = env.reset(seed=seed % 2**31), 0.0, False
            while not over:
                seen = row if normal is None else normal.normalize_obs(row)
                action, _ = self.model.predict(seen, deterministic=True)
                row, reward, ended, cut, _ = env.step(action)
                total, over = total + float(reward), ended or cut
            returns.append(total)
        return float(np.mean(returns))


def main():
    torch.set_num_threads(1)
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    given = dict(spec["ppo"])
    steps, envs = given.pop("n_timesteps"), given.pop("n_envs")
    normalize = given.pop("normalize", False)
    for name in ("learning_rate", "clip_range"):
        if name in given:
            given[name] = schedule(given[name])
    worlds = make_vec_env(spec["env"], n_envs=envs, seed=spec["seed"])
    worlds = VecNormalize(worlds, gamma=given["gamma"]) if normalize else worlds
    model = PPO("MlpPolicy", worlds, seed=spec["seed"], device="cpu", **given)
    judge = Judge(spec)
    model.learn(steps, callback=judge)
    found = {
        "solved": bool(judge.solved),
        "cpu_seconds": judge.spent,
        "steps": int(model.num_timesteps),
        "score": judge.score,
    }
    sys.stdout.write(json.dumps(found) + "\n")


main()
