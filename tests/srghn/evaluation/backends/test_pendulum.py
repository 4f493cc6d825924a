"""Pendulum-v1 stepped for all lanes at once, against Gymnasium's."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from srghn.config import EnvParams, NetworkParams
from srghn.envs import Perturbation, pin
from srghn.evaluation.backends import pendulum
from srghn.evaluation.base import (
    Evaluation,
    Policies,
    WeightedPolicies,
    choose_backend,
    make_backend,
)
from srghn.evaluation.task import Task
from srghn.seeding import seeds, stream
from tests.srghn.evaluation.alike import same

POLICY = NetworkParams(kwargs={"hidden": [4], "activation": "tanh"})


def _policies(params: EnvParams, individuals: int) -> tuple[WeightedPolicies, Task]:
    version = pin(params)
    weights = stream(2, "test").normal(size=(individuals, 21)).astype(np.float32) * np.float32(0.5)
    policies = WeightedPolicies(POLICY, version.interface, weights)
    return policies, Task(version, "normal", seeds(3, "test", 20))


def _played(name: str, policies: Policies, task: Task) -> Evaluation:
    with make_backend(name, task.version, POLICY) as backend:
        return backend.evaluate(policies, task)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("kwargs", [{}, {"g": 9.81, "max_episode_steps": 70}])
def test_returns_are_gymnasiums(normalise: bool, kwargs: dict[str, float]) -> None:
    policies, task = _policies(EnvParams(id="Pendulum-v1", kwargs=kwargs, normalise=normalise), 6)
    assert choose_backend(task.version, POLICY) == "pendulum"
    found = _played("pendulum", policies, task)
    assert same(found, _played("gymnasium", policies, task))
    assert len(np.unique(found.returns)) == 120
    assert (found.lengths == kwargs.get("max_episode_steps", 200)).all()


def test_policy_functions_and_torques_beyond_the_bounds() -> None:
    _, task = _policies(EnvParams(id="Pendulum-v1"), 1)

    def swing(observations: np.ndarray) -> np.ndarray:
        return np.float32(7) * observations[:, 2:]

    found = _played("pendulum", [swing], task)
    assert same(found, _played("gymnasium", [swing], task))


@pytest.mark.parametrize("kind", ["observation_noise", "action_delay"])
def test_a_perturbed_world_is_played_by_the_general_backend(kind: str) -> None:
    policies, task = _policies(EnvParams(id="Pendulum-v1"), 2)
    task = Task(task.version, "normal", task.seeds[:5], Perturbation(kind, 1))
    assert same(_played("pendulum", policies, task), _played("gymnasium", policies, task))


def test_what_is_no_plain_pendulum_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = pendulum.PendulumBackend.read
    env = gym.make("Pendulum-v1")
    assert read(env) is not None
    assert read(gym.wrappers.TransformReward(env, float)) is None
    assert read(gym.make("CartPole-v1")) is None
    assert read(env.unwrapped) is None, "nothing limits its episodes"
    monkeypatch.setattr(pendulum, "squares_as_numpy", lambda: False)
    assert read(env) is None


def test_squares_are_those_of_scalars() -> None:
    values = stream(5, "test").uniform(-np.pi, np.pi, 20_000)
    assert (values * values != pendulum.power(values, 2.0)).any(), "a product would do"
    for kind in (np.float64, np.float32):
        some = values.astype(kind)
        found = pendulum.power(some, 2.0)
        assert found.dtype == kind
        assert np.array_equal(found, np.array([value**2 for value in some]))


def test_actions_that_are_not_numbers_crash_alone() -> None:
    policies, task = _policies(EnvParams(id="Pendulum-v1"), 3)
    weights = policies.dense().copy()
    weights[1] = np.nan
    policies = WeightedPolicies(POLICY, task.version.interface, weights)
    found = _played("pendulum", policies, task)
    assert np.isneginf(found.fitness).tolist() == [False, True, False]
    assert {crash.individual for crash in found.crashes} == {1}
