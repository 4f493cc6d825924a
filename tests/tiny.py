"""What many tests share: a run of seconds, CartPole with a switch and a network of two units."""

from __future__ import annotations

from typing import Any

import numpy as np

from srghn.evolution.metrics import GenerationRecord


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
            "memory": 0,  # as many individuals in each generation
            "newcomers": 0.0,
            **evolution,
        },
    }


def record_of(generation: int, returns: Any, rates: Any, **columns: Any) -> GenerationRecord:
    """A generation as if it had been played; individuals that are not described are all alike."""
    alike = np.zeros(len(returns), dtype=np.int64)
    described = {"ids": alike, "parents": alike, "noise_seeds": alike, "births": alike, **columns}
    return GenerationRecord(
        generation=generation,
        total=generation + 1,
        mode="normal",
        rates=rates,
        fitness=returns.mean(axis=1),
        returns=returns,
        diversity=0.5,
        crashes=0,
        first_crash="",
        evaluations=0,
        steps=0,
        **described,
    )
