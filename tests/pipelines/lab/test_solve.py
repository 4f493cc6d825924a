"""How long a world takes to be solved, what is left out of it, and a table that resumes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

from pipelines.lab.bench.solve import ours, run, watch
from pipelines.lab.bench.solve.goals import GOALS
from pipelines.lab.bench.solve.ours import Attempt, attempt
from srghn.config import EngineSettings, RunParams, parse_params
from srghn.envs import pin
from srghn.errors import ConfigError, ServiceError
from srghn.evaluation.base import make_evaluator
from srghn.evolution import STRATEGIES, evolve, load_run
from srghn.evolution.base import Population

CARTPOLE = GOALS["CartPole-v1"]


def test_cartpole_is_solved_and_a_seed_takes_the_same_steps() -> None:
    one, other = (attempt(CARTPOLE, "self-referential", 1, 60.0) for _ in range(2))
    assert one.solved
    assert one.score >= 475
    assert one.steps == other.steps > 0
    assert 0 < one.cpu_seconds < 60


def test_a_run_that_does_not_solve_it_in_time_is_censored() -> None:
    hard = replace(CARTPOLE, bar=501.0)
    ticks = itertools.count()
    found = attempt(hard, "self-referential", 1, 3.0, clock=lambda: float(next(ticks)))
    assert not found.solved
    assert math.isnan(found.score)
    assert found.cpu_seconds >= 3


def test_a_run_that_gets_there_after_the_limit_has_not_solved_it() -> None:
    easy = replace(CARTPOLE, bar=1.0)
    ticks = itertools.count()
    found = attempt(easy, "self-referential", 1, 0.5, clock=lambda: float(next(ticks)))
    assert (found.solved, found.cpu_seconds) == (False, 1.0)
    in_time = attempt(easy, "self-referential", 1, 1.5, clock=lambda: float(next(ticks)))
    assert (in_time.solved, in_time.cpu_seconds) == (True, 1.0)
    late = watch.Watch({"env": "CartPole-v1", "bar": 1.0, "seed": 0, "limit": 0.0, "episodes": 2})
    late.test(lambda row: 0, 0)
    assert not late.solved


def test_tests_are_not_counted() -> None:
    """By a clock that only moves while a test is played."""
    seconds = 0.0

    def slow(self: ours._Judge, generation: int, champion: Any) -> float:
        nonlocal seconds
        seconds += 1000.0
        return 500.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours._Judge, "_test", slow)
        found = attempt(CARTPOLE, "self-referential", 1, 60.0, clock=lambda: seconds)
    assert found.solved
    assert found.cpu_seconds == 0


def test_under_racing_who_is_best_by_fitness_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not who is best in the last heat alone, which is a call of the evaluator of its own."""
    tested: list[Any] = []

    def failed(self: ours._Judge, generation: int, champion: Population) -> float:
        tested.append((generation, champion.weights.tobytes()))
        return 0.0

    monkeypatch.setattr(ours._Judge, "_test", failed)
    size = {"generations": 8, "parents": 4, "children": 3, "episodes": 4, "racing": 2}
    raced = replace(CARTPOLE, bar=1.0, ours={**CARTPOLE.ours, "evolution": size})
    attempt(raced, "self-referential", 1, 60.0)
    params, best = parse_params(raced.params("self-referential", 1), "test"), []
    version = pin(params.env)
    with make_evaluator(EngineSettings(), version, params.network) as inner:
        for count in range(1, 9):
            evolution = params.evolution.model_copy(update={"generations": count})
            folder = tmp_path / str(count)
            evolve(params.model_copy(update={"evolution": evolution}), version, inner, folder)
            best.append((count - 1, load_run(folder).finalists.weights[:1].tobytes()))
    assert tested == best


