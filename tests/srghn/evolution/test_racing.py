"""Only the better part plays on, the same on any number of workers; a run ends where one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srghn.config import EngineSettings, EvolutionParams, NetworkParams, RunParams, parse_params
from srghn.envs import EnvVersion, pin
from srghn.errors import ConfigError
from srghn.evaluation.base import Evaluation, WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution import GenerationRecord, evolve, load_run
from srghn.evolution.base import Population
from srghn.evolution.racing import Heats, race
from srghn.seeding import seeds, stream

PARAMS = parse_params(
    {
        "env": {"id": "CartPole-v1"},
        "evolution": {"generations": 4, "parents": 3, "children": 4, "episodes": 6, "racing": 2},
    },
    "test",
)


@pytest.fixture(scope="module")
def version() -> EnvVersion:
    return pin(PARAMS.env)


class Fixed:
    """An evaluator whose returns are given, that says what it was asked to play."""

    remote = False

    def __init__(self, returns: list[list[float]]) -> None:
        self.returns, self.asked = np.array(returns, dtype=float), []

    def evaluate(self, policies: Any, task: Task, progress: Any = None) -> Evaluation:
        rows, episodes = policies.dense()[:, 0].astype(int), task.seeds
        self.asked.append((rows.tolist(), episodes.tolist()))
        found = self.returns[np.ix_(rows, episodes)]
        lengths = np.full(found.shape, 7)
        return Evaluation(found, lengths, int(lengths.sum()))


def raced(version: EnvVersion, returns: list[list[float]], heats: Heats) -> Any:
    rows = np.arange(len(returns), dtype=np.float32)[:, None]
    policies = WeightedPolicies(NetworkParams(), version.interface, rows)
    evaluator = Fixed(returns)
    task = Task(version, "normal", np.arange(len(returns[0])))
    played, fitness = race(evaluator, policies, task, heats)  # type: ignore[arg-type]
    return evaluator, played, fitness


def test_the_better_part_plays_on_and_never_ranks_below_the_others(version: EnvVersion) -> None:
    returns = [[9.0, 1.0, 1.0], [5.0, 8.0, 8.0], [7.0, 2.0, 2.0], [1.0, 99.0, 99.0]]
    evaluator, played, fitness = raced(version, returns, Heats(1, 0.5))
    assert evaluator.asked == [([0, 1, 2, 3], [0]), ([0, 2], [1, 2])]
    assert fitness[[0, 2]] == pytest.approx([11 / 3, 11 / 3])
    assert (fitness[[1, 3]] < fitness[[0, 2]].min()).all()
    assert fitness[3] < fitness[1]
    assert np.isnan(played.returns[[1, 3], 1:]).all()
    assert played.lengths.sum() == played.steps == 7 * (4 + 4)


def test_equals_of_the_last_to_go_on_go_on_too(version: EnvVersion) -> None:
    evaluator, played, _ = raced(version, [[5.0, 1.0], [5.0, 2.0], [5.0, 3.0]], Heats(1, 0.34))
    assert evaluator.asked[1][0] == [0, 1, 2]
    assert not np.isnan(played.returns).any()


def test_the_share_that_goes_on_is_not_rounded_up_by_an_error_of_floats(
    version: EnvVersion,
) -> None:
    evaluator, *_ = raced(version, [[float(k), 0.0] for k in range(100)], Heats(1, 0.07))
    assert evaluator.asked[1][0] == [*range(93, 100)]


def test_who_crashes_does_not_go_on_unless_all_do(version: EnvVersion) -> None:
    returns = [[-np.inf, 5.0], [3.0, 4.0], [-np.inf, 1.0]]
    _, _, fitness = raced(version, returns, Heats(1, 0.34))
    assert fitness[1] == 3.5
    assert (fitness[[0, 2]] == -np.inf).all()
    _, _, fitness = raced(version, [[-np.inf, 1.0]] * 3, Heats(1, 0.34))
    assert (fitness == -np.inf).all()


def test_a_crash_in_the_second_heat_costs_no_one_else_a_rank(version: EnvVersion) -> None:
    returns = [[9.0, -np.inf], [8.0, 2.0], [7.0, 99.0], [6.0, 99.0]]
    _, _, fitness = raced(version, returns, Heats(1, 0.5))
    assert fitness[:2].tolist() == [-np.inf, 5.0]
    assert 4.9 < fitness[3] <= fitness[2] < 5.0
    _, _, fitness = raced(version, [[9.0, -np.inf], [8.0, 2.0], [7.0, 2.0]], Heats(1, 0.3))
    assert fitness.tolist() == [-np.inf, 8.0, 7.0]  # who was left out has what it had


def test_racing_must_leave_episodes_to_play() -> None:
    with pytest.raises(ConfigError, match="racing must leave episodes to play"):
        EvolutionParams(episodes=4, racing=4)


def run(version: EnvVersion, folder: Path, params: RunParams = PARAMS, **settings: Any) -> Any:
    with make_evaluator(EngineSettings(**settings), version, params.network) as evaluator:
        evolve(params, version, evaluator, folder)
    return load_run(folder)


def test_a_raced_run_spends_less_and_is_the_same_on_two_workers(
    version: EnvVersion, tmp_path: Path
) -> None:
    one = run(version, tmp_path / "one")
    two = run(version, tmp_path / "two", engine="processes", workers=2)
    everyone = 4 * 15 * 6
    assert one.progress.evaluations < everyone
    assert np.isnan(one.lineage.returns).any()
    for name in ("metrics.json", "generations.csv", "finalists.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert one.progress.evaluations == two.progress.evaluations
    assert len(one.plot().axes) == 3
    assert "4 of 4 generations" in repr(one)


def test_the_champion_of_a_race_is_best_by_its_fitness(version: EnvVersion, tmp_path: Path) -> None:
    best, heard = [], []

    def listen(record: GenerationRecord, champion: Population) -> None:
        best.append(int(record.ids[np.argmax(record.fitness)]))
        heard.append(champion)

    with make_evaluator(EngineSettings(), version, PARAMS.network) as evaluator:
        evolve(PARAMS, version, evaluator, tmp_path, on_champion=listen)
    assert [champion.ids.tolist() for champion in heard] == [[i] for i in best]
    last = load_run(tmp_path).finalists
    assert np.array_equal(heard[-1].weights, last.weights[:1])
    assert np.array_equal(heard[-1].genomes, last.genomes[:1])


def test_a_condition_ends_a_run_for_good(version: EnvVersion, tmp_path: Path) -> None:
    heard: list[int] = []

    def stop(record: Any) -> bool:
        heard.append(record.generation)
        return bool(record.generation == 1)

    for _ in range(2):
        with make_evaluator(EngineSettings(), version, PARAMS.network) as evaluator:
            evolve(PARAMS, version, evaluator, tmp_path, stop=stop)
    assert heard == [0, 1]
    assert load_run(tmp_path).generation == 1
    assert len(load_run(tmp_path).lineage) == 2 * 15


def test_episodes_of_a_race_are_those_of_the_generation(version: EnvVersion) -> None:
    """The first of them, and then the others: no draw depends on who goes on."""
    size = 58
    weights = stream(1, "test").normal(size=(6, size)).astype(np.float32)
    policies = WeightedPolicies(PARAMS.network, version.interface, weights)
    task = Task(version, "normal", seeds(0, "test", 5))
    with make_evaluator(EngineSettings(), version, PARAMS.network) as evaluator:
        whole = evaluator.evaluate(policies, task)
        played, fitness = race(evaluator, policies, task, Heats(2, 0.4))
    on = ~np.isnan(played.returns).any(axis=1)
    assert 2 <= on.sum() < 6
    assert np.array_equal(played.returns[on], whole.returns[on])
    assert np.array_equal(fitness[on], whole.fitness[on])
