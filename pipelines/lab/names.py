"""The experiments' names, without importing what they need."""

from __future__ import annotations

import difflib

from srghn.errors import ConfigError

EXPERIMENTS = (
    "cartpole-switch",
    "many-switches",
    "never-return",
    "start-rate",
    "functions-2d",
    "ablation",
)


def check_experiment(name: str) -> None:
    """Raise `ConfigError` naming the experiments there are, and the nearest to what was asked."""
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"there is no experiment {name!r}; {hint}known: {', '.join(EXPERIMENTS)}")
