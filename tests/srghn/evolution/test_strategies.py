"""One contract for every strategy in the registry."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from srghn.config import NetworkParams, RunParams, parse_params
from srghn.envs.interface import Interface
from srghn.errors import ArchitectureMismatch, CheckpointError, ConfigError
from srghn.evolution import STRATEGIES, make_strategy
from srghn.evolution.base import NO_PARENT, Population, State, Strategy, pack, unpack
from srghn.evolution.checkpoint import Checkpoint, read, write
from srghn.evolution.direct import PolicyWeights
from srghn.policies import build_policy

#: One input, one output, no hidden layer: a weight and a bias, so that fitness is a 2-D function.
LINE = Interface(1, (None,), (None,), "box", (1,), action_low=(None,), action_high=(None,))
OPTIMUM = np.array([3.0, -2.0])
VARIANTS = [(name, "plus") for name in STRATEGIES] + [
    (name, rule)
    for name in ("self-referential", "self-adaptive-ga")
    for rule in ("comma", "tournament")
]


def run_params(name: str, selection: str = "plus", **evolution: Any) -> RunParams:
    chosen = {"strategy": name, "selection": selection, "parents": 4, "children": 3, "elites": 1}
    chosen |= {"memory": 0, "newcomers": 0.0}  # their own contract is in test_alert.py
    return parse_params(
        {
            "policy": {"kwargs": {"hidden": []}},
            "ghn": {"hidden": 6, "rounds": 2, "basis_width": 6},
            "evolution": chosen | evolution,
        },
        "test",
    )


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join(v))
def strategy(request: pytest.FixtureRequest) -> Strategy[Any]:
    return make_strategy(run_params(*request.param), LINE)


def sphere(population: Population) -> Any:
    return -((population.weights.astype(np.float64) - OPTIMUM) ** 2).sum(axis=1)


def advance(strategy: Strategy[Any], state: Any, generations: int) -> Any:
    for _ in range(generations):
        population = strategy.ask(state)
        state = strategy.tell(state, population, sphere(population))
    return state


def same(one: object, other: object) -> bool:
    """Equal to the bit, array by array."""
    return all(
        np.asarray(value).tobytes() == np.asarray(getattr(other, name)).tobytes()
        and type(value) is type(getattr(other, name))
        for name, value in vars(one).items()
    )


def test_a_population_has_the_shapes_and_types_it_promises(strategy: Strategy[Any]) -> None:
    state = strategy.init(1)
    for generation in range(3):
        population = strategy.ask(state)
        n, nodes = len(population), len(strategy.node_names)
        assert 12 <= n <= 16
        assert population.weights.shape == (n, 2)
        assert population.weights.dtype == population.genomes.dtype == np.float32
        assert population.rates.shape == (n, nodes)
        assert population.rates.dtype == np.float32
        for name in ("ids", "parents", "noise_seeds", "births"):
            assert getattr(population, name).shape == (n,)
            assert getattr(population, name).dtype == np.int64
        assert len(set(population.ids.tolist())) == n
        assert state.generation == generation
        assert (population.births <= generation).all()
        assert (population.noise_seeds >= 0).all()
        assert (population.rates > 0).all()
        state = strategy.tell(state, population, sphere(population))


def test_ids_are_never_used_twice(strategy: Strategy[Any]) -> None:
    state, birth = strategy.init(1), {}
    for _ in range(5):
        population = strategy.ask(state)
        for i, born, seed in zip(
            population.ids.tolist(), population.births, population.noise_seeds, strict=True
        ):
            assert birth.setdefault(i, (born, seed)) == (born, seed)
        parents = set(population.parents.tolist()) - {NO_PARENT}
        assert parents <= set(birth)
        state = strategy.tell(state, population, sphere(population))


def test_ask_is_pure_and_a_seed_decides_everything(strategy: Strategy[Any]) -> None:
    state = strategy.init(5)
    assert same(strategy.ask(state), strategy.ask(state))
    assert same(advance(strategy, strategy.init(5), 4), advance(strategy, strategy.init(5), 4))
    assert not same(strategy.ask(state), strategy.ask(strategy.init(6)))


def test_global_random_state_is_neither_used_nor_moved(strategy: Strategy[Any]) -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr,index]
    one = advance(strategy, strategy.init(5), 2)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]
    np.random.seed(2)
    assert same(one, advance(strategy, strategy.init(5), 2))


def test_a_checkpointed_state_goes_on_identically(strategy: Strategy[Any], tmp_path: Any) -> None:
    state = advance(strategy, strategy.init(2), 3)
    arrays, scalars = pack(state)
    back = read(write(tmp_path, Checkpoint(3, arrays, dict(scalars))))
    restored = unpack(strategy.state_type, back.arrays, back.meta)
    assert same(restored, state)
    assert same(advance(strategy, restored, 4), advance(strategy, state, 4))


def test_a_state_of_another_strategy_is_refused(strategy: Strategy[Any]) -> None:
    arrays, scalars = pack(State(seed=1, generation=2, next_id=3))
    with pytest.raises(CheckpointError, match="another version or strategy"):
        unpack(strategy.state_type, arrays, scalars)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_fitness_that_is_not_finite_ranks_last(strategy: Strategy[Any], bad: float) -> None:
    state = strategy.init(3)
    population = strategy.ask(state)
    worst = np.arange(len(population)) >= len(population) // 2
    fitness = np.where(worst, bad, 1.0 + np.arange(len(population)))
    floor = np.where(worst, -1e6, fitness)
    assert same(strategy.tell(state, population, fitness), strategy.tell(state, population, floor))


def test_a_generation_without_any_fitness_is_survived(strategy: Strategy[Any]) -> None:
    state = strategy.init(3)
    population = strategy.ask(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = strategy.tell(state, population, np.full(len(population), np.nan))
        assert np.isfinite(strategy.ask(state).weights).all()


def test_fitness_of_another_shape_is_refused(strategy: Strategy[Any]) -> None:
    state = strategy.init(3)
    population = strategy.ask(state)
    with pytest.raises(ValueError, match="one fitness per individual"):
        strategy.tell(state, population, np.zeros((len(population), 2)))


def test_it_improves_on_a_sphere(strategy: Strategy[Any]) -> None:
    first = strategy.ask(strategy.init(4))
    last = strategy.ask(advance(strategy, strategy.init(4), 60))
    assert sphere(last).max() > 0.05 * sphere(first).max()  # both negative: twenty times nearer


def test_a_run_goes_on_from_an_earlier_genome(strategy: Strategy[Any]) -> None:
    genome = strategy.ask(strategy.init(4)).genomes[2].copy()
    genome[0] += 50
    state = strategy.init(9, genome, 40)
    assert state.generation == 40
    assert (strategy.ask(state).births == 40).all()
    assert abs(np.median(strategy.ask(state).genomes[:, 0]) - genome[0]) < 10
    assert abs(np.median(strategy.ask(strategy.init(9)).genomes[:, 0]) - genome[0]) > 10
    with pytest.raises(ArchitectureMismatch, match="shape"):
        strategy.init(9, genome[:-1], 40)


def test_founders_differ(strategy: Strategy[Any]) -> None:
    assert len(np.unique(strategy.ask(strategy.init(4)).genomes[:4], axis=0)) == 4


def test_founders_of_plain_weights_begin_as_the_module_does() -> None:
    params = NetworkParams(module="srghn.policies:ResidualMLP", kwargs={"width": 16, "blocks": 1})
    layout = PolicyWeights(params, LINE)
    names = [(n, p.numel()) for n, p in build_policy(params, 1, 1).named_parameters()]
    edges = np.cumsum([size for _, size in names])[:-1]
    founders = np.array([layout.initial(seed) for seed in range(50)])
    for (name, size), block in zip(names, np.split(founders, edges, axis=1), strict=True):
        if "norm" in name:
            assert (block == (1.0 if name.endswith("weight") else 0.0)).all()
        elif size > 8:
            reference = dict(build_policy(params, 1, 1).named_parameters())[name]
            assert np.isclose(block.std(), float(reference.detach().pow(2).mean()) ** 0.5, rtol=0.1)


@pytest.mark.parametrize("name", STRATEGIES)
def test_unknown_options_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"evolution\.options\.sigmaa: .*no such option; known"):
        make_strategy(run_params(name, options={"sigmaa": 1}), LINE)


def test_a_bad_option_is_named_with_its_path() -> None:
    with pytest.raises(ConfigError, match=r"evolution\.options\.sigma: .*expected more than 0.*-1"):
        make_strategy(run_params("ga", options={"sigma": -1}), LINE)


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'self-referential'"):
        make_strategy(run_params("self-referental"), LINE)
