from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from srghn.config import EngineSettings, RunParams
from srghn.envs import pin
from srghn.envs.interface import Interface
from srghn.errors import ConfigError, EvaluationError
from srghn.evaluation.base import Crash, Evaluation, Evaluator, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution import STRATEGIES, GenerationRecord, Genetic, Search, evolve, load_run, tables
from srghn.evolution.direct import Direct, PolicyWeights
from srghn.evolution.metrics import QUANTILES, diversity, over_nodes
from srghn.evolution.metrics import table as metrics_table
from srghn.seeding import seeds
from tests.tiny import record_of

Play = Callable[..., None]


class Spied(Evaluator):
    """The world's own evaluator, whose results may be spoilt on their way."""

    def __init__(self, inner: Evaluator, spoil: Callable[[Evaluation], Evaluation]) -> None:
        self.inner, self.spoil, self.calls = inner, spoil, []

    def evaluate(self, policies: Any, task: Task, progress: Any = None) -> Any:
        self.calls.append((task.mode, task.seeds.tolist(), len(policies)))
        return self.spoil(self.inner.evaluate(policies, task, progress))

    def describe(self) -> str:
        return self.inner.describe()


def spied(params: Any, run_dir: Path, spoil: Any = lambda result: result) -> tuple[Any, Any]:
    version = pin(params.env)
    records: list[GenerationRecord] = []
    with make_evaluator(EngineSettings(), version, params.network) as inner:
        evaluator = Spied(inner, spoil)
        evolve(params, version, evaluator, run_dir, on_generation=records.append)
    return evaluator.calls, records


def test_every_generation_plays_its_own_seeds_in_its_mode(small_run: Any, tmp_path: Path) -> None:
    calls, records = spied(small_run(), tmp_path)
    assert [mode for mode, _, _ in calls] == ["normal"] * 4 + ["flipped"] * 3
    assert [count for _, _, count in calls] == [6] * 7
    for generation, (_, played, _) in enumerate(calls):
        assert played == seeds(3, "episode", 2, generation).tolist()
    assert [r.generation for r in records] == list(range(7))
    assert [r.evaluations for r in records] == [12 * (g + 1) for g in range(7)]
    assert all(r.total == 7 and r.rate > 0 and r.diversity > 0 for r in records)
    assert all(a.steps < b.steps for a, b in pairwise(records))


def test_the_tables_say_what_the_listener_heard(small_run: Any, tmp_path: Path) -> None:
    _, records = spied(small_run(), tmp_path)
    rows = tables.read(tmp_path / "generations").to_pylist()
    for row, record in zip(rows, records, strict=True):
        assert record.row == row
        assert (record.best, record.mean) == (row["best"], row["mean"])
        assert (record.rate, record.diversity) == (row["rate"], row["diversity"])
        assert row["worst"] <= row["q10"] <= row["median"] <= row["q90"] <= row["best"]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["best"] == records[-1].best
    assert metrics["fingerprint"] == load_run(tmp_path).version.fingerprint
    with (tmp_path / "generations.csv").open() as file:
        curves = list(csv.DictReader(file))
    assert [float(row["best"]) for row in curves] == [r.best for r in records]


def test_finalists_are_the_best_of_the_last_generation(finished: Path) -> None:
    run = load_run(finished)
    listed = json.loads((finished / "finalists.json").read_text())
    assert (listed["mode"], listed["generation"]) == (run.mode, run.generation) == ("flipped", 6)
    assert [f["id"] for f in listed["finalists"]] == run.finalists.ids.tolist()
    assert sorted(run.fitness, reverse=True) == run.fitness.tolist()
    last = run.lineage.generation == 6
    assert run.fitness[0] == run.lineage.fitness[last].max()
    assert run.strategy.encoding is not None
    weights = run.strategy.encoding.generate(run.finalists.genomes)
    assert weights.tobytes() == run.finalists.weights.tobytes()


def test_crashes_and_nan_are_counted_rank_last_and_the_run_goes_on(
    small_run: Any, tmp_path: Path
) -> None:
    def spoil(result: Evaluation) -> Evaluation:
        returns = result.returns.copy()
        returns[::2, 0] = np.nan
        returns[1, 1] = -np.inf
        return dataclasses.replace(result, returns=returns, crashes=(Crash(1, 5, 3, "fell"),))

    _, records = spied(small_run(), tmp_path, spoil)
    rows = tables.read(tmp_path / "generations").to_pylist()
    assert [row["nonfinite"] for row in rows] == [4] * 7
    assert [row["crashes"] for row in rows] == [1] * 7
    assert {row["first_crash"].split(", ", 1)[1] for row in rows} == {"seed 5, step 3: fell"}
    second = tables.read(tmp_path / "lineage").filter(pc.field("generation") == 6)["id"][1]
    assert rows[6]["first_crash"].startswith(f"individual {second}, ")
    assert all(np.isfinite([r.best, r.mean]).all() for r in records)
    assert np.isfinite(load_run(tmp_path).fitness[:2]).all()


def test_a_run_in_which_nobody_ever_scores_ends(small_run: Any, tmp_path: Path) -> None:
    def spoil(result: Evaluation) -> Evaluation:
        return dataclasses.replace(result, returns=np.full_like(result.returns, np.nan))

    spied(small_run(), tmp_path, spoil)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["best"] is None
    assert metrics["nonfinite"] == 6


