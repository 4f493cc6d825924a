# mypy: ignore-errors
# Runs in the environment of the peer, whose packages are not here.
"""Stable-Baselines3's PPO until it has solved the goal: `python ppo.py SPEC.json`.

It prints one JSON object. It ends when solved, at the CPU limit, or at the published budget of
steps.
"""

from __future__ import annotations

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from watch import Watch, spec


def schedule(value):
    if isinstance(value, str):
        start = float(value.removeprefix("lin_"))
        return lambda left: left * start
    return value


#: The policy is tested this often in its budget of steps, without its exploration.
TESTS = 100


class Judge(BaseCallback):
    def __init__(self, watch, every):
        super().__init__()
        self.watch, self.every, self.next = watch, every, 0

    def _on_step(self):
        return not self.watch.over

    def _on_rollout_end(self):
        if self.num_timesteps >= self.next:
            self.test()

    def _on_training_end(self):
        if not self.watch.over:
            self.test()

    def test(self):
        self.next = self.num_timesteps + self.every
        self.watch.test(self._act, self.num_timesteps)

    def _act(self, row):
        normal = self.model.get_vec_normalize_env()
        seen = row if normal is None else normal.normalize_obs(row)
        return self.model.predict(seen, deterministic=True)[0]


def main():
    torch.set_num_threads(1)
    asked = spec()
    given = dict(asked["ppo"])
    steps, envs = given.pop("n_timesteps"), given.pop("n_envs")
    normalize = given.pop("normalize", False)
    for name in ("learning_rate", "clip_range"):
        if name in given:
            given[name] = schedule(given[name])
    worlds = make_vec_env(asked["env"], n_envs=envs, seed=asked["seed"])
    worlds = VecNormalize(worlds, gamma=given["gamma"]) if normalize else worlds
    model = PPO("MlpPolicy", worlds, seed=asked["seed"], device="cpu", **given)
    watch = Watch(asked)
    model.learn(steps, callback=Judge(watch, steps // TESTS))
    watch.tell(model.num_timesteps)


main()