@pytest.mark.parametrize("goal", GOALS.values(), ids=lambda g: g.env)
def test_every_goal_has_settings_for_everyone(goal: object) -> None:
    assert isinstance(goal, type(CARTPOLE))
    for strategy in run.OURS:
        assert strategy in STRATEGIES
        params = parse_params(goal.params(strategy, 3), "test")
    pin(params.env)  # it can be reproduced
    assert goal.ppo["n_timesteps"] >= 20_000


def made(contestant: str, seed: int, solved: bool, seconds: float) -> Attempt:
    return Attempt("CartPole-v1", contestant, seed, solved, seconds, 100, 480.0)


def test_a_stopped_bench_resumes_from_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def one(goal: object, contestant: str, seed: int, limit: float, home: Path) -> Attempt:
        asked.append(seed)
        return made(contestant, seed, True, 0.1)

    monkeypatch.setattr(run, "_one", one)
    out = tmp_path / "deep" / "solve.csv"
    kinds = {"worlds": ["CartPole-v1"], "contestants": ["self-referential"], "say": lambda _: None}
    first = run.bench_solve(out, tmp_path, seeds=2, **kinds)  # type: ignore[arg-type]
    again = run.bench_solve(out, tmp_path, seeds=3, **kinds)  # type: ignore[arg-type]
    assert asked == [0, 1, 2]
    assert again[:2] == first == run.read(out)[:2]
    run.bench_solve(out, tmp_path, seeds=1, limit=60.0, **kinds)  # type: ignore[arg-type]
    assert asked == [0, 1, 2, 0]  # a run with another limit is another run
    assert len(run.read(out)) == 4
    out.write_text(out.read_text().replace(",settings", ""))  # a table of an earlier version
    run.bench_solve(out, tmp_path, seeds=1, **kinds)  # type: ignore[arg-type]
    assert asked == [0, 1, 2, 0, 0]
    assert [a.settings for a in run.read(out)].count("") == 3


def test_a_peer_that_is_not_installed_is_skipped_with_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    found = run.bench_solve(
        tmp_path / "solve.csv", tmp_path, worlds=["CartPole-v1"], contestants=[run.PPO], seeds=1,
        say=said.append,
    )  # fmt: skip
    assert found == []
    assert "not installed, skipped" in said[-1]
    with pytest.raises(ConfigError, match="knows no world 'CartPole'"):
        run.bench_solve(tmp_path / "solve.csv", tmp_path, worlds=["CartPole"])


