"""The generic backend: the same episodes as Gymnasium alone, whoever else plays."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from srghn.config import EnvParams, NetworkParams
from srghn.envs import EnvVersion, pin
from srghn.envs.perturb import parse
from srghn.errors import ConfigError, EvaluationError
from srghn.evaluation.backends.gymnasium import LANES, GymnasiumBackend
from srghn.evaluation.base import Evaluation, Float32, WeightedPolicies
from srghn.evaluation.policies import forward
from srghn.evaluation.policies.mapped import mapped_modules
from srghn.evaluation.task import Task
from srghn.policies import build_policy

MLP = NetworkParams(module="srghn.policies:MLP", kwargs={"hidden": [8]})
POLICIES = {
    "mlp-tanh": MLP,
    "mlp-silu": NetworkParams(module=MLP.module, kwargs={"hidden": [7, 5], "activation": "silu"}),
    "mlp-sigmoid": NetworkParams(
        module=MLP.module, kwargs={"hidden": [9], "activation": "sigmoid"}
    ),
    "mlp-relu": NetworkParams(module=MLP.module, kwargs={"hidden": [33], "activation": "relu"}),
    "mlp-gelu": NetworkParams(module=MLP.module, kwargs={"hidden": [8], "activation": "gelu"}),
    "residual": NetworkParams(module="srghn.policies:ResidualMLP", kwargs={"width": 8}),
}


@pytest.fixture(autouse=True)
def worlds_by_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.fixture(scope="module")
def cartpole() -> EnvVersion:
    return pin(EnvParams(id="CartPoleSwitch-v1"))


def population(
    network: NetworkParams, version: EnvVersion, size: int, scale: float = 1.0
) -> WeightedPolicies:
    face = version.interface
    module = build_policy(network, face.observation_size, face.action_size)
    count = sum(p.numel() for p in module.parameters())
    weights = np.random.default_rng(3).standard_normal((size, count)) * scale
    return WeightedPolicies(network, face, weights.astype(np.float32))


def play(
    policies: WeightedPolicies, version: EnvVersion, seeds: list[int], mode: str = "normal"
) -> Evaluation:
    with GymnasiumBackend(version, policies.network) as backend:
        return backend.evaluate(policies, Task(version, mode, np.array(seeds)))


def alone(
    policies: WeightedPolicies, version: EnvVersion, individual: int, seed: int, mode: str
) -> tuple[float, int]:
    """One episode with torch, one environment and nothing else."""
    face = version.interface
    module = build_policy(policies.network, face.observation_size, face.action_size)
    flat = torch.from_numpy(policies.dense()[individual])
    torch.nn.utils.vector_to_parameters(flat, module.parameters())
    env = version.make(mode)
    observation, _ = env.reset(seed=seed)
    total, steps, over = 0.0, 0, False
    while not over:
        with torch.no_grad():
            outputs = module(torch.from_numpy(observation[None])).numpy()
        action = face.decode(outputs)[0]
        observation, reward, terminated, truncated, _ = env.step(action)
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
    return total, steps


@pytest.mark.parametrize("mode", ["normal", "flipped"])
@pytest.mark.parametrize("name", POLICIES)
def test_plays_the_episodes_that_gymnasium_and_torch_play(
    name: str, mode: str, cartpole: EnvVersion
) -> None:
    policies = population(POLICIES[name], cartpole, 3)
    found = play(policies, cartpole, [11, 12], mode)
    for i in range(3):
        for j, seed in enumerate((11, 12)):
            total, steps = alone(policies, cartpole, i, seed, mode)
            assert (found.returns[i, j], found.lengths[i, j]) == (total, steps)
    assert found.steps == found.lengths.sum()
    assert found.returns.dtype == np.float64
    assert found.lengths.dtype == np.int64


@pytest.mark.parametrize("name", POLICIES)
def test_result_is_the_same_bytes_in_any_company(name: str) -> None:
    """A continuous world: one bit in one action changes the return."""
    version = pin(EnvParams(id="Pendulum-v1", kwargs={"max_episode_steps": 25}))
    policies = population(POLICIES[name], version, 40, scale=0.3)
    whole = play(policies, version, [5, 6, 7, 8])
    assert len(np.unique(whole.returns)) > 100
    chosen, seeds = np.array([33, 2, 17]), [8, 6]
    few = WeightedPolicies(policies.network, policies.interface, policies.take(chosen))
    part = play(few, version, seeds)
    assert part.returns.tobytes() == whole.returns[np.ix_(chosen, [3, 1])].tobytes()
    for episode in (0, 1):
        single = play(
            WeightedPolicies(few.network, few.interface, few.take(np.array([episode]))),
            version,
            [6],
        )
        assert single.returns[0, 0] == part.returns[episode, 1]


def test_module_that_cannot_be_mapped_is_played_lane_by_lane(
    cartpole: EnvVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = population(POLICIES["residual"], cartpole, 2)
    mapped = play(policies, cartpole, [1, 2])
    for module in mapped_modules(policies.network.model_dump_json(), policies.interface, LANES):
        monkeypatch.setattr(module, "_call", None)
    np.testing.assert_array_equal(play(policies, cartpole, [1, 2]).returns, mapped.returns)


def test_functions_play_like_the_weights_they_hold(cartpole: EnvVersion) -> None:
    policies = population(MLP, cartpole, 2, scale=3.0)
    shapes: set[tuple[int, ...]] = set()

    def function(individual: int) -> forward.PolicyFunction:
        flat = policies.dense()[individual]
        w1, b1 = flat[:32].reshape(8, 4), flat[32:40]
        w2, b2 = flat[40:56].reshape(2, 8), flat[56:]

        def act(observations: Float32) -> NDArray[np.int64]:
            shapes.add(observations.shape)
            return (np.tanh(observations @ w1.T + b1) @ w2.T + b2).argmax(axis=1)

        return act

    backend = GymnasiumBackend(cartpole, MLP)
    seeds = np.arange(70)
    found = backend.evaluate([function(0), function(1)], Task(cartpole, "normal", seeds))
    expected = backend.evaluate(policies, Task(cartpole, "normal", seeds))
    np.testing.assert_array_equal(found.returns, expected.returns)
    assert shapes == {(forward.BLOCK, 4)}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda o: np.zeros((len(o), 2)), "shape"),
        (lambda o: np.full(len(o), np.nan), "NaN"),
        (lambda o: np.full(len(o), 2), "must be of"),
        (lambda o: np.full(len(o), -1), "must be of"),
        (lambda o: np.full(len(o), 0.7), "whole numbers"),
        (lambda o: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_broken_function_loses_its_own_episodes(
    cartpole: EnvVersion, answer: forward.PolicyFunction, message: str
) -> None:
    def right(observations: Float32) -> NDArray[np.int64]:
        return np.ones(len(observations), dtype=np.int64)

    backend = GymnasiumBackend(cartpole, MLP)
    found = backend.evaluate([right, answer], Task(cartpole, "normal", np.arange(3)))
    assert np.isfinite(found.returns[0]).all()
    assert np.isneginf(found.returns[1]).all()
    assert [c.individual for c in found.crashes] == [1, 1, 1]
    assert message in found.crashes[0].message
    assert (found.lengths[1] == 0).all()


@pytest.mark.parametrize(
    ("way", "message", "step"),
    [
        ("raise", "gears jammed", 3),
        ("reset", "no start", 0),
        ("observation", "NaN", 3),
        ("start", "NaN", 0),
        ("reward", "nan", 3),
        ("complex", "TypeError", 3),
        ("ends", "ValueError", 3),
        ("exit", "SystemExit: 7", 3),
    ],
)
def test_crash_costs_its_episode_and_no_other(way: str, message: str, step: int) -> None:
    breaks = pin(EnvParams(id="broken_worlds:Counter", kwargs={"max_episode_steps": 50}))
    breaking = EnvVersion.from_json(breaks.to_json())
    object.__setattr__(breaking, "id", "broken_worlds:Breaks")
    object.__setattr__(breaking, "kwargs", {"way": way, "max_episode_steps": 50})
    policies = population(MLP, breaks, 5)
    seeds = list(range(40))
    fine, found = play(policies, breaks, seeds), play(policies, breaking, seeds)
    lost = fine.lengths == 9
    assert lost.any()
    assert not lost.all()
    assert np.isneginf(found.returns[lost]).all()
    np.testing.assert_array_equal(found.returns[~lost], fine.returns[~lost])
    assert (found.lengths[lost] == step).all()
    assert found.steps == found.lengths.sum()
    assert len(found.crashes) == lost.sum()
    assert {(c.individual, c.seed) for c in found.crashes} == {
        (i, seeds[j]) for i, j in np.argwhere(lost)
    }
    assert all(message in c.message and c.step == step for c in found.crashes)


def interrupted() -> None:
    """As where Ctrl-C lands while numba passes arguments."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise SystemError("returned a result with an exception set") from error


