"""Budgets: where a run ends, its record, and that a resumed run ends in the same bytes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srghn import seeding
from srghn.config import EVERY_FIELD, EngineSettings, EvolutionParams, RunParams
from srghn.envs import pin
from srghn.errors import ConfigError
from srghn.evaluation.base import WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution import evolve, load_run, loop, summary
from srghn.evolution.checkpoint import CheckpointWarning
from srghn.evolution.ending import ASKED, End
from srghn.evolution.metrics import GenerationRecord

Play = Callable[..., None]
Contents = Callable[[Path], dict[str, bytes]]
#: Both are reached within the small run: 6 individuals x 2 episodes a generation.
BUDGETS: list[dict[str, Any]] = [{"evaluations": 40}, {"until": 12.0, "until_episodes": 8}]


def resumed(params: RunParams, play: Play, run_dir: Path, generation: int) -> None:
    """Play until this generation, be stopped there, and go on."""

    def stop(record: GenerationRecord) -> None:
        if record.generation == generation:
            raise KeyboardInterrupt

    version = pin(params.env)
    with (
        make_evaluator(EngineSettings(), version, params.network) as evaluator,
        pytest.raises(KeyboardInterrupt),
    ):
        evolve(params, version, evaluator, run_dir, on_generation=stop)
    play(params, run_dir)


def test_evaluations_end_the_run_with_the_generation_that_spends_them(
    small_run: Any, play: Play, tmp_path: Path
) -> None:
    play(small_run(evaluations=40), tmp_path)
    run = load_run(tmp_path)
    assert run.end == End(4, "evaluations")  # 36 after three generations, 48 after four
    assert run.progress.evaluations == 48
    assert json.loads((tmp_path / "finalists.json").read_text())["ended"] == {
        "done": 4,
        "by": "evaluations",
    }


def test_a_return_counts_once_fresh_episodes_confirm_it(
    small_run: Any, play: Play, tmp_path: Path
) -> None:
    params = small_run(until=12.0, until_episodes=8, generations=60)
    play(params, tmp_path)
    run = load_run(tmp_path)
    end = run.end
    assert end is not None
    assert (end.by, end.episodes) == ("until", 8)
    assert end.validated is not None
    assert end.validated >= 12
    assert f"{end.validated:.1f} over 8 fresh episodes" in str(end)
    row = run.finalists.ids.tolist().index(end.individual)
    weights = run.finalists.weights[row : row + 1]
    seeds = seeding.seeds(params.evolution.seed, "until", 8, run.generation)
    with make_evaluator(EngineSettings(), run.version, params.network) as evaluator:
        policies = WeightedPolicies(params.network, run.version.interface, weights)
        again = evaluator.evaluate(policies, Task(run.version, run.mode, seeds))
    assert float(again.fitness[0]) == end.validated
    assert run.progress.evaluations == 12 * end.done  # the test is not counted


def test_luck_in_training_does_not_end_a_run(small_run: Any, play: Play, tmp_path: Path) -> None:
    """The first generation's best, on its own two episodes, is no bar for 64 fresh ones."""
    play(small_run(generations=1), tmp_path / "one")
    lucky = float(load_run(tmp_path / "one").fitness[0])
    params = small_run(generations=1, until=lucky, until_episodes=512)
    play(params, tmp_path / "run")
    assert load_run(tmp_path / "run").end is None


@pytest.mark.parametrize("budget", BUDGETS, ids=["evaluations", "until"])
@pytest.mark.parametrize("seconds", [5.0, 0.0])
def test_a_resumed_run_ends_in_the_same_bytes(
    seconds: float, budget: dict[str, Any], small_run: Any, play: Play, contents: Contents,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    params = small_run(generations=60, **budget)
    play(params, tmp_path / "whole")
    end = load_run(tmp_path / "whole").end
    assert end is not None
    monkeypatch.setattr(loop, "SECONDS", seconds)
    for generation in range(end.done):
        resumed(params, play, tmp_path / str(generation), generation)
        assert contents(tmp_path / str(generation)) == contents(tmp_path / "whole")
    play(params, tmp_path / "whole")  # a finished run is left as it is
    assert contents(tmp_path / "whole") == contents(tmp_path / "0")


def test_a_run_killed_between_its_last_checkpoint_and_its_summary_is_over(
    small_run: Any, play: Play, contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = small_run(evaluations=40)
    play(params, tmp_path / "whole")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(summary, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            play(params, tmp_path / "cut")
    play(params, tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves a second whenever the loop looks."""
    ticks = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(ticks)))


@pytest.mark.usefixtures("ticking")
def test_a_time_ends_a_run_and_the_generations_it_had_give_the_same_lineage(
    small_run: Any, play: Play, contents: Contents, tmp_path: Path
) -> None:
    play(small_run(seconds=3.0), tmp_path / "timed")
    end = load_run(tmp_path / "timed").end
    assert end is not None
    assert end.by == "seconds"
    assert 1 < end.done < 7
    play(small_run(generations=end.done), tmp_path / "counted")
    timed, counted = contents(tmp_path / "timed"), contents(tmp_path / "counted")
    same = [name for name in counted if name.startswith(("lineage/", "generations"))]
    assert same
    assert [timed[name] for name in same] == [counted[name] for name in same]


@pytest.mark.usefixtures("ticking")
def test_the_time_of_earlier_sittings_counts(small_run: Any, play: Play, tmp_path: Path) -> None:
    params = small_run(seconds=4.0, checkpoint_every=1)
    play(params, tmp_path / "whole")
    resumed(params, play, tmp_path / "two", 2)
    whole, two = load_run(tmp_path / "whole"), load_run(tmp_path / "two")
    assert whole.end == two.end
    assert whole.progress.seconds == two.progress.seconds >= 4


@pytest.mark.usefixtures("ticking")
def test_a_timed_run_whose_last_checkpoint_is_spoilt_ends_where_it_ended(
    small_run: Any, play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = small_run(seconds=3.0)
    play(params, tmp_path)
    run = load_run(tmp_path)
    genomes, last = run.finalists.genomes, f"{run.progress.done:08d}"
    (tmp_path / "checkpoints" / last / "state.safetensors").write_bytes(b"")
    monkeypatch.setattr(loop.time, "monotonic", lambda: 0.0)  # a machine that is much faster
    with pytest.warns(CheckpointWarning):
        play(params, tmp_path)
    again = load_run(tmp_path)
    assert again.end == run.end
    assert np.array_equal(again.finalists.genomes, genomes)


def test_a_run_that_was_asked_to_stop_says_so(small_run: Any, tmp_path: Path) -> None:
    params = small_run()
    version = pin(params.env)
    with make_evaluator(EngineSettings(), version, params.network) as evaluator:
        evolve(params, version, evaluator, tmp_path, stop=lambda record: record.generation == 2)
        assert load_run(tmp_path).end == End(3, ASKED)
        evolve(params, version, evaluator, tmp_path)
    assert load_run(tmp_path).progress.done == 3


def test_without_budgets_records_are_what_they_were() -> None:
    plain = EvolutionParams().model_dump()
    assert not {"seconds", "evaluations", "until", "until_episodes"} & set(plain)
    assert EvolutionParams(until=3.0).model_dump()["until"] == 3.0
    assert "until" in EvolutionParams().model_dump(context=EVERY_FIELD)


@pytest.mark.parametrize("budget", [{"seconds": 0}, {"evaluations": 0}, {"until_episodes": 0}])
def test_a_budget_of_nothing_is_refused(small_run: Any, budget: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"evolution\.{next(iter(budget))}"):
        small_run(**budget)
