"""A run of seconds that many tests share: CartPole with a switch, and a network of two units."""

from __future__ import annotations

from typing import Any


def tiny_params(**evolution: Any) -> dict[str, Any]:
    """Sections of its parameters; keyword arguments replace those of `evolution`."""
    return {
        "env": {"schedule": [{"generation": 4, "mode": "flipped"}]},
        "policy": {"kwargs": {"hidden": [2]}},
        "ghn": {"hidden": 4, "rounds": 2, "basis_width": 4},
        "evolution": {
            "generations": 7,
            "parents": 2,
            "children": 2,
            "episodes": 2,
            "checkpoint_every": 2,
            "seed": 3,
            **evolution,
        },
    }
