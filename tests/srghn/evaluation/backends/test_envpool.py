"""Many pooled worlds at once against the same worlds one by one. Needs EnvPool, an extra."""

from __future__ import annotations

import numpy as np
import pytest

from srghn.config import EnvParams, NetworkParams
from srghn.envs import Perturbation, pin
from srghn.evaluation.base import WeightedPolicies, choose_backend, make_backend
from srghn.evaluation.task import Task
from srghn.seeding import seeds, stream

pytest.importorskip("envpool")

POLICY = NetworkParams(kwargs={"hidden": [4], "activation": "tanh"})


@pytest.mark.parametrize(
    ("world", "mode", "perturbation"),
    [
        ("CartPole-v1", "normal", None),
        ("LunarLander-v3", "normal", None),
        ("LunarLander-v3", "normal", Perturbation("action_drop", 0.3)),
        ("LunarLanderSwitch-v3", "reversed", None),
        ("Ant-v5", "normal", None),
    ],
)
def test_a_pool_plays_what_pools_of_one_play(
    world: str, mode: str, perturbation: Perturbation | None
) -> None:
    kwargs = {"max_episode_steps": 60}
    version = pin(EnvParams(id=world, backend="envpool", kwargs=kwargs))
    assert choose_backend(version, POLICY) == "envpool"
    face, chosen = version.interface, seeds(3, "test", 3)
    size = 4 * (face.observation_size + 1) + 5 * face.action_size
    weights = stream(2, "test").normal(size=(50, size)).astype(np.float32)
    policies, seen = WeightedPolicies(POLICY, face, weights), []
    for name in ("envpool", "gymnasium"):
        with make_backend(name, version, POLICY) as backend:
            seen.append(backend.evaluate(policies, Task(version, mode, chosen, perturbation)))
    assert seen[0].returns.tobytes() == seen[1].returns.tobytes()
    assert seen[0].lengths.tobytes() == seen[1].lengths.tobytes()
    assert len(np.unique(seen[0].returns)) > 5
