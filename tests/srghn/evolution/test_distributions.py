"""OpenES and CMA-ES: what the contract of all strategies does not say about them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from srghn import seeding
from srghn.config import NetworkParams, parse_params
from srghn.envs.interface import Interface
from srghn.errors import ConfigError
from srghn.evolution import make_strategy
from srghn.evolution.base import pack, unpack
from srghn.evolution.cmaes import CMAES, CMAOptions, CMAState, make_pycma
from srghn.evolution.direct import PolicyWeights
from srghn.evolution.one_thread import one_thread
from srghn.evolution.openes import OpenES, OpenESOptions, centered_ranks
from srghn.evolution.selection import clean

#: Four inputs, three outputs: 15 weights with the biases, and no hidden layer.
WIDE = Interface(4, (None,), (None,), "box", (3,), action_low=(None,), action_high=(None,))
LAYOUT = PolicyWeights(NetworkParams(kwargs={"hidden": []}), WIDE)
#: 323 weights: from 300 on pycma would choose another rule for its step.
LARGE = PolicyWeights(NetworkParams(kwargs={"hidden": [40]}), WIDE)


def valley(solutions: np.ndarray, generation: int) -> np.ndarray:
    """A moving, ill-conditioned bowl with ties (rounded) and now and then a NaN."""
    weights = np.arange(solutions.shape[1])
    centre = 3.0 * (generation // 30 % 2) + 0.1 * weights
    steep = 1024.0 ** (weights / len(weights))
    fitness = -((solutions - centre) ** 2 * steep).sum(axis=1).round(2)
    fitness[1] = np.nan if generation % 7 == 0 else fitness[1]
    return fitness


@pytest.mark.parametrize(
    ("layout", "size", "generations"), [(LAYOUT, 6, 80), (LAYOUT, 24, 80), (LARGE, 12, 12)]
)
def test_pycma_from_arrays_equals_an_undisturbed_pycma_to_the_bit(
    layout: PolicyWeights, size: int, generations: int
) -> None:
    strategy = CMAES(layout, CMAOptions(sigma=0.5), size)
    state = strategy.init(3)
    whole = make_pycma(state.mean, 0.5, size)
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("error")
        for generation in range(generations):
            noise = seeding.stream(3, "birth", generation)
            whole.sm.randn = lambda *shape, noise=noise: noise.standard_normal(shape)
            solutions = whole.ask()
            population = strategy.ask(state)
            assert population.weights.tobytes() == np.array(solutions, np.float32).tobytes()
            fitness = valley(np.array(solutions), generation)
            ranks = np.unique(-clean(fitness), return_inverse=True)[1]
            whole.tell(solutions, ranks.astype(float).tolist())
            state = strategy.tell(state, population, fitness)
            state = unpack(CMAState, *pack(state))  # as a run that is resumed
            assert (state.sigma, state.told) == (whole.sigma, whole.countiter)
            assert state.covariance.tobytes() == np.array(whole.sm.C).tobytes()


def test_cmaes_refuses_a_policy_it_could_never_finish() -> None:
    params = parse_params(
        {"policy": {"kwargs": {"hidden": [600]}}, "evolution": {"strategy": "cmaes"}}, "test"
    )
    with pytest.raises(ConfigError, match="4803 x 4803 matrix"):
        make_strategy(params, WIDE)


def test_openes_climbs_a_slope_with_either_optimizer() -> None:
    for optimizer in ("adam", "sgd"):
        options = OpenESOptions(sigma=0.1, learning_rate=0.02, optimizer=optimizer)
        strategy = OpenES(LAYOUT, options, pairs=16)
        state = strategy.init(1)
        start = state.mean[0]
        for _ in range(20):
            population = strategy.ask(state)
            state = strategy.tell(state, population, population.weights[:, 0].astype(np.float64))
        assert state.mean[0] > start + 0.2


def test_openes_takes_no_step_on_a_plateau() -> None:
    strategy = OpenES(LAYOUT, OpenESOptions(), pairs=8)
    state = strategy.init(1)
    population = strategy.ask(state)
    assert (strategy.tell(state, population, np.zeros(17)).mean == state.mean).all()


def test_openes_is_antithetic_about_its_mean_and_decays() -> None:
    strategy = OpenES(LAYOUT, OpenESOptions(weight_decay=0.5), pairs=5)
    state = strategy.init(1)
    weights = strategy.ask(state).weights
    assert (weights[0] == state.mean).all()
    assert np.allclose(weights[1:6] + weights[6:], 2 * state.mean, atol=1e-6)
    told = strategy.tell(state, strategy.ask(state), np.zeros(11))
    assert np.allclose(told.mean, state.mean / 2)


def test_centered_ranks_share_the_rank_of_equals_and_put_nan_last() -> None:
    assert centered_ranks(np.array([3.0, 1.0, 2.0])).tolist() == [0.5, -0.5, 0.0]
    assert centered_ranks(np.array([1.0, 1.0, 5.0])).tolist() == [-0.25, -0.25, 0.5]
    assert centered_ranks(np.array([np.nan, 0.0, -9.0])).tolist() == [-0.5, 0.5, 0.0]


def test_the_same_seeds_give_the_same_bytes_in_any_number_of_threads() -> None:
    """Large products, which BLAS divides among its threads, told in processes of their own."""
    program = (
        "import hashlib\n"
        "from srghn.evolution import Search\n"
        "from srghn.evolution.base import pack\n"
        "for name, size, children in (('openes', 1000, 1998), ('snes', 1000, 998),"
        " ('cmaes', 110, 20)):\n"
        "    search = Search(size, strategy=name, parents=1, children=children)\n"
        "    for _ in range(3):\n"
        "        search.tell(-((search.ask().astype(float) - 2) ** 2).sum(axis=1))\n"
        "    arrays, _ = pack(search.state)\n"
        "    told = b''.join(array.tobytes() for array in arrays.values())\n"
        "    print(name, hashlib.sha256(told).hexdigest())\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for threads in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 3


def test_the_number_of_threads_is_set_back_by_the_last_to_leave() -> None:
    def threads() -> list[int]:
        found = ThreadpoolController().select(user_api="blas")
        return [library.num_threads for library in found.lib_controllers]

    with threadpool_limits(2, user_api="blas"):
        assert set(threads()) == {2}
        with one_thread():
            with one_thread():
                assert set(threads()) == {1}
            assert set(threads()) == {1}
        assert set(threads()) == {2}
