"""From a run to a candidate by the library alone: choose, freeze, load, play."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from srghn import seeding
from srghn.candidates import (
    Candidate,
    Choice,
    choose_finalist,
    freeze_finalist,
    freeze_founder,
    load_candidate,
    observe,
    play_candidate,
)
from srghn.candidates.check import check_network
from srghn.candidates.founder import founder_of
from srghn.candidates.freeze import freeze, load_weights
from srghn.candidates.play import LEAST_GOLDEN
from srghn.config import EnvParams, EvaluateParams, NetworkParams, RunParams
from srghn.envs import Perturbation, default_cells, pin
from srghn.envs.interface import Interface
from srghn.errors import ArtefactError, ConfigError, EvaluationError, ObservationError
from srghn.evaluation.base import (
    Crash,
    Evaluation,
    Evaluator,
    WeightedPolicies,
    choose_backend,
    make_backend,
)
from srghn.evaluation.task import Task
from srghn.evolution import Ancestry, Run, Search, evolve, load_run, rebuild
from srghn.networks import build_network
from tests.tiny import record_of, tiny_params

RULES = EvaluateParams(finalists=2, episodes=4, cell_episodes=2)


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    params = RunParams.model_validate(tiny_params())
    world = pin(params.env)
    return make_backend(choose_backend(world, params.network), world, params.network)


@pytest.fixture(scope="module")
def run(evaluator: Evaluator, tmp_path_factory: pytest.TempPathFactory) -> Run:
    params = RunParams.model_validate(tiny_params())
    folder = tmp_path_factory.mktemp("library") / "run"
    evolve(params, pin(params.env), evaluator, folder)
    return load_run(folder)


def test_the_same_run_gives_the_same_choice_and_candidate(
    run: Run, evaluator: Evaluator, tmp_path: Path
) -> None:
    choice = choose_finalist(run, evaluator, RULES)
    assert choose_finalist(run, evaluator, RULES) == choice
    one = freeze_finalist(run, choice, tmp_path / "one")
    again = freeze_finalist(run, choice, tmp_path / "again")
    assert one.digest == again.digest
    assert one.manifest["validation"] == choice.validation
    assert one.manifest["params"]["evaluate"] == RULES.model_dump()
    assert set(choice.validation) == {"mean", "episodes", "worst_cell"}


def test_the_best_mean_wins_and_among_equals_the_best_worst_cell(
    run: Run, evaluator: Evaluator
) -> None:
    means = []
    for row in range(2):
        alone = evaluator.evaluate(
            _policies(run, row),
            Task(
                run.version,
                run.mode,
                seeding.seeds(run.params.evolution.seed, "finalist", RULES.episodes),
            ),
        )
        means.append(float(alone.fitness[0]))
    exact = RULES.model_copy(update={"tolerance": 0.0})
    assert choose_finalist(run, evaluator, exact).row == int(np.argmax(means))
    assert choose_finalist(run, evaluator, exact).validation["mean"] == max(means)


@dataclass(frozen=True)
class Cell:
    name: str
    mode: str
    perturbation: Perturbation | None = None


def test_finalists_are_chosen_by_the_cells_that_are_given(run: Run, evaluator: Evaluator) -> None:
    """Those of a suite, in whatever mode; its own cells, written out, choose as none do."""
    other = next(mode for mode in run.version.modes if mode != run.mode)
    exact = RULES.model_copy(update={"tolerance": 1e9})  # all are equals: the worst cell decides
    seeds = seeding.seeds(
        run.params.evolution.seed, "finalist-cell", RULES.cell_episodes, "elsewhere"
    )
    played = [
        float(evaluator.evaluate(_policies(run, row), Task(run.version, other, seeds)).fitness[0])
        for row in range(2)
    ]
    assert played[0] != played[1]  # or the test could not fail
    for swap in (1, -1):  # whatever the world's own cells prefer
        signed = cast("Evaluator", _Signed(evaluator, swap))
        choice = choose_finalist(run, signed, exact, None, [Cell("elsewhere", other)])
        assert choice.row == int(np.argmax(np.multiply(swap, played)))
    assert choice.validation["cells"] == ["elsewhere"]
    own = [Cell(str(cell), run.mode, cell) for cell in default_cells(run.version)]
    given = choose_finalist(run, evaluator, RULES, None, own)
    plain = choose_finalist(run, evaluator, RULES)
    assert given.validation == {**plain.validation, "cells": [cell.name for cell in own]}
    assert given.row == plain.row


class _Signed:
    """An evaluator whose fitness is that of another one, times a sign."""

    def __init__(self, evaluator: Evaluator, sign: int) -> None:
        self._evaluator, self._sign = evaluator, sign

    def evaluate(self, policies: Any, task: Task) -> Any:
        found = self._evaluator.evaluate(policies, task)
        return replace(found, returns=self._sign * found.returns)


class _Spy(_Signed):
    """One that keeps the seeds of each of its tasks."""

    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__(evaluator, 1)
        self.seeds: list[int] = []

    def evaluate(self, policies: Any, task: Task) -> Any:
        self.seeds += task.seeds.tolist()
        return super().evaluate(policies, task)


def test_a_continued_run_chooses_on_episodes_of_its_own(run: Run, evaluator: Evaluator) -> None:
    """With the same root seed, its ancestor was chosen on those of a first run."""
    evolution = run.params.evolution.model_copy(update={"ancestor": "d" * 64})
    more = replace(run, params=run.params.model_copy(update={"evolution": evolution}))
    state = replace(run.progress.state, generation=run.progress.state.generation + 1)
    last = replace(more, progress=replace(run.progress, state=state))
    played = []
    for each in (run, more, more, last):
        choose_finalist(each, cast("Evaluator", spy := _Spy(evaluator)), RULES)
        played.append(spy.seeds)
    first, second, again, third = played
    plain = seeding.seeds(evolution.seed, "finalist", RULES.episodes)  # as in every version
    assert first[: RULES.episodes] == plain.tolist()
    assert second == again
    assert len({*first, *second, *third}) == 3 * len(set(first))


def _policies(run: Run, row: int):  # type: ignore[no-untyped-def]
    from srghn.evaluation.base import WeightedPolicies

    weights = run.finalists.weights[row : row + 1]
    return WeightedPolicies(run.params.network, run.version.interface, weights)


@pytest.mark.parametrize(
    ("mean", "worst", "row", "validation"),
    [
        ([10.0, 20.0, 500.0], [5.0, 5.0, -np.inf], 2, {"mean": 500.0}),
        ([10.0, 498.0, 500.0], [5.0, -np.inf, -np.inf], 2, {"mean": 500.0}),
        ([10.0, 498.0, 500.0], [5.0, 80.0, 70.0], 1, {"mean": 498.0, "worst_cell": 80.0}),
    ],
)
def test_who_crashes_in_a_cell_is_still_chosen_among_the_best_alone(
    run: Run,
    evaluator: Evaluator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mean: list[float],
    worst: list[float],
    row: int,
    validation: dict[str, float],
) -> None:
    played = np.array(mean), np.array(worst), None
    monkeypatch.setattr("srghn.candidates.choose._play", lambda *_: played)
    choice = choose_finalist(run, evaluator, EvaluateParams(finalists=3, episodes=4))
    assert choice.row == row
    assert choice.validation == {**validation, "episodes": 4}


def test_what_crashed_is_frozen_without_figures_that_there_are_not(
    run: Run, evaluator: Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = min(2, len(run.finalists))
    played = np.full(count, 9.0), np.full(count, -np.inf), None
    monkeypatch.setattr("srghn.candidates.choose._play", lambda *_: played)
    choice = choose_finalist(run, evaluator, RULES)
    monkeypatch.setattr(Run, "fitness", np.full_like(run.fitness, -np.inf))
    frozen = freeze_finalist(run, choice, tmp_path / "candidate")
    assert frozen.manifest["validation"] == {"mean": 9.0, "episodes": 4}
    assert frozen.manifest["training_fitness"] is None


def test_where_all_finalists_crash_the_first_crash_is_told(run: Run, evaluator: Evaluator) -> None:
    class Crashing:
        """An evaluator whose every episode crashes."""

        def evaluate(self, policies: WeightedPolicies, task: Task) -> Evaluation:
            played = evaluator.evaluate(policies, task)
            crash = Crash(0, int(task.seeds[0]), 300, "ValueError: motor\nstalled")
            lost = np.full_like(played.returns, -np.inf)
            return replace(played, returns=lost, crashes=(crash, replace(crash, step=7)))

    said = (
        r"^each of 2 finalists crashed in one of its 4 fresh episodes; the first: seed \d+, "
        r"step 300: ValueError: motor stalled$"
    )
    with pytest.raises(EvaluationError, match=said):
        choose_finalist(run, cast(Evaluator, Crashing()), RULES)


def test_actions_of_a_wide_range_are_compared_in_its_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rounding of an action of 855 is more than 1e-5."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    world = {"id": "broken_worlds:OneArray", "max_episode_steps": 20}
    params = RunParams.model_validate(
        {"env": world, "evolution": tiny_params(parents=4)["evolution"]}
    )
    version = pin(params.env)
    check_network(params, version)
    with make_backend("gymnasium", version, params.network) as backend:
        evolve(params, version, backend, tmp_path / "run")
        found = load_run(tmp_path / "run")
        choice = choose_finalist(found, backend, RULES)
    frozen = freeze_finalist(found, choice, tmp_path / "candidate")
    _, actions = frozen.golden
    assert np.abs(actions).max() > 100
    frozen.check_golden()


def test_progress_is_told_to_the_end(run: Run, evaluator: Evaluator) -> None:
    told: list[tuple[int, int]] = []
    choose_finalist(run, evaluator, RULES, lambda done, total, note: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))
    assert len(told) > 1
    with pytest.raises(ConfigError, match="choose_finalist: progress: expected a function, got 3"):
        choose_finalist(run, evaluator, RULES, 3)  # type: ignore[arg-type]


def test_golden_observations_are_those_the_evolved_policy_meets(run: Run, tmp_path: Path) -> None:
    """Not those of the network as it was built, which the evolved one may never see."""
    candidate = freeze_finalist(run, Choice(0, {}, RULES), tmp_path / "candidate")
    network = build_network(run.params.network, run.version.interface)
    seeds = seeding.seeds(run.params.evolution.seed, "golden", 4)
    unevolved, _ = observe(run.version, run.mode, network, seeds)
    load_weights(network, run.finalists.weights[0])
    met, _ = observe(run.version, run.mode, network, seeds)
    np.testing.assert_array_equal(candidate.golden[0], met)
    assert unevolved.shape != met.shape or not np.array_equal(unevolved, met)


def test_episodes_of_one_step_give_enough_golden_observations() -> None:
    """As in Blackjack; the gate asks for eight, and where episodes are longer four are enough."""
    version = pin(EnvParams(id="CartPole-v1", max_episode_steps=1))
    params = NetworkParams(module="srghn.policies:MLP", kwargs={"hidden": [2]})
    network = build_network(params, version.interface)
    seeds = seeding.seeds(0, "golden", 64)
    assert len(observe(version, "normal", network, seeds, 4)[0]) == LEAST_GOLDEN > 8
    longer = pin(EnvParams(id="CartPole-v1", max_episode_steps=5))
    met, _ = observe(longer, "normal", network, seeds, 4)
    np.testing.assert_array_equal(met, observe(longer, "normal", network, seeds[:4])[0])


def test_a_founder_is_frozen_unevolved(run: Run, tmp_path: Path) -> None:
    founder = freeze_founder(run, tmp_path / "founder", "flipped")
    assert (founder.generation, founder.mode) == (0, "flipped")
    assert founder.manifest["validation"]["episodes"] == 0
    best = run.ancestry(int(run.finalists.ids[0])).chain[0]
    chain = json.loads((founder.path / "ancestry.json").read_text())["chain"]
    assert [row[2] for row in chain] == [best.noise_seed]


def test_the_founder_of_a_search_is_the_first_that_it_drew(
    evaluator: Evaluator, tmp_path: Path
) -> None:
    params = RunParams.model_validate(tiny_params(strategy="openes", generations=2))
    evolve(params, pin(params.env), evaluator, tmp_path / "run")
    run = load_run(tmp_path / "run")
    founder = freeze_founder(run, tmp_path / "founder")
    first = run.strategy.ask(run.strategy.init(params.evolution.seed))
    assert founder.load_genome().tobytes() == first.weights[0].tobytes()
    assert (founder.generation, founder.manifest["training_fitness"]) == (0, run.lineage.fitness[0])
    told = Ancestry.from_json(founder.ancestry)
    assert rebuild(told, run.params, run.version.interface).tobytes() == first.weights[0].tobytes()


def test_results_fit_a_notebook(run: Run, evaluator: Evaluator, tmp_path: Path) -> None:
    """Short by `repr`; those that have a card escape what they hold."""
    choice = choose_finalist(run, evaluator, RULES)
    candidate = freeze_finalist(run, choice, tmp_path / "<b>")
    founder = founder_of(candidate, run.version)
    search = Search(100)
    search.tell(search.ask().sum(axis=1))
    played, record = play_candidate(candidate, 2), record_of(3, np.ones((40, 9)), np.ones((40, 9)))
    for shown in (run, run.finalists, run.lineage, choice, candidate, founder, played, record):
        assert len(repr(shown).replace(str(tmp_path), "")) < 250, type(shown)
    assert len(repr(founder.ancestry)) < 250
    assert repr(evaluator) == "CompiledCartPole(cartpole-mlp, in process)"
    cards = [each._repr_html_() for each in (run, choice, candidate, played, search)]
    for card, words in zip(
        cards,
        ("7 of 7", "mean return, optimistic", candidate.digest, "crashed episodes", "100"),
        strict=True,
    ):
        assert words in card
        assert len(card) < 1500
    assert "<b>" not in cards[2]


def test_a_candidate_is_loaded_and_played(run: Run, tmp_path: Path) -> None:
    freeze_finalist(run, Choice(0, {"mean": 1.0}, RULES), tmp_path / "candidate")
    candidate = load_candidate(str(tmp_path / "candidate"))
    played = play_candidate(candidate, 5)
    assert played.returns.shape == (1, 5)
    np.testing.assert_array_equal(played.returns, play_candidate(candidate, 5).returns)
    assert not np.array_equal(played.returns, play_candidate(candidate, 5, seed=1).returns)
    network = build_network(run.params.network, run.version.interface)
    load_weights(network, run.finalists.weights[0])
    with torch.no_grad():
        said = network(torch.from_numpy(candidate.golden[0])).numpy().argmax(1)
    np.testing.assert_array_equal(candidate.golden[1], said)
    np.testing.assert_array_equal(played.returns, play_candidate(str(candidate.path), 5).returns)
    _refuses_in_words(candidate)
    (candidate.path / "policy.onnx").write_bytes(b"torn")
    with pytest.raises(ArtefactError, match=r"policy\.onnx was changed: .* restore .* rollback"):
        load_candidate(candidate.path)


def _refuses_in_words(candidate: Candidate) -> None:
    for episodes in (-1, 0, 2.5):
        with pytest.raises(ConfigError, match=f"from 1 on, got {episodes}"):
            play_candidate(candidate, episodes)  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match=r"made for interface .*Pendulum-v1 has"):
        play_candidate(candidate, 2, version=pin("Pendulum-v1"))
    with pytest.raises(ConfigError, match="expected Candidate, got NoneType"):
        play_candidate(None)  # type: ignore[arg-type]
    policy = candidate.policy()
    for bad, got in ((np.zeros((2, 4)), "float64"), (np.zeros(4, np.float32), r"float32 \(4,\)")):
        with pytest.raises(ObservationError, match=rf"float32 \(n, 4\), got {got}"):
            policy(bad)


def test_reading_a_candidate_imports_no_torch() -> None:
    code = "import sys, srghn.candidates as c; c.load_candidate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_actions_beyond_every_number_are_not_frozen(tmp_path: Path) -> None:
    """A box without a bound takes any output; JSON has no infinity."""
    face = Interface(2, (None,), (None,), "box", action_shape=(1,), action_low=(0.0,))
    face = replace(face, action_high=(None,))
    network = torch.nn.Linear(2, 1)
    huge = np.array([3e38, 3e38, 0.0], dtype=np.float32)
    with pytest.raises(ArtefactError, match="not all finite for observations that it met"):
        freeze(
            tmp_path / "candidate",
            network=network,
            weights=huge,
            genome=huge,
            interface=face,
            env_version="{}",
            ancestry="{}",
            observations=np.full((8, 2), 2.0, np.float32),
            manifest={},
        )
    assert not (tmp_path / "candidate").exists()
