"""What observations and actions mean in worlds that never return."""

from __future__ import annotations

import numpy as np
import pytest

from srghn.config import EnvParams, NetworkParams
from srghn.envs import EnvVersion, pin
from srghn.evaluation.backends.cartpole.compiled import CompiledCartPole
from srghn.evaluation.backends.cartpole.vectorised import VectorisedCartPole
from srghn.evaluation.backends.gymnasium import GymnasiumBackend
from srghn.evaluation.backends.lunar_lander.backend import LunarLanderBackend
from srghn.evaluation.base import WeightedPolicies, choose_backend
from srghn.evaluation.task import Task
from srghn.policies import build_policy
from srghn.seeding import seeds, stream


@pytest.fixture(scope="module")
def version() -> EnvVersion:
    return pin(EnvParams(id="CartPoleRewired-v1", kwargs={"series": 7}))


def seen(version: EnvVersion, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """The reset's observation, and that after action 0."""
    env = version.make(mode)
    first, _ = env.reset(seed=3)
    return first, env.step(0)[0]


def test_no_two_worlds_of_a_series_observe_alike(version: EnvVersion) -> None:
    rows = [seen(version, mode)[0] for mode in version.modes]
    assert len(version.modes) == 64
    assert len({row.tobytes() for row in rows}) == 64
    for row in rows:
        assert np.array_equal(np.sort(np.abs(row)), np.sort(np.abs(rows[0])))


def test_world_0_is_the_world_itself_and_other_series_are_other_worlds(
    version: EnvVersion,
) -> None:
    plain = pin(EnvParams(id="CartPole-v1"))
    other = pin(EnvParams(id="CartPoleRewired-v1", kwargs={"series": 8}))
    for mine, its in zip(seen(version, "0"), seen(plain, "normal"), strict=True):
        assert mine.tobytes() == its.tobytes()
    assert seen(other, "0")[0].tobytes() == seen(version, "0")[0].tobytes()
    assert any(seen(other, m)[0].tobytes() != seen(version, m)[0].tobytes() for m in ("1", "2"))


def test_some_worlds_turn_the_actions_round(version: EnvVersion) -> None:
    pushed = {bool(np.abs(np.subtract(*seen(version, m))).sum() > 0) for m in version.modes}
    assert pushed == {True}
    orders = {version.make(mode).get_wrapper_attr("order") for mode in version.modes}
    assert len(orders) == 2


def population(version: EnvVersion, hidden: int) -> WeightedPolicies:
    network = NetworkParams(kwargs={"hidden": [hidden], "activation": "tanh"})
    module = build_policy(
        network, version.interface.observation_size, version.interface.action_size
    )
    size = sum(p.numel() for p in module.parameters())
    weights = stream(1, "test").normal(size=(24, size)).astype(np.float32)
    return WeightedPolicies(network, version.interface, weights)


@pytest.mark.parametrize("mode", ["0", "1", "5", "63"])
def test_fast_backends_play_a_rewired_cartpole_as_gymnasium_does(
    version: EnvVersion, mode: str
) -> None:
    policies, episodes = population(version, 8), seeds(4, "test", 6)
    played = [
        backend(version, policies.network).evaluate(policies, Task(version, mode, episodes)).lengths
        for backend in (GymnasiumBackend, VectorisedCartPole, CompiledCartPole)
    ]
    assert np.array_equal(played[0], played[1])
    assert (played[0] == played[2]).mean() > 0.99
    assert len(np.unique(played[0])) > 5


def test_a_rewired_lander_is_played_by_the_compiled_one() -> None:
    version = pin(EnvParams(id="LunarLanderRewired-v3"))
    policies, episodes = population(version, 4), seeds(4, "test", 2)
    fast = LunarLanderBackend(version, policies.network)
    assert choose_backend(version, policies.network) == "lunar-lander"
    general = GymnasiumBackend(version, policies.network)
    for mode in ("0", "3"):
        task = Task(version, mode, episodes)
        mine, its = fast.evaluate(policies, task), general.evaluate(policies, task)
        assert np.array_equal(mine.returns, its.returns)