@pytest.mark.parametrize(
    ("act", "episodes", "solved"),
    [(lambda row: 0, 10, False), (lambda row: int(row[2] + row[3] > 0), 100, True)],
)
def test_a_peer_that_is_far_below_the_bar_plays_ten_episodes_of_a_test(
    act: Any, episodes: int, solved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, played = gym.make("CartPole-v1"), []
    start = made.reset
    monkeypatch.setattr(made, "reset", lambda **asked: played.append(asked) or start(**asked))
    monkeypatch.setattr(watch.gym, "make", lambda name: made)
    spec = {"env": "CartPole-v1", "bar": 450.0, "seed": 0, "limit": 1e9, "episodes": 100}
    found = watch.Watch(spec)
    found.test(act, 0)
    assert (len(played), found.solved) == (episodes, solved)


@pytest.mark.parametrize(("bar", "episodes"), [(300.0, [10]), (1.0, [10, 90])])
def test_we_are_tested_as_peers_are(bar: float, episodes: list[int]) -> None:
    goal = replace(CARTPOLE, bar=bar)
    played: list[int] = []

    class Scores:
        def evaluate(self, policies: Any, task: Any) -> Any:
            played.append(len(task.seeds))
            return SimpleNamespace(returns=np.full((1, len(task.seeds)), 250.0))

    params = parse_params(goal.params("cmaes", 0), "test")
    judge = ours._Judge(Scores(), goal, params, pin(params.env), 9.0, lambda: 0.0)  # type: ignore[arg-type]
    assert judge._test(0, SimpleNamespace(weights=np.zeros((1, 58), np.float32))) == 250  # type: ignore[arg-type]
    assert played == episodes


def test_other_defaults_and_another_program_of_a_peer_are_other_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def settings() -> list[str]:
        return [run.settings_of(CARTPOLE, name, 60.0) for name in (*run.OURS, *run.PEERS)]

    before, ours = settings(), len(run.OURS)
    assert len(set(before)) == len(before)
    assert settings() == before

    def other_default(data: dict[str, Any], origin: str) -> RunParams:
        return parse_params({**data, "evolution": {"family_limit": 7, **data["evolution"]}}, origin)

    with monkeypatch.context() as patch:
        patch.setattr(run, "parse_params", other_default)
        after = settings()
    assert [a != b for a, b in zip(before, after, strict=True)] == [True] * ours + [False] * 3
    with monkeypatch.context() as patch:
        patch.setattr(
            run, "sha256_file", lambda path: "changed" if path.name == "ppo.py" else "as it was"
        )
        one = settings()
        patch.setattr(run, "sha256_file", lambda path: "as it was")
        other = settings()
    changed = [a != b for a, b in zip(one, other, strict=True)]
    assert changed == [False] * ours + [True, False, False]


def test_a_peer_that_fails_has_not_solved_it_and_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def one(goal: object, contestant: str, seed: int, limit: float, home: Path) -> Attempt:
        asked.append(seed)
        if seed == 1:
            raise ServiceError("pycma failed on CartPole-v1: no memory")
        return made(contestant, seed, True, 0.1)

    monkeypatch.setattr(run, "_one", one)
    said: list[str] = []
    out = tmp_path / "solve.csv"
    kinds = {"worlds": ["CartPole-v1"], "contestants": [run.PYCMA], "say": said.append}
    for _ in range(2):
        found = run.bench_solve(out, tmp_path, seeds=3, **kinds)  # type: ignore[arg-type]
        assert "pycma failed on CartPole-v1: no memory" in said
        (row,) = run.rows(found)
        assert row[2:5] == ("2 of 3", "0.1", "0.1 failed 0.1")
        assert list(run.rows(run.read(out))) == [row]
    assert asked == [0, 1, 2, 1]


def test_pycma_plays_as_its_users_write_it(tmp_path: Path) -> None:
    easy = replace(CARTPOLE, bar=60.0)
    found = run._peer(easy, run.PYCMA, 3, 20.0, tmp_path)
    assert found.solved
    assert found.score >= 60
    assert found.steps > 0
    hard = run._peer(replace(CARTPOLE, bar=501.0), run.PYCMA, 3, 0.5, tmp_path)
    assert not hard.solved
    assert hard.cpu_seconds >= 0.5


def test_a_peer_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"pycma failed on NoSuch-v0: .*NoSuch"):
        run._peer(replace(CARTPOLE, env="NoSuch-v0"), run.PYCMA, 0, 1.0, tmp_path)


def test_the_page_has_the_table_of_the_committed_runs(pytestconfig: pytest.Config) -> None:
    docs = pytestconfig.rootpath / "docs"
    made = run.read(docs / "results" / "solve.csv")
    lines = [run.HEADINGS, tuple("---" for _ in run.HEADINGS), *run.rows(made)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    assert table in (docs / "solve.md").read_text()
    assert len({(a.env, a.contestant, a.seed) for a in made}) == len(made) > 0


def test_unsolved_runs_are_shown_and_count_as_never() -> None:
    runs = [made("a", 0, True, 2.0), made("a", 1, False, 60.0), made("a", 2, False, 60.0)]
    assert run.median(runs, "cpu_seconds") == run.median(runs, "steps") == math.inf
    assert [row[5] for row in run.rows(runs)] == ["not solved"]
    console = Console(width=140, record=True, file=None)
    console.print(run.table(runs))
    text = console.export_text()
    assert "1 of 3" in text
    assert "not solved" in text
    assert ">60" in text