def test_an_evaluator_that_cannot_play_stops_the_run(small_run: Any, tmp_path: Path) -> None:
    def spoil(result: Evaluation) -> Evaluation:
        raise EvaluationError("every worker is gone")

    with pytest.raises(EvaluationError, match="every worker is gone"):
        spied(small_run(), tmp_path, spoil)


class Idle(Genetic):
    """A strategy of one's own whose `tell` gives the state that it got."""

    def tell(self, state: Any, population: Any, fitness: Any) -> Any:
        return state


class Scattered(Genetic):
    """A strategy of one's own whose `ask` gives its rows as a list."""

    def ask(self, state: Any, *given: Any) -> Any:
        return list(super().ask(state).weights)


class Silent(Genetic):
    """A strategy of one's own whose `tell` gives nothing."""

    def tell(self, state: Any, population: Any, fitness: Any) -> Any:
        return None


def one_of(kind: type[Genetic]) -> Callable[[RunParams, Interface], Genetic]:
    def make(params: RunParams, interface: Interface) -> Genetic:
        return kind(
            "own", Direct("own", PolicyWeights(params.network, interface), 0.1), params.evolution
        )

    return make


idle, scattered, silent = one_of(Idle), one_of(Scattered), one_of(Silent)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("idle", "own.tell: expected a state of generation 1, got 0"),
        ("scattered", "own.ask: expected Population, got list"),
        ("silent", "own.tell: expected GeneticState, got NoneType"),
    ],
)
def test_a_strategy_that_gives_something_else_is_refused_in_words(
    name: str, words: str, small_run: Any, play: Play, tmp_path: Path
) -> None:
    path = f"{__name__}:{name}"
    for params in (small_run(strategy=path), small_run(strategy=path, memory=0, newcomers=0)):
        with pytest.raises(ConfigError, match=words):
            play(params, tmp_path)
    search = Search(2, strategy=path, memory=0, newcomers=0)
    with pytest.raises(ConfigError, match=words):
        search.tell([0.0] * len(search.ask()))


def test_more_elites_than_parents_are_refused_before_anything_is_written(
    small_run: Any, play: Play, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"elites must be at most .*, got 99"):
        play(small_run(selection="tournament", elites=99), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hook", ["on_generation", "on_champion", "stop"])
def test_a_hook_that_cannot_be_called_is_refused_at_once(
    hook: str, small_run: Any, tmp_path: Path
) -> None:
    params = small_run()
    version = pin(params.env)
    with make_evaluator(EngineSettings(), version, params.network) as evaluator:
        given: Any = {hook: True}
        with pytest.raises(ConfigError, match=f"{hook}: expected a function, got True"):
            evolve(params, version, evaluator, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_and_resumes_in_a_real_world(
    name: str, small_run: Any, play: Play, contents: Any, tmp_path: Path
) -> None:
    params = small_run(strategy=name, generations=4)
    play(params, tmp_path / "whole")
    version = pin(params.env)

    def stop(record: GenerationRecord) -> None:
        if record.generation == 3:
            raise KeyboardInterrupt

    with (
        make_evaluator(EngineSettings(), version, params.network) as evaluator,
        pytest.raises(KeyboardInterrupt),
    ):
        evolve(params, version, evaluator, tmp_path / "broken", on_generation=stop)
    play(params, tmp_path / "broken")
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_figures_are_those_of_whose_fitness_is_finite() -> None:
    rng = np.random.default_rng(0)
    fitness = rng.normal(size=(5, 9)) * 100
    fitness[1, 3:5] = fitness[2, 1:] = fitness[3] = -np.inf
    told = [row[:, None] for row in (*fitness, fitness[0, :4])]  # the last of fewer
    records = [record_of(0, row, rng.random((len(row), 4), np.float32)) for row in told]
    table = metrics_table(records, "f" * 64).to_pylist()
    for row, played in zip(table, records, strict=True):
        assert played.row == row  # the same bytes alone
        finite = played.fitness[np.isfinite(played.fitness)]
        assert row["nonfinite"] == len(played.fitness) - len(finite)
        values = finite if len(finite) else np.array([-np.inf])
        assert (row["best"], row["worst"]) == (values.max(), values.min())
        assert np.isclose(row["mean"], values.mean())
        for name, place in QUANTILES.items():
            wanted = np.quantile(values, place) if len(finite) else -np.inf
            assert np.isclose(row[name], wanted), name


def test_diversity_is_the_root_mean_square_difference_of_pairs() -> None:
    weights = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    pairs = [weights[i] - weights[j] for i in range(7) for j in range(i)]
    assert np.isclose(diversity(weights), np.sqrt(np.mean(np.square(pairs))))
    assert diversity(weights[:1]) == diversity(np.repeat(weights[:1], 4, axis=0)) == 0
    spoilt = np.concatenate([weights, np.full((1, 5), np.nan, np.float32)])
    assert diversity(spoilt) == diversity(weights)


def test_an_individuals_rate_is_not_moved_by_a_few_floored_nodes() -> None:
    rates = np.full((2, 9), 0.004, np.float32)
    rates[:, :2] = 1.0
    found = over_nodes(rates)
    assert np.allclose(found["rate"], 0.004)
    assert np.allclose(found["rate_mean"], rates.mean(axis=1))
    assert (found["rate_min"] == rates.min(axis=1)).all()
    assert (found["rate_max"] == rates.max(axis=1)).all()
