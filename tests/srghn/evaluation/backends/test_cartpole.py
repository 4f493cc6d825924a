"""The compiled CartPole against Gymnasium's, step by step."""

from __future__ import annotations

import contextlib
import gc
import signal

import gymnasium as gym
import numpy as np
import pytest
import torch

from srghn.config import EnvParams, NetworkParams
from srghn.envs import EnvVersion, Perturbation, pin
from srghn.errors import EvaluationError
from srghn.evaluation.backends.cartpole import compiled as cartpole
from srghn.evaluation.backends.cartpole.compiled import CompiledCartPole, mlp_widths
from srghn.evaluation.backends.cartpole.kernel import ACTIVATIONS, _activate, packing, play
from srghn.evaluation.backends.cartpole.world import World, start_states
from srghn.evaluation.base import WeightedPolicies, choose_backend, make_backend
from srghn.evaluation.task import Task
from srghn.policies import build_policy, make_activation
from srghn.seeding import seeds, stream

POLICY = NetworkParams(kwargs={"hidden": [8], "activation": "tanh"})


@pytest.fixture(scope="module")
def version() -> EnvVersion:
    return pin(EnvParams(id="CartPoleSwitch-v1"))


def population(version: EnvVersion, n: int, network: NetworkParams = POLICY) -> WeightedPolicies:
    """Random networks; every second one leans the right way, so that some episodes are long."""
    size = packing(mlp_widths(network, version.interface)).size
    weights = stream(3, "test", n).normal(size=(n, size)).astype(np.float32) * np.float32(0.3)
    if network.kwargs["hidden"] == [8]:
        lean = np.zeros(size, dtype=np.float32)
        lean[:4] = 0.1, 0.4, 1.5, 1.0
        lean[40], lean[48] = -3.0, 3.0
        weights[::2] = weights[::2] * np.float32(0.1) + lean
    return WeightedPolicies(network, version.interface, weights)


@pytest.mark.parametrize("mode", ["normal", "flipped"])
@pytest.mark.parametrize("perturbation", [None, Perturbation("pole_length", 1.5)])
def test_every_step_is_gymnasiums(
    version: EnvVersion, mode: str, perturbation: Perturbation | None
) -> None:
    env = version.make(mode, perturbation)
    world = World.of(env)
    assert world is not None
    policies, chosen = population(version, 60), seeds(1, "test", 8)
    trace = np.zeros((60, 8, world.limit, 5), dtype=np.float32)
    widths = mlp_widths(POLICY, version.interface)
    lengths, broken = play(
        policies.dense(), packing(widths), np.array(widths), 0, start_states(env, chosen),
        world.physics, world.forces, world.limit, world.source, world.signs, trace,
    )  # fmt: skip
    assert not broken.any()
    assert lengths.min() < 20
    for i in range(60):
        for k, seed in enumerate(chosen.tolist()):
            _replay(env, seed, trace[i, k, : lengths[i, k]])
    if mode == "normal":
        assert lengths.max() == 500


def _replay(env: gym.Env, seed: int, steps: np.ndarray) -> None:
    observation, _ = env.reset(seed=seed)
    for t, step in enumerate(steps):
        assert observation.dtype == np.float32
        assert observation.tobytes() == step[:4].tobytes()
        observation, reward, terminated, truncated, _ = env.step(int(step[4]))
        assert reward == 1.0
        assert (terminated or truncated) == (t == len(steps) - 1)


