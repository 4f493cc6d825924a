"""Environments from outside the project, for `make worlds`: as a new user would name them."""

from __future__ import annotations

from typing import Any

IMAGE = "minigrid.wrappers:ImgObsWrapper"
WEIGHTS = {"path": "srghn.envs.wrappers:WeightedReward", "kwargs": {"weights": [1.0, 0.1]}}
#: Parameters of `env`; the first group comes with Gymnasium, the second from other packages.
TAKEN: list[dict[str, Any]] = [
    {"id": "Acrobot-v1", "max_episode_steps": 60},
    {"id": "MountainCar-v0", "normalise": True, "max_episode_steps": 60},
    {"id": "MountainCarContinuous-v0", "max_episode_steps": 60},
    {"id": "Pendulum-v1", "max_episode_steps": 60},
    {"id": "FrozenLake-v1", "max_episode_steps": 40},
    {"id": "Taxi-v4", "max_episode_steps": 40},
    {"id": "CliffWalking-v1", "window": 40},
    {"id": "Blackjack-v1", "max_episode_steps": 20},
    {"id": "BipedalWalker-v3", "fresh": True, "max_episode_steps": 60},
    {"id": "HalfCheetah-v5", "max_episode_steps": 60, "normalise": True},
    {"id": "Hopper-v5", "max_episode_steps": 60},
    {"id": "Reacher-v5"},
    {"id": "InvertedDoublePendulum-v5", "max_episode_steps": 60},
    {"id": "minigrid:MiniGrid-Empty-5x5-v0", "wrappers": [IMAGE], "max_episode_steps": 40},
    {"id": "minigrid:MiniGrid-DoorKey-5x5-v0", "wrappers": [IMAGE], "max_episode_steps": 40},
    {"id": "highway_env:parking-v0", "max_episode_steps": 20},
    {"id": "gymnasium_robotics:AntMaze_UMaze-v5", "max_episode_steps": 30},
    {"id": "gymnasium_robotics:PointMaze_UMaze-v3", "max_episode_steps": 30},
    {"id": "ale_py:ALE/Breakout-v5", "kwargs": {"obs_type": "ram"}, "max_episode_steps": 60},
    {"id": "mo_gymnasium:deep-sea-treasure-v0", "wrappers": [WEIGHTS], "max_episode_steps": 40},
    {
        "id": "flappy_bird_gymnasium:FlappyBird-v0",
        "kwargs": {"use_lidar": False},
        "max_episode_steps": 60,
    },
    {"id": "popgym:popgym-PositionOnlyCartPoleEasy-v0", "max_episode_steps": 60},
]
#: Id -> (parameters of `env`, what the refusal must say).
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a custom space": (
        {"id": "minigrid:MiniGrid-Empty-5x5-v0", "max_episode_steps": 40},
        "MissionSpace at mission",
    ),
    "a vector of rewards": (
        {"id": "mo_gymnasium:deep-sea-treasure-v0", "max_episode_steps": 40},
        "WeightedReward",
    ),
}
