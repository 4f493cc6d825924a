"""The experiments' names, without their slow imports."""

from __future__ import annotations

import difflib

from srghn.errors import ConfigError

EXPERIMENTS = (
    "cartpole-switch",
    "cartpole-switch-300",
    "cartpole-switch-3000",
    "many-switches",
    "never-return",
    "lunarlander-switch",
    "many-switches-lunarlander",
    "never-return-lunarlander",
    "static",
    "static-cartpole",
    "static-lunarlander",
    "ant",
    "start-rate",
    "functions-2d",
    "hidden-sizes",
    "architectures",
    "ablation",
)


def check_experiment(name: str) -> None:
    """Raise `ConfigError`, with the known names and the nearest one, for an unknown name."""
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"there is no experiment {name!r}; {hint}known: {', '.join(EXPERIMENTS)}")
