"""Evolution of one genome for several architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srghn import seeding
from srghn.candidates import choose_finalist, freeze_finalist, load_candidate
from srghn.config import EngineSettings, EvaluateParams, RunParams, parse_params
from srghn.envs import EnvVersion, pin
from srghn.errors import ConfigError
from srghn.evaluation.base import SeveralPolicies, WeightedPolicies, make_evaluator
from srghn.evaluation.several import make_run_evaluator
from srghn.evaluation.task import Task
from srghn.evolution import Search, evolve, load_run, rebuild
from srghn.evolution.racing import Heats, race
from srghn.evolution.registry import make_strategy
from srghn.ghn import GHN
from tests.tiny import tiny_params

OTHERS = [{"hidden": [5]}, {"hidden": [3, 3]}]


def several(**evolution: Any) -> RunParams:
    sections = tiny_params(generations=3, architectures=OTHERS, **evolution)
    return parse_params({**sections, "ghn": {"hidden": 4, "head": "dct"}}, "test")


def run(params: RunParams, version: EnvVersion, folder: Path, **settings: Any) -> Any:
    with make_run_evaluator(EngineSettings(**settings), version, params) as evaluator:
        evolve(params, version, evaluator, folder)
    return load_run(folder)


@pytest.fixture(scope="module")
def version() -> EnvVersion:
    return pin(several().env)


def test_fitness_is_the_mean_over_the_networks_of_the_same_genome(
    version: EnvVersion, tmp_path: Path
) -> None:
    params = several()
    found = run(params, version, tmp_path)
    ghn = found.strategy.encoding
    assert isinstance(ghn, GHN)
    assert len(ghn.targets) == 3
    genomes, seeds = found.finalists.genomes, seeding.seeds(3, "episode", 2, 2)
    each = []
    for target, network in enumerate(params.networks):
        weights = ghn.generate(genomes, target)
        policies = WeightedPolicies(network, version.interface, weights)
        with make_evaluator(EngineSettings(), version, network) as evaluator:
            each.append(evaluator.evaluate(policies, Task(version, "normal", seeds)).fitness)
    np.testing.assert_allclose(found.fitness, np.mean(each, axis=0))
    assert found.progress.evaluations == 3 * 6 * 2 * 3
    assert found.lineage.returns.shape == (3 * 6, 2 * 3)


def test_its_candidate_is_the_networks_own_and_is_rebuilt(
    version: EnvVersion, tmp_path: Path
) -> None:
    params = several()
    found = run(params, version, tmp_path / "run")
    with make_evaluator(EngineSettings(), version, params.network) as evaluator:
        choice = choose_finalist(found, evaluator, EvaluateParams(episodes=4, cell_episodes=0))
    candidate = freeze_finalist(found, choice, tmp_path / "candidate")
    assert load_candidate(tmp_path / "candidate").digest == candidate.digest
    individual = int(found.finalists.ids[choice.row])
    genome = rebuild(found.ancestry(individual), params, version.interface)
    assert genome.tobytes() == found.finalists.genomes[choice.row].tobytes()


def test_two_workers_and_a_race_give_the_same_bytes(version: EnvVersion, tmp_path: Path) -> None:
    params = several(racing=1)
    one = run(params, version, tmp_path / "one")
    two = run(params, version, tmp_path / "two", engine="processes", workers=2)
    assert one.progress.evaluations < 3 * 6 * 2 * 3
    assert one.finalists.genomes.tobytes() == two.finalists.genomes.tobytes()
    for name in ("metrics.json", "generations.csv", "finalists.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_race_gives_the_episodes_of_each_network_in_turn(version: EnvVersion) -> None:
    params = several()
    strategy = make_strategy(params, version.interface)
    genomes = strategy.ask(strategy.init(3)).genomes
    policies = SeveralPolicies(
        tuple(
            WeightedPolicies(network, version.interface, strategy.encoding.generate(genomes, k))
            for k, network in enumerate(params.networks)
        )
    )
    task = Task(version, "normal", seeding.seeds(3, "race", 5, 0))
    with make_run_evaluator(EngineSettings(), version, params) as evaluator:
        whole = evaluator.evaluate(policies, task)
        played, _ = race(evaluator, policies, task, Heats(2, 0.1))
    on = ~np.isnan(played.returns).any(axis=1)
    assert 0 < on.sum() < len(on)
    assert np.array_equal(played.returns[on], whole.returns[on])
    assert np.array_equal(played.lengths[on], whole.lengths[on])
    assert (np.isnan(played.returns[~on]) == np.tile([False] * 2 + [True] * 3, 3)).all()


def test_a_return_to_reach_is_confirmed_with_every_network(
    version: EnvVersion, tmp_path: Path
) -> None:
    params = several(until=1.0, until_episodes=5)
    found = run(params, version, tmp_path)
    assert found.end is not None
    row = found.finalists.ids.tolist().index(found.end.individual)
    one = found.finalists.take(np.array([row]))
    seeds = seeding.seeds(3, "until", 5, 0)
    ghn = found.strategy.encoding
    parts = tuple(
        WeightedPolicies(network, version.interface, ghn.generate(one.genomes, target))
        for target, network in enumerate(params.networks)
    )
    with make_run_evaluator(EngineSettings(), version, params) as evaluator:
        again = evaluator.evaluate(SeveralPolicies(parts), Task(version, "normal", seeds))
    assert found.end.validated == float(again.fitness[0])


@pytest.mark.parametrize("strategy", ["ga", "cmaes", "restart"])
def test_weights_of_one_network_are_no_genome_for_several(
    version: EnvVersion, strategy: str
) -> None:
    with pytest.raises(ConfigError, match="the weights of one network; use self-referential"):
        make_strategy(several(strategy=strategy), version.interface)


def test_a_constant_rate_takes_several(version: EnvVersion) -> None:
    encoding = make_strategy(several(strategy="constant-rate"), version.interface).encoding
    assert isinstance(encoding, GHN)
    assert [target.size for target in encoding.targets] == [16, 37, 35]


def test_an_architecture_that_is_there_already_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"architectures gives \{'hidden': \[2\]\} again"):
        parse_params(tiny_params(architectures=[{"hidden": [2]}]), "test")
    with pytest.raises(ConfigError, match="again"):
        parse_params(tiny_params(architectures=[OTHERS[0], OTHERS[0]]), "test")


def test_one_that_cannot_be_built_is_named_before_the_run(version: EnvVersion) -> None:
    params = parse_params(tiny_params(architectures=[{"width": 5}]), "test")
    with pytest.raises(ConfigError, match="unexpected keyword argument 'width'"):
        make_strategy(params, version.interface)


def test_a_search_has_no_networks() -> None:
    with pytest.raises(ConfigError, match="leave out architectures"):
        Search(dimensions=2, architectures=OTHERS)


def test_runs_of_one_network_are_recorded_as_ever() -> None:
    assert "architectures" not in parse_params(tiny_params(), "test").model_dump()["evolution"]
    with pytest.raises(ConfigError):
        RunParams(evolution={"architectures": [3]})  # type: ignore[arg-type]
