"""Ant-v5 stepped by MuJoCo directly, against Gymnasium's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from srghn.config import EnvParams, NetworkParams
from srghn.envs import Perturbation, pin
from srghn.evaluation.backends.ant import AntBackend
from srghn.evaluation.base import WeightedPolicies, choose_backend, make_backend
from srghn.evaluation.task import Task
from srghn.seeding import seeds, stream

mujoco = pytest.importorskip("mujoco")

POLICY = NetworkParams(kwargs={"hidden": [4], "activation": "tanh"})


@pytest.mark.parametrize(
    ("kwargs", "perturbation"),
    [
        ({}, None),
        ({}, Perturbation("gravity", 0.8)),
        ({}, Perturbation("action_drop", 0.5)),
        ({"frame_skip": 2, "exclude_current_positions_from_observation": False}, None),
        ({"include_cfrc_ext_in_observation": False, "terminate_when_unhealthy": False}, None),
    ],
)
def test_returns_are_gymnasiums(kwargs: dict[str, Any], perturbation: Perturbation | None) -> None:
    version = pin(EnvParams(id="Ant-v5", kwargs={"max_episode_steps": 40, **kwargs}))
    assert choose_backend(version, POLICY) == "ant"
    face, chosen = version.interface, seeds(3, "test", 2)
    size = 4 * (face.observation_size + 1) + 5 * face.action_size
    weights = stream(2, "test").normal(size=(4, size)).astype(np.float32)
    policies, seen = WeightedPolicies(POLICY, face, weights), []
    for name in ("ant", "gymnasium"):
        with make_backend(name, version, POLICY) as backend:
            seen.append(backend.evaluate(policies, Task(version, "normal", chosen, perturbation)))
    assert seen[0].returns.tobytes() == seen[1].returns.tobytes()
    assert seen[0].lengths.tobytes() == seen[1].lengths.tobytes()
    assert seen[0].steps == seen[1].steps
    assert len(np.unique(seen[0].returns)) == 8


def test_a_lane_that_begins_disturbs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """All lanes share one simulation, which a reset takes too."""
    version = pin(EnvParams(id="Ant-v5", kwargs={"max_episode_steps": 200}))
    face, chosen = version.interface, seeds(4, "test", 3)
    size = 4 * (face.observation_size + 1) + 5 * face.action_size
    weights = stream(3, "test").normal(size=(4, size)).astype(np.float32)
    policies = WeightedPolicies(POLICY, face, weights)
    with make_backend("gymnasium", version, POLICY) as backend:
        expected = backend.evaluate(policies, Task(version, "normal", chosen))
    assert len(np.unique(expected.lengths)) > 3
    monkeypatch.setattr("srghn.evaluation.backends.ant.LANES", 3)
    with make_backend("ant", version, POLICY) as backend:
        found = backend.evaluate(policies, Task(version, "normal", chosen))
    assert found.returns.tobytes() == expected.returns.tobytes()


def test_a_saved_state_is_all_that_a_step_depends_on() -> None:
    world = AntBackend.read(pin(EnvParams(id="Ant-v5")).make("normal"))
    assert world is not None
    ant, data = world.ant, world.data
    ant.reset(seed=3)
    row = np.zeros(mujoco.mj_stateSize(world.model, world.kept))
    touched = False
    for _ in range(60):
        world.save(world.model, data, row, world.kept)
        row[world.columns("CTRL")] = control = np.sin(row[1:9] * 50)
        assert row[world.columns("QPOS")].tobytes() == data.qpos.tobytes()
        assert row[world.columns("QVEL")].tobytes() == data.qvel.tobytes()
        other = mujoco.MjData(world.model)
        world.load(world.model, other, row, world.kept)
        assert other.ctrl.tobytes() == control.tobytes()
        data.ctrl[:] = control
        for simulation in (data, other):
            world.step(world.model, simulation, 5)
            world.finish(world.model, simulation)
        for name in ("qpos", "qvel", "cfrc_ext", "xpos", "qacc_warmstart"):
            assert getattr(data, name).tobytes() == getattr(other, name).tobytes()
        touched |= data.cfrc_ext.any()
    assert touched


def test_actions_that_are_not_numbers_crash_alone() -> None:
    version = pin(EnvParams(id="Ant-v5", kwargs={"max_episode_steps": 10}))
    face = version.interface
    weights = np.zeros((3, 4 * (face.observation_size + 1) + 5 * face.action_size), np.float32)
    weights[1] = np.nan
    policies = WeightedPolicies(POLICY, face, weights)
    with make_backend("ant", version, POLICY) as backend:
        result = backend.evaluate(policies, Task(version, "normal", seeds(3, "test", 2)))
    assert np.isneginf(result.fitness).tolist() == [False, True, False]
    assert [crash.individual for crash in result.crashes] == [1, 1]