class Compiled(gym.Env[Any, Any]):
    """Calls compiled code, in which it is interrupted at one `place`, or broken at its step."""

    observation_space = spaces.Box(-1, 1, (4,), np.float32)
    action_space: gym.Space[Any] = spaces.Discrete(2)
    place = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self.place == "reset":
            interrupted()
        return np.zeros(4, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        if self.place == "step":
            interrupted()
        if self.place in ("broken", "close"):
            raise SystemError("a bug of numba's")
        return np.zeros(4, dtype=np.float32), 1.0, False, False, {}

    def close(self) -> None:
        if self.place == "close":
            interrupted()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> EnvVersion:
    module = ModuleType("compiled_worlds")
    vars(module).update(Compiled=Compiled)
    monkeypatch.setitem(sys.modules, "compiled_worlds", module)
    return pin(EnvParams(id="compiled_worlds:Compiled", max_episode_steps=5))


@pytest.mark.parametrize("place", ["reset", "step", "close", "policy", "linear"])
def test_ctrl_c_in_compiled_code_is_no_crash(
    place: str, compiled: EnvVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies: Any = population(MLP, compiled, 1)
    if place == "policy":
        policies = [lambda rows: interrupted()]
    if place == "linear":
        where = "srghn.evaluation.policies.linear.linear"
        monkeypatch.setattr(where, lambda *_: interrupted())
    monkeypatch.setattr(Compiled, "place", place)
    with pytest.raises(KeyboardInterrupt):
        GymnasiumBackend(compiled, MLP).evaluate(policies, Task(compiled, "normal", np.arange(3)))


def test_an_error_of_compiled_code_is_a_crash(
    compiled: EnvVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Compiled, "place", "broken")
    found = play(population(MLP, compiled, 1), compiled, [1, 2])
    assert [c.message for c in found.crashes] == ["SystemError: a bug of numba's"] * 2


def test_nan_weights_lose_every_episode_of_that_individual_only(cartpole: EnvVersion) -> None:
    policies = population(MLP, cartpole, 3)
    weights = policies.dense()
    weights[1, 7] = np.nan
    found = play(WeightedPolicies(MLP, cartpole.interface, weights), cartpole, [1, 2])
    assert np.isneginf(found.returns[1]).all()
    np.testing.assert_array_equal(
        found.returns[[0, 2]], play(policies, cartpole, [1, 2]).returns[[0, 2]]
    )
    assert found.crashes[0].message == "the policy's output is NaN"
    assert (found.lengths[1] == 0).all()


def test_more_episodes_than_lanes_and_progress_to_the_end() -> None:
    version = pin(EnvParams(id="broken_worlds:Counter", kwargs={"max_episode_steps": 50}))
    seen: list[tuple[int, int]] = []
    backend = GymnasiumBackend(version, MLP)
    policies = population(MLP, version, 7)
    seeds = np.arange(50)
    found = backend.evaluate(
        policies, Task(version, "normal", seeds), lambda *now: seen.append(now)
    )
    assert found.returns.size > 2 * LANES
    assert [done for done, _ in seen] == list(range(1, 351))
    assert seen[-1] == (350, 350)
    np.testing.assert_array_equal(found.returns, np.tile(found.returns[0], (7, 1)))
    np.testing.assert_array_equal(found.returns, found.lengths)
    assert set(found.returns[0]) <= set(range(5, 15))


@pytest.mark.parametrize("world", ["Mixed", "Matrix"])
def test_other_spaces_are_played(world: str) -> None:
    version = pin(EnvParams(id=f"broken_worlds:{world}", kwargs={"max_episode_steps": 9}))
    found = play(population(MLP, version, 3), version, [1, 2])
    assert np.isfinite(found.returns).all()
    assert (found.lengths <= 9).all()


def test_modes_and_perturbations_open_their_own_worlds(cartpole: EnvVersion) -> None:
    policies = population(MLP, cartpole, 6, scale=3.0)
    backend = GymnasiumBackend(cartpole, MLP)
    seeds = np.arange(8)
    normal = backend.evaluate(policies, Task(cartpole, "normal", seeds))
    flipped = backend.evaluate(policies, Task(cartpole, "flipped", seeds))
    heavy = backend.evaluate(policies, Task(cartpole, "normal", seeds, parse("pole_length:2")))
    again = backend.evaluate(policies, Task(cartpole, "normal", seeds))
    assert not np.array_equal(normal.returns, flipped.returns)
    assert not np.array_equal(normal.returns, heavy.returns)
    np.testing.assert_array_equal(normal.returns, again.returns)
    with pytest.raises(ConfigError, match="modes"):
        backend.evaluate(policies, Task(cartpole, "sideways", seeds))


def test_misfits_are_refused(cartpole: EnvVersion) -> None:
    backend = GymnasiumBackend(cartpole, MLP)
    short = WeightedPolicies(MLP, cartpole.interface, np.zeros((2, 57), np.float32))
    with pytest.raises(EvaluationError, match=r"58 parameters.*57"):
        backend.evaluate(short, Task(cartpole, "normal", np.arange(2)))
    with pytest.raises(EvaluationError, match="seeds"):
        backend.evaluate(population(MLP, cartpole, 1), Task(cartpole, "normal", np.array([0.5])))
    other = population(MLP, pin(EnvParams(id="Pendulum-v1")), 1)
    with pytest.raises(EvaluationError, match="were made for interface"):
        backend.evaluate(other, Task(cartpole, "normal", np.arange(2)))
