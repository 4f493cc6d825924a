"""The worlds, the mean return from which each counts as solved, and all settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: srghn's settings, unless a goal overrides them.
_OURS: Mapping[str, Any] = {
    "network": {"kwargs": {"hidden": [16], "activation": "tanh"}},
    "ghn": {"rate_min": 0.03},
    "evolution": {"generations": 100_000, "parents": 16, "children": 7, "episodes": 8},
}


@dataclass(frozen=True)
class Goal:
    """`bar` is the mean return over fresh episodes; `ours` changes `_OURS`, section by section.

    `ppo` are Stable-Baselines3's published settings: those of RL Baselines3 Zoo,
    hyperparams/ppo.yml (an `lin_` value falls to 0 over `n_timesteps`).
    """

    env: str
    bar: float
    ours: Mapping[str, Mapping[str, Any]]
    ppo: Mapping[str, Any]

    @property
    def hidden(self) -> int:
        """Width of the hidden layer of peers whose network we choose; ours may have none."""
        layers = (
            self._section("network")["kwargs"]["hidden"] or _OURS["network"]["kwargs"]["hidden"]
        )
        return int(layers[0])

    @property
    def episodes(self) -> int:
        """Episodes of each individual and generation."""
        return int(self._section("evolution")["episodes"])

    def _section(self, name: str) -> dict[str, Any]:
        return {**_OURS[name], **self.ours.get(name, {})}

    def params(self, strategy: str, seed: int) -> dict[str, Any]:
        merged = {name: self._section(name) for name in _OURS}
        merged["evolution"] |= {"strategy": strategy, "seed": seed}
        return {"env": {"id": self.env, **self.ours.get("env", {})}, **merged}


GOALS = {
    goal.env: goal
    for goal in (
        Goal(
            "CartPole-v1",
            475.0,
            {"network": {"kwargs": {"hidden": [8], "activation": "tanh"}}, "evolution": {}},
            {
                "n_timesteps": 100_000, "n_envs": 8, "n_steps": 32, "batch_size": 256,
                "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "ent_coef": 0.0,
                "learning_rate": "lin_0.001", "clip_range": "lin_0.2",
            },
        ),
        Goal(
            "Acrobot-v1",
            -100.0,
            {
                "network": {"kwargs": {"hidden": [], "activation": "tanh"}},
                "evolution": {"parents": 4, "children": 4, "episodes": 2},
            },
            {
                "n_timesteps": 1_000_000, "n_envs": 16, "n_steps": 256, "gae_lambda": 0.94,
                "gamma": 0.99, "n_epochs": 4, "ent_coef": 0.0, "normalize": True,
            },
        ),
        Goal(
            "Pendulum-v1",
            -200.0,
            {
                "env": {"normalise": True},
                "ghn": {"rate_min": 0.03, "output_gain": 3.0},
                "evolution": {"parents": 4, "children": 7, "episodes": 3, "racing": 1},
            },
            {
                "n_timesteps": 100_000, "n_envs": 4, "n_steps": 1024, "gae_lambda": 0.95,
                "gamma": 0.9, "n_epochs": 10, "ent_coef": 0.0, "learning_rate": 0.001,
                "clip_range": 0.2, "use_sde": True, "sde_sample_freq": 4,
            },
        ),
        Goal(
            "MountainCarContinuous-v0",
            90.0,
            {
                "ghn": {"rate_min": 0.03, "output_gain": 3.0},
                "evolution": {"parents": 4, "children": 4, "episodes": 1},
            },
            {
                "n_timesteps": 20_000, "n_envs": 1, "n_steps": 8, "batch_size": 256,
                "gae_lambda": 0.9, "gamma": 0.9999, "n_epochs": 10, "ent_coef": 0.00429,
                "learning_rate": 7.77e-05, "clip_range": 0.1, "max_grad_norm": 5.0,
                "vf_coef": 0.19, "use_sde": True, "normalize": True,
                "policy_kwargs": {"log_std_init": -3.29, "ortho_init": False},
            },
        ),
        Goal(
            "LunarLander-v3",
            200.0,
            {
                "ghn": {"rate_min": 0.03, "hidden": 64},
                "evolution": {"selection": "comma"},
            },
            {
                "n_timesteps": 1_000_000, "n_envs": 16, "n_steps": 1024, "batch_size": 64,
                "gae_lambda": 0.98, "gamma": 0.999, "n_epochs": 4, "ent_coef": 0.01,
            },
        ),
        Goal(
            "BipedalWalker-v3",
            300.0,
            {
                "env": {"fresh": True},  # its Box2D world outlives an episode
                "ghn": {"rate_min": 0.03, "output_gain": 0.5},
                "evolution": {"parents": 8, "children": 7, "episodes": 1},
            },
            {
                "n_timesteps": 5_000_000, "n_envs": 32, "n_steps": 2048, "batch_size": 64,
                "gae_lambda": 0.95, "gamma": 0.999, "n_epochs": 10, "ent_coef": 0.0,
                "learning_rate": 0.0003, "clip_range": 0.18, "normalize": True,
            },
        ),
    )
}  # fmt: skip