def test_thousands_of_episodes_agree_with_the_general_backend(version: EnvVersion) -> None:
    policies, chosen = population(version, 120), seeds(2, "test", 20)
    with (
        CompiledCartPole(version, POLICY) as fast,
        make_backend("gymnasium", version, POLICY) as slow,
    ):
        mine = fast.evaluate(policies, Task(version, "flipped", chosen))
        general = slow.evaluate(policies, Task(version, "flipped", chosen))
    assert mine.returns.dtype == np.float64
    assert mine.steps == mine.lengths.sum()
    assert np.array_equal(mine.returns, mine.lengths)
    # Outputs differ from PyTorch's by a few ulp, so an action may differ where they all but tie
    assert (mine.lengths == general.lengths).mean() > 0.999
    assert (mine.lengths != fast.evaluate(policies, Task(version, "normal", chosen)).lengths).any()


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("hidden", [(), (5,), (32, 32), (11, 3, 9)])
def test_the_network_is_pytorchs(
    version: EnvVersion, activation: str, hidden: tuple[int, ...]
) -> None:
    policy = NetworkParams(kwargs={"hidden": list(hidden), "activation": activation})
    env, policies = version.make("normal"), population(version, 6, policy)
    world = World.of(env)
    assert world is not None
    trace = np.zeros((6, 1, 500, 5), dtype=np.float32)
    widths = mlp_widths(policy, version.interface)
    lengths, _ = play(
        policies.dense(), packing(widths), np.array(widths), ACTIVATIONS[activation],
        start_states(env, seeds(0, "test", 1)), world.physics, world.forces, world.limit,
        world.source, world.signs, trace,
    )  # fmt: skip
    module = build_policy(policy, 4, 2)
    for i, flat in enumerate(torch.from_numpy(policies.dense())):
        torch.nn.utils.vector_to_parameters(flat, module.parameters())
        steps = torch.from_numpy(trace[i, 0, : lengths[i, 0]])
        with torch.no_grad():
            outputs = module(steps[:, :4])
        clear = (outputs[:, 1] - outputs[:, 0]).abs() > 1e-5
        assert clear.any()
        assert torch.equal(outputs.argmax(dim=1)[clear], steps[:, 4].long()[clear])


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_an_activation_is_pytorchs_wherever_its_input_lies(activation: str) -> None:
    sizes = np.geomspace(1e-9, 1e8, 4000)
    inputs = np.concatenate([-sizes, sizes, np.linspace(-40, 40, 8000)]).astype(np.float32)
    rows = inputs.reshape(-1, 16).copy()
    _activate(rows, 0, len(rows), ACTIVATIONS[activation])
    expected = make_activation(activation)(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(rows.ravel(), expected, rtol=1e-6, atol=2e-6)
    if activation in ("sigmoid", "silu"):
        gate = rows.ravel() / inputs if activation == "silu" else rows.ravel()
        assert gate.min() >= 0
        assert gate.max() <= 1


def test_silu_of_what_is_far_below_zero_is_zero(version: EnvVersion) -> None:
    """The bias before it is -1e8, and the second output is 1 below it: the first is chosen."""
    network = NetworkParams(kwargs={"hidden": [1], "activation": "silu"})
    weights = np.array([[0, 0, 0, 0, -1e8, 0, 1, 0, -1]], dtype=np.float32)
    policies = WeightedPolicies(network, version.interface, weights)
    task, found = Task(version, "normal", seeds(0, "test", 4)), []
    for name in ("cartpole-mlp", "gymnasium"):
        with make_backend(name, version, network) as backend:
            found.append(backend.evaluate(policies, task).returns.tolist())
    assert found[0] == found[1]


def test_fitness_does_not_depend_on_company(version: EnvVersion) -> None:
    policies, chosen = population(version, 40), seeds(5, "test", 37)
    with CompiledCartPole(version, POLICY) as backend:
        together = backend.evaluate(policies, Task(version, "normal", chosen)).lengths
        for i in (0, 7, 39):
            alone = WeightedPolicies(POLICY, version.interface, policies.dense()[i : i + 1])
            # alone with many episodes, all seats help with one individual's
            played = backend.evaluate(alone, Task(version, "normal", chosen))
            assert np.array_equal(played.lengths[0], together[i])
            for k in range(3):
                played = backend.evaluate(alone, Task(version, "normal", chosen[k : k + 1]))
                assert played.lengths[0, 0] == together[i, k]


def test_a_network_of_nan_crashes_alone(version: EnvVersion) -> None:
    policies, chosen = population(version, 5), seeds(5, "test", 2)
    weights = policies.dense()
    weights[3, -1] = np.nan
    weights[1, :8] = np.inf  # inf * 0.1 - inf * 0.2: NaN after the first layer
    with CompiledCartPole(version, POLICY) as backend:
        whole = backend.evaluate(policies, Task(version, "normal", chosen))
        torn = backend.evaluate(
            WeightedPolicies(POLICY, version.interface, weights), Task(version, "normal", chosen)
        )
    assert np.isneginf(torn.fitness).tolist() == [False, True, False, True, False]
    assert {(c.individual, c.seed) for c in torn.crashes} == {
        (i, int(seed)) for i in (1, 3) for seed in chosen
    }
    assert np.array_equal(torn.returns[[0, 2, 4]], whole.returns[[0, 2, 4]])
    with make_backend("gymnasium", version, POLICY) as general:
        broken = WeightedPolicies(POLICY, version.interface, weights)
        assert general.evaluate(broken, Task(version, "normal", chosen)).crashes == torn.crashes


def test_weights_of_another_network_are_refused(version: EnvVersion) -> None:
    wrong = WeightedPolicies(POLICY, version.interface, np.zeros((2, 57), dtype=np.float32))
    with (
        CompiledCartPole(version, POLICY) as backend,
        pytest.raises(EvaluationError, match="58 parameters, got 57"),
    ):
        backend.evaluate(wrong, Task(version, "normal", seeds(0, "test", 1)))


def test_what_the_kernel_cannot_play_goes_elsewhere(version: EnvVersion) -> None:
    assert choose_backend(version, POLICY) == "cartpole-mlp"
    assert World.of(version.make("normal", Perturbation("observation_noise", 0.1))) is None
    gelu = NetworkParams(kwargs={"hidden": [8], "activation": "gelu"})
    assert not CompiledCartPole.supports(version, gelu)
    residual = NetworkParams(module="srghn.policies:ResidualMLP", kwargs={})
    assert not CompiledCartPole.supports(version, residual)
    old_reward = pin(EnvParams(id="CartPole-v1", kwargs={"sutton_barto_reward": True}))
    assert not CompiledCartPole.supports(old_reward, POLICY)


def test_perturbed_by_a_wrapper_is_played_by_the_general_backend(version: EnvVersion) -> None:
    policies, chosen = population(version, 3), seeds(6, "test", 2)
    noise = Perturbation("observation_noise", 0.5)
    with (
        CompiledCartPole(version, POLICY) as fast,
        make_backend("gymnasium", version, POLICY) as general,
    ):
        mine = fast.evaluate(policies, Task(version, "normal", chosen, noise))
        other = general.evaluate(policies, Task(version, "normal", chosen, noise))
    assert mine.returns.tobytes() == other.returns.tobytes()


RESIDUAL = NetworkParams(module="srghn.policies:ResidualMLP", kwargs={"width": 4, "blocks": 1})


@pytest.mark.parametrize("perturbation", [None, Perturbation("gravity", 2.0)])
def test_vectorised_gives_the_bytes_of_the_general_backend(
    version: EnvVersion, perturbation: Perturbation | None
) -> None:
    assert choose_backend(version, RESIDUAL) == "cartpole"
    size = sum(p.numel() for p in build_policy(RESIDUAL, 4, 2).parameters())
    weights = stream(9, "test").normal(size=(40, size)).astype(np.float32)
    policies, chosen = WeightedPolicies(RESIDUAL, version.interface, weights), seeds(7, "test", 5)
    seen = []
    for name in ("cartpole", "gymnasium"):
        with make_backend(name, version, RESIDUAL) as backend:
            seen.append(backend.evaluate(policies, Task(version, "flipped", chosen, perturbation)))
    assert seen[0].returns.tobytes() == seen[1].returns.tobytes()
    assert seen[0].lengths.tobytes() == seen[1].lengths.tobytes()
    assert seen[0].steps == seen[1].steps
    assert len(np.unique(seen[0].lengths)) > 10


def test_vectorised_plays_callables_and_counts_their_crashes(version: EnvVersion) -> None:
    def lean(rows: np.ndarray) -> np.ndarray:
        return (rows @ np.array([0.1, 0.4, 1.5, 1.0], dtype=np.float32) > 0).astype(np.int64)

    def wrong(rows: np.ndarray) -> np.ndarray:
        if abs(rows[:, 2]).max() > 0.1:
            raise ValueError("too far")
        return np.zeros(len(rows), dtype=np.int64)

    chosen = seeds(8, "test", 4)
    seen = []
    for name in ("cartpole-mlp", "gymnasium"):
        with make_backend(name, version, POLICY) as backend:
            seen.append(backend.evaluate([lean, wrong], Task(version, "normal", chosen)))
    assert (seen[0].returns == seen[1].returns).all()
    assert (seen[0].lengths == seen[1].lengths).all()
    assert seen[0].crashes == seen[1].crashes
    assert len(seen[0].crashes) == 4
    assert (seen[0].lengths[0] == 500).all()


def test_without_glibc_the_vectorised_backend_plays(
    version: EnvVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cartpole.numpy_uses_libm()
    monkeypatch.setattr(cartpole, "in_c_library", lambda name: False)
    cartpole.numpy_uses_libm.cache_clear()
    try:
        assert choose_backend(version, POLICY) == "cartpole"
    finally:
        cartpole.numpy_uses_libm.cache_clear()


def test_ctrl_c_is_a_keyboard_interrupt_wherever_it_lands(version: EnvVersion) -> None:
    """Numba would make a SystemError of one that lands while it passes arguments."""
    backend = make_backend("cartpole-mlp", version, POLICY)
    policies, task = population(version, 8), Task(version, "normal", seeds(0, "interrupt", 2))
    backend.evaluate(policies, task)
    landed = 0

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # Python drops one that lands in a callback of it, and Hypothesis has one
    try:
        for k in range(300):
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + 1e-6 * k)
                while True:
                    backend.evaluate(policies, task)
            landed += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert landed == 300
