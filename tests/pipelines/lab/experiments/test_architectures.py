"""Champions as networks of widths that evolution never saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.lab.experiments import catalogue, page, play, targets
from pipelines.lab.experiments.spec import Experiment, Outcome, Recovery
from srghn.config import EngineSettings
from srghn.envs import pin
from srghn.evaluation.base import WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution import load_run, tables
from srghn.evolution.base import NO_PARENT
from srghn.graph import trace
from srghn.networks import build_network
from srghn.seeding import seeds


def outcome(arm: str, seed: int, *phases: tuple[float, float]) -> Outcome:
    """Scores with widths 6 and 24 at the end of each phase."""
    modes = ("normal", "flipped", "normal")
    return Outcome(
        arm,
        seed,
        tuple(
            Recovery(k, modes[k], 60 * k, 3, 2000, 0.2, 0.1, {modes[k]: 500.0, "6": a, "24": b})
            for k, (a, b) in enumerate(phases)
        ),
    )


def test_most_seeds_must_solve_every_width_and_more_than_other_heads() -> None:
    good, worse = ((500.0, 476.0), (480.0, 500.0)), ((500.0, 476.0), (500.0, 470.0))
    runs = [outcome("self-referential", s, *(worse if s < 3 else good)) for s in range(10)]
    rows = [outcome("chunked", s, (500.0, 9.0), (9.0, 9.0)) for s in range(10)]
    found = targets.architectures([*runs, *rows])
    assert [t.hit for t in found] == [True, False, True]
    assert found[0].value == "10 of 10; medians 6: 500, 24: 476"
    assert found[1].value == "7 of 10"
    assert found[2].value == "10; chunked: 0"
    runs[:3] = [outcome("self-referential", s, (474.0, 500.0), (500.0, 500.0)) for s in range(3)]
    assert not targets.architectures(runs)[0].hit
    equal = [outcome("dense", s, (500.0, 500.0), (9.0, 9.0)) for s in range(7)]
    assert [t.hit for t in targets.architectures([*runs, *equal])] == [False, False, False]


def short(every: int = 2, **evolution: int) -> Experiment:
    full = catalogue.EXPERIMENTS["architectures"](True)
    small = {"generations": 3 * every, "parents": 3, "children": 3}
    evolution = {**full.base["evolution"], **small, **evolution}
    schedule = [{"generation": every * k, "mode": m} for k, m in ((1, "flipped"), (2, "normal"))]
    base = {**full.base, "evolution": evolution, "env": {**full.base["env"], "schedule": schedule}}
    return dataclasses.replace(full, base=base, test_episodes=4)


def check_last(experiment: Experiment, scores: Mapping[str, float], seed: int, out: Path) -> None:
    """The scores are of the run's best individual, with each network that its genome makes."""
    params = experiment.params("self-referential", seed)
    run, face = load_run(out / "run"), pin(params.env).interface
    champion = run.finalists.genomes[:1]
    found = {}
    for hidden in ([8], [4], [16], [6], [24]):
        kwargs = {**params.network.kwargs, "hidden": hidden}
        network = params.network.model_copy(update={"kwargs": kwargs})
        module = build_network(network, face)
        graph = trace(module, torch.zeros(1, face.observation_size))
        weights = run.strategy.encoding.generate(champion, graph)
        task = Task(run.version, "normal", seeds(0, "champion-test", experiment.test_episodes))
        with make_evaluator(EngineSettings(), run.version, network) as evaluator:
            played = evaluator.evaluate(WeightedPolicies(network, face, weights), task)
        found[hidden[0]] = float(played.fitness[0])
    assert scores["6"] == found[6]
    assert scores["24"] == found[24]
    assert scores["normal"] == min(found[8], found[4], found[16])


def test_the_last_champions_genome_makes_every_width(tmp_path: Path) -> None:
    experiment = short()
    found = play.play(experiment, "self-referential", 0, tmp_path)
    assert [set(p.scores) for p in found.phases] == [
        {"normal", "6", "12", "24"},
        {"flipped", "6", "12", "24"},
        {"normal", "6", "12", "24"},
    ]
    check_last(experiment, found.phases[-1].scores, 0, tmp_path)
    assert play.play(experiment, "self-referential", 0, tmp_path) == found


def test_champions_are_tested_while_newcomers_are_born(tmp_path: Path) -> None:
    experiment = short(8, parents=6, children=4)
    found = play.play(experiment, "self-referential", 1, tmp_path)
    rows = tables.read(tmp_path / "run" / "lineage").to_pandas()
    assert (rows["parent"][rows["birth"] == 23] == NO_PARENT).any()
    check_last(experiment, found.phases[-1].scores, 1, tmp_path)


def test_under_racing_the_champion_is_best_by_its_fitness(tmp_path: Path) -> None:
    """Not by the last heat alone, which is a call of the evaluator of its own."""
    experiment = short(5, episodes=4, racing=2)
    found = play.play(experiment, "self-referential", 2, tmp_path)
    check_last(experiment, found.phases[-1].scores, 2, tmp_path)


def test_a_width_that_the_dense_head_cannot_make_scores_nothing(tmp_path: Path) -> None:
    found = play.play(short(), "dense", 0, tmp_path)
    assert all(phase.scores["24"] == 0 < phase.scores["12"] for phase in found.phases)


def test_the_page_has_a_column_for_each_width() -> None:
    experiment = catalogue.EXPERIMENTS["architectures"](True)
    scores = {"normal": 500.0, "6": 500.0, "12": 480.0, "24": 9.0}
    phase = Recovery(0, "normal", 0, 3, 2000, 0.2, 0.1, scores)
    flipped = {"flipped" if k == "normal" else k: 500.0 for k in scores}
    after = dataclasses.replace(phase, phase=1, mode="flipped", scores=flipped)
    runs = [Outcome("self-referential", seed, (phase, after)) for seed in range(2)]
    frame = page.results(experiment, runs)
    assert frame["score_24"].tolist() == [9.0, 500.0] * 2
    assert frame["generalist"].tolist() == [False, True] * 2
    line = page.summary(experiment, "self-referential", runs)
    assert line["unseen"] == {"6": 500.0, "12": 490.0, "24": 254.5}
    assert (line["generalists"], line["champions"]) == (2, 4)
    assert np.isfinite(line["fall"])


@pytest.mark.parametrize("arm", ["self-referential", "width 8 alone", "constant-rate"])
def test_every_arm_is_tested_at_widths_that_it_never_evolves_for(arm: str) -> None:
    experiment = catalogue.EXPERIMENTS["architectures"](False)
    evolved = [network.kwargs["hidden"][0] for network in experiment.params(arm, 0).networks]
    assert evolved == ([8] if arm == "width 8 alone" else [8, 4, 16])
    assert not set(evolved) & {int(name) for name in experiment.networks}
