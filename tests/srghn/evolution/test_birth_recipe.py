"""The self-referential strategy's recipe: workers make the bytes that the population has."""

import pickle

import numpy as np
import pytest

from srghn.config import EvolutionParams, NetworkParams, RunParams
from srghn.envs.interface import Interface
from srghn.errors import ConfigError
from srghn.evolution.genetic import Genetic
from srghn.evolution.self_referential import BirthRecipe, make_ghn, self_referential

CARTPOLE = Interface(4, (None,), (None,), "discrete", choices=(2,), starts=(0,))


def strategy(**evolution: object) -> Genetic:
    settings = EvolutionParams.model_validate({"parents": 3, "children": 4, **evolution})
    return self_referential(RunParams(evolution=settings), CARTPOLE)


@pytest.mark.parametrize("selection", ["plus", "comma", "tournament"])
def test_workers_rebuild_the_same_weights_in_any_choice_and_order(selection: str) -> None:
    genetic = strategy(selection=selection)
    state = genetic.init(5)
    for _ in range(3):
        population = genetic.ask(state)
        recipe = BirthRecipe.of(genetic.encoding, state, population)
        sent = pickle.loads(pickle.dumps(recipe))  # noqa: S301  our own bytes
        assert len(sent) == len(population)
        for rows in (np.arange(len(population)), np.array([7, 0, 3]), np.array([2])):
            assert sent.rebuild(rows).tobytes() == population.weights[rows].tobytes()
        state = genetic.tell(state, population, population.weights.sum(axis=1).astype(np.float64))
    assert (population.noise_seeds != recipe.noise_seeds).any()  # survivors of earlier births


def test_what_is_sent_grows_by_seeds_and_not_by_genomes() -> None:
    few, many = strategy(children=4), strategy(children=40)
    sizes = []
    for genetic in (few, many):
        state = genetic.init(0)
        recipe = BirthRecipe.of(genetic.encoding, state, genetic.ask(state))
        sizes.append(len(pickle.dumps(recipe)))
    assert sizes[1] - sizes[0] < 3 * 36 * 20  # 36 more children each: a row and a seed
    assert sizes[0] > 3 * few.encoding.genome_size * 4


def test_the_hypernetwork_is_made_for_the_policy_of_the_parameters() -> None:
    params = RunParams(policy=NetworkParams(kwargs={"hidden": [5, 6]}))
    ghn = make_ghn(params, CARTPOLE)
    assert ghn.targets[0].size == 4 * 5 + 5 + 5 * 6 + 6 + 6 * 2 + 2
    assert ghn.digest != make_ghn(RunParams(), CARTPOLE).digest


def test_options_are_refused_because_there_are_none() -> None:
    with pytest.raises(ConfigError, match="sigma"):
        strategy(options={"sigma": 0.1})
