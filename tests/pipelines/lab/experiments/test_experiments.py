from __future__ import annotations

import csv
import dataclasses
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.lab.experiments import (
    catalogue,
    checks,
    controls,
    figures,
    page,
    play,
    runner,
    still,
    targets,
)
from pipelines.lab.experiments.functions import (
    FUNCTIONS,
    MovingFunction,
    StillFunction,
    still_optimum,
)
from pipelines.lab.experiments.spec import (
    Experiment,
    Outcome,
    Recovery,
    episodes_of_a_generation,
)
from srghn.config import EnvParams
from srghn.envs import EnvVersion, pin
from srghn.errors import ConfigError
from srghn.evolution.registry import make_strategy
from tests.conftest import Srghn


def phase(number: int, generations: int | None, peak: float = 0.2, rest: float = 0.01) -> Recovery:
    return Recovery(
        phase=number,
        mode="normal",
        start=100 * number,
        generations=generations,
        evaluations=None if generations is None else 512 * (generations + 1),
        peak=peak,
        rest=rest,
        scores={"normal": 500.0, "flipped": 9.0},
    )


def run(arm: str, seed: int, *taken: int | None, **rates: float) -> Outcome:
    return Outcome(arm, seed, tuple(phase(k, g, **rates) for k, g in enumerate((3, *taken))))


@cache
def pinned(world: str) -> EnvVersion:
    return pin(EnvParams.model_validate_json(world))


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", catalogue.EXPERIMENTS)
def test_every_arm_of_every_experiment_can_be_begun(
    name: str, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "pin", lambda env: pinned(env.model_dump_json()))
    experiment = catalogue.EXPERIMENTS[name](quick)
    assert len(experiment.arms) >= 7
    checks.check(experiment)
    for arm in experiment.arms:
        params = experiment.params(arm, seed=4)
        assert params.evolution.seed == 4
        version = pinned(params.env.model_dump_json())
        switches = len(params.env.schedule)
        assert len(play.phases(params, version)) == 1 + switches
        assert switches >= 2 or experiment.until_solved or name == "ant"


def test_functions_have_their_optimum_where_the_mode_says() -> None:
    for name in FUNCTIONS:
        for mode, optimum in (("home", [10, -10]), ("away", [-10, 10])):
            env = MovingFunction(name, mode)
            _, best, ended, _, _ = env.step(np.array(optimum, np.float32))
            assert abs(float(best)) < 1e-9
            assert ended
            for shift in ([0.3, 0.0], [0.0, -0.3], [5.0, 5.0]):
                _, worse, _, _, _ = env.step(np.array(optimum, np.float32) + np.float32(shift))
                assert float(worse) < -0.05


def test_targets_are_hit_and_missed_with_the_number() -> None:
    good = [run("self-referential", s, 10, 12) for s in range(4)]
    hits = targets.cartpole_switch(good)
    assert [t.hit for t in hits] == [True, True, True], hits
    assert hits[0].value == "4 of 4"
    lost = [*good[:3], run("self-referential", 3, 10, None)]
    assert [t.hit for t in targets.cartpole_switch(lost)] == [False, True, True]
    slow = [run("self-referential", s, 10, 13) for s in range(4)]
    assert targets.cartpole_switch(slow)[1].value == "10 / 13"
    assert not targets.cartpole_switch(slow)[1].hit
    flat = [run("self-referential", s, 10, 12, peak=0.1, rest=0.05) for s in range(4)]
    assert [t.hit for t in targets.cartpole_switch(flat)] == [True, True, False]


def test_the_rates_signature_counts_solved_phases_and_is_missed_where_a_run_has_none() -> None:
    def phased(seed: int, *phases: tuple[int | None, float, float]) -> Outcome:
        made = (phase(k, taken, peak, rest) for k, (taken, peak, rest) in enumerate(phases))
        return Outcome("a", seed, tuple(made))

    def told(*runs: Outcome) -> tuple[bool, str]:
        found = targets.signature(runs, "x")
        return found.hit, found.value

    text = "falls {}, rises {} (median of the weakest solved phase); both in every solved phase in "
    good = phased(0, (3, 0.2, 0.01), (9, 0.3, 0.02), (9, 0.4, 0.02))
    assert told(good) == (True, text.format("15.0-fold", "20.0-fold") + "1 of 1 seeds")
    partly = phased(1, (3, 0.2, 0.01), (None, 0.2, 0.1), (None, 0.3, 0.1))
    assert told(good, partly) == (True, text.format("15.0-fold", "20.0-fold") + "2 of 2 seeds")
    fallen = phased(2, (None, 0.2, 0.001), (None, 0.2, 0.001), (None, 0.3, 0.001))
    assert told(fallen) == (False, text.format("–", "–") + "0 of 1 seeds")
    assert told(good, fallen) == (False, text.format("15.0-fold", "20.0-fold") + "1 of 2 seeds")
    last = phased(3, (None, 0.2, 0.1), (None, 0.2, 0.1), (9, 0.3, 0.01))
    assert told(last) == (False, text.format("30.0-fold", "–") + "0 of 1 seeds")


def test_never_is_not_as_good_as_never() -> None:
    def never(arm: str) -> list[Outcome]:
        return [run(arm, seed, None, None, None, None) for seed in range(2)]

    runs = [*never("self-referential"), *never("constant-rate 0.2")]
    assert [t.hit for t in targets.lasting(runs, 1.0, "constant-rate")] == [True, False, False]
    assert [t.hit for t in targets.ablation(runs)] == [False]
    assert [t.hit for t in targets.still([Outcome("self-referential", 0, (phase(0, None),))])] == [
        False
    ]


def test_a_run_that_never_recovers_is_not_recovered() -> None:
    assert targets.recovered(run("a", 0, 7, 900))
    assert not targets.recovered(run("a", 0, 7, None))
    assert not targets.recovered(run("a", 0, 7, 900), within=50)


def test_start_rate_wants_every_row_and_a_row_that_the_constant_rate_loses() -> None:
    own = [run(f"self-referential {r}", s, 9, 9) for r in ("0.003", "0.1") for s in range(3)]
    held = [run("constant-rate 0.003", s, None, 9) for s in range(3)]
    held += [run("constant-rate 0.1", s, 9, 9) for s in range(3)]
    found = targets.start_rate(own + held)
    assert [t.hit for t in found] == [True, True, True]
    assert found[-1].value == "0.003"
    own[0] = run("self-referential 0.003", 0, None, 9)
    held[0] = run("constant-rate 0.003", 0, 9, 9)
    assert [t.hit for t in targets.start_rate(own + held)] == [False, True, False]


def test_hidden_sizes_wants_nearly_all_seeds_of_every_width() -> None:
    arms = {"self-referential 2": (None, 9), "self-referential 16": (9, 9)}
    own = [run(arm, seed, *taken) for arm, taken in arms.items() for seed in range(3)]
    found = targets.hidden_sizes([*own, run("constant-rate 2", 0, None, None)])
    assert [(t.name, t.value, t.hit) for t in found] == [
        ("width 2", "0 of 3", False),
        ("width 16", "3 of 3", True),
    ]


def test_actions_swap_sooner_or_later_than_at_600() -> None:
    for name, moments in (
        ("cartpole-switch-300", [300, 700]),
        ("cartpole-switch-3000", [3000, 3400]),
    ):
        experiment = catalogue.EXPERIMENTS[name](False)
        params = experiment.params("ga", 0)
        assert experiment.name == name
        assert [s.generation for s in params.env.schedule] == moments
        assert params.evolution.generations == moments[1] + 400


def test_wilson_gives_the_textbook_interval() -> None:
    assert page.wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert page.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert page.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_an_unknown_experiment_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'cartpole-switch'"):
        runner.run_experiment("cartpol-switch", out=tmp_path)


@pytest.mark.parametrize("name", catalogue.EXPERIMENTS)
def test_a_question_mark_names_every_arm(name: str, tmp_path: Path) -> None:
    """As the help of --arms says."""
    with pytest.raises(ConfigError) as told:
        runner.run_experiment(name, arms=["?"], quick=True, out=tmp_path)
    arms = catalogue.EXPERIMENTS[name](True).arms
    assert str(told.value).endswith(f"; known: {', '.join(arms)}")


def test_a_question_mark_on_the_command_line_prints_the_names(srghn_here: Srghn) -> None:
    arms = list(catalogue.EXPERIMENTS["static"](False).arms)
    done = srghn_here("experiment", "static", "--arms", "?")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == arms
    done = srghn_here("experiment", "static", "--arms", "?", "--json")
    assert json.loads(done.stdout) == {"experiment": "static", "arms": arms}


def small(quick: bool = True) -> Experiment:
    """Two arms and 24 generations of a real experiment, with a small population."""
    full = catalogue.cartpole_switch(quick)
    base = catalogue._cartpole(8, 16, 24)
    base["evolution"] |= {"parents": 6, "children": 3}
    arms = {name: full.arms[name] for name in ("self-referential", "ga")}
    return dataclasses.replace(full, base=base, arms=arms, test_episodes=8)


class InPlace:
    """Runs what a pool would, in this process: worker processes would not see the small one."""

    def submit(self, function: Any, *args: Any) -> Any:
        from concurrent.futures import Future

        future: Any = Future()
        future.set_result(function(*args))
        return future

    def __enter__(self) -> InPlace:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.EXPERIMENTS, "cartpole-switch", small)
    monkeypatch.setattr(runner, "worker_pool", lambda workers: InPlace())


@pytest.mark.usefixtures("in_place")
def test_an_experiment_ends_in_a_page_two_tables_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, str]] = []
    report = runner.run_experiment(
        "cartpole-switch", seeds=2, quick=True, out=tmp_path, progress=lambda *a: told.append(a)
    )
    assert [a["arm"] for a in report["arms"]] == ["self-referential", "ga"]
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert [done for done, _ in told] == [1, 2, 3, 4]
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert [a["params"]["evolution"]["strategy"] for a in report["arms"]] == [
        "self-referential",
        "ga",
    ]
    assert all(row["score_normal"] and row["score_flipped"] for row in rows)
    text = (tmp_path / "index.html").read_text()
    # a phone gets figures of its own: the text of a wide one would shrink with it
    assert len(re.findall(r'<figure><div class="wide-drawing"><svg', text)) == 3
    assert text.count('<div class="narrow-drawing"><svg') == 3
    unnamed = re.findall(r"<td(?: class=\"[a-z]+\")?>", text)  # a row's name; a phone shows no head
    assert len(unnamed) == len(report["targets"]) + len(report["arms"])
    assert not re.search(r'(src|href)="(https?:)?//', text)
    for target in report["targets"]:
        assert target["wanted"] in text

    def never(*_: object) -> None:
        raise AssertionError("a finished run was played again")

    monkeypatch.setattr(runner, "play", never)
    assert runner.run_experiment("cartpole-switch", seeds=2, quick=True, out=tmp_path) == report
    assert (tmp_path / "index.html").read_text() == text


def test_a_page_is_made_of_scores_and_rates_that_are_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = dataclasses.replace(small(), arms={"self-referential": {}})
    crashed = dataclasses.replace(
        phase(2, None, rest=0.0), scores={"normal": -np.inf, "flipped": np.nan}
    )
    outcomes = [
        Outcome("self-referential", seed, (phase(0, 3), phase(1, 3), crashed)) for seed in (0, 1)
    ]
    frame = pd.DataFrame(
        {
            "generation": range(24), "evaluations": range(1, 25), "best": [9.0] * 23 + [-np.inf],
            "rate": 0.1, "diversity": 0.2,
        }
    )  # fmt: skip
    monkeypatch.setattr(page, "curves", lambda folder: frame)
    report = page.write(experiment, outcomes, tmp_path, quick=True)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["arms"][0]["score"] is None
    dead = [dataclasses.replace(o, phases=(crashed,) * 3) for o in outcomes]
    assert page.write(experiment, dead, tmp_path, quick=True)["arms"][0]["fall"] is None
    assert "inf×" in (tmp_path / "index.html").read_text()


def test_generalists_are_counted_where_more_than_one_mode_was_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In worlds that never return the last phase has no next mode."""
    experiment = dataclasses.replace(
        catalogue.EXPERIMENTS["never-return"](True), arms={"self-referential": {}}
    )
    scores = [{"0": 500.0, "1": 500.0}, {"1": 500.0, "2": 9.0}, {"2": 500.0}]
    phases = tuple(
        dataclasses.replace(phase(k, 3), mode=str(k), scores=each) for k, each in enumerate(scores)
    )
    outcomes = [Outcome("self-referential", 0, phases)]
    frame = page.results(experiment, outcomes)
    assert frame["generalist"].tolist() == [True, False, None]
    line = page.summary(experiment, "self-referential", outcomes)
    assert (line["generalists"], line["champions"]) == (1, 2)
    report = {"seeds": 1, "quick": True, "targets": [], "arms": [line]}
    monkeypatch.setattr(page.figures, "draw", lambda *_: "")
    text = page.html(experiment, report, pd.DataFrame({"best": [1.0]}))
    assert "Generalists (own and next mode)" in text
    assert "in every mode" not in text


def test_chosen_arms_run_beside_the_method(tmp_path: Path) -> None:
    experiment = runner.only(catalogue.start_rate(True), ["constant-rate 0.1"])
    assert list(experiment.arms) == [
        *(f"self-referential {rate:g}" for rate in (0.003, 0.01, 0.03, 0.1)),
        "constant-rate 0.1",
        "self-referential 0.3",
    ]
    assert all("constant" not in a for a in runner.only(catalogue.start_rate(True), ["none"]).arms)
    named = ["self-referential 0.1", "constant-rate 0.1"]
    assert list(runner.only(catalogue.start_rate(True), named).arms) == named
    shapes = "self-referential that sees shapes"
    several = catalogue.EXPERIMENTS["architectures"](True)
    assert shapes in several.arms
    assert list(runner.only(several, ["none"]).arms) == ["self-referential"]
    assert list(runner.only(several, [shapes]).arms) == ["self-referential", shapes]
    with pytest.raises(ConfigError, match=r"no arm of cartpole-switch 'gaa'; did you mean 'ga'"):
        runner.run_experiment("cartpole-switch", arms=["gaa"], out=tmp_path, quick=True)


@pytest.mark.usefixtures("in_place")
def test_a_stopped_run_goes_on_to_the_same_outcome(tmp_path: Path) -> None:
    experiment = small()
    whole = play.play(experiment, "ga", 0, tmp_path / "whole")
    folder = tmp_path / "torn"
    heard = play.Champions.heard

    def stop(self: Any, record: Any, champion: Any) -> None:
        heard(self, record, champion)
        if record.generation == 19:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play.Champions, "heard", stop)
        with pytest.raises(KeyboardInterrupt):
            play.play(experiment, "ga", 0, folder)
    tests = folder / "champions.jsonl"
    tests.write_text(tests.read_text() + '{"generation": 19, "sco')
    assert play.play(experiment, "ga", 0, folder) == whole
    assert [json.loads(line) for line in tests.read_text().splitlines()]


def test_other_parameters_never_take_up_a_folder(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"test_episodes": 9}, {"test_every": 2}, {"tested": "next"}, {"until_solved": True},
    ]  # fmt: skip
    folders = [
        runner.folder_of(dataclasses.replace(small(), **change), "ga", 0, tmp_path)
        for change in changes
    ]
    assert len(set(folders)) == len(changes)


def test_what_the_command_line_sets_holds_in_every_arm_and_a_typo_is_refused_at_once(
    tmp_path: Path,
) -> None:
    experiment = runner.find("many-switches", True, ["evolution.episodes=3", "ghn.hidden=4"])
    for arm in experiment.arms:
        params = experiment.params(arm, 1)
        assert (params.evolution.episodes, params.ghn.hidden) == (3, 4)
    plain = runner.find("many-switches", True, [])
    assert runner.folder_of(plain, "ga", 0, tmp_path) != runner.folder_of(
        experiment, "ga", 0, tmp_path
    )
    with pytest.raises(ConfigError, match="did you mean 'episodes'"):
        runner.run_experiment("many-switches", sets=["evolution.episode=3"], out=tmp_path)


@pytest.mark.parametrize(
    ("name", "sets", "arms", "words"),
    [
        ("start-rate", "evolution.until=475", [], r"arm self-ref.* evolution.until: .* got 475"),
        ("start-rate", "evolution.evaluations=9", [], "evolution.evaluations: .* leave it out"),
        ("start-rate", "evolution.seconds=9", [], "evolution.seconds: expected none"),
        ("start-rate", "evolution.mode=normal", [], "evolution.mode: expected none"),
        ("start-rate", "evolution.seed=3", [], "evolution.seed: .* use --seeds"),
        ("start-rate", "evolution.generations=100", [], "expected more than 100, .* got 100"),
        ("start-rate", "evolution.options.sigma=2", [], r"arm self-referential 0.003: .*options"),
        (
            "cartpole-switch", "evolution.memory=4", [],
            "arm gesmr: evolution.memory: .*; or leave this arm out .--arms names the others",
        ),
        ("cartpole-switch", "evolution.newcomers=0.5", ["cmaes"], "arm cmaes: evolution.newcomers"),
        ("cartpole-switch", "evolution.racing=8", ["ga"], "racing must leave episodes"),
        (
            "cartpole-switch", "evolution.elites=9", ["self-adaptive-ga-comma"],
            r"arm self-adaptive-ga-comma: evolution.elites must be at most .* \(8\)",
        ),
        (
            "functions-2d", "evolution.strategy=snes", ["none"],
            "arm sphere self-ref.* evolution.strategy: .* got snes; choose arms with --arms",
        ),
        ("static-cartpole", "evolution.racing=2", [], "evolution.racing: expected 0, .* got 2"),
        ("static-cartpole", "evolution.generations=3", [], "evolution.generations: expected none"),
        ("static-cartpole", "evolution.episodes=900", [], "at most 2048 evaluations, got 59400"),
    ],
)  # fmt: skip
def test_what_an_arm_cannot_have_is_refused_before_any_run(
    name: str, sets: str, arms: list[str], words: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(checks, "pin", lambda env: pinned(env.model_dump_json()))
    monkeypatch.setattr(runner, "worker_pool", lambda workers: pytest.fail("a run began"))
    with pytest.raises(ConfigError, match=words) as refused:
        runner.run_experiment(name, sets=sets.split(), arms=arms, quick=True, out=tmp_path)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("in_place")
def test_arms_that_are_left_out_refuse_nothing(tmp_path: Path) -> None:
    """CMA-ES has no memory, but is not asked."""
    sets = ["evolution.memory=4", "evolution.episodes=2"]
    report = runner.run_experiment(
        "cartpole-switch", sets=sets, arms=["ga"], seeds=1, out=tmp_path, progress=lambda *_: None
    )
    assert [arm["params"]["evolution"]["memory"] for arm in report["arms"]] == [4, 4]


def test_evaluations_stay_equal_whatever_is_set() -> None:
    sets = ["evolution.episodes=4", "evolution.parents=5", "evolution.children=3"]
    for name, budget in (("static", 2000), ("static-cartpole", 2048)):
        experiment = runner.find(name, True, sets)
        for arm in experiment.arms:
            params = experiment.params(arm, 0)
            each = episodes_of_a_generation(params)
            assert each == 4 * (15 + (params.evolution.elites if "comma" in arm else 5))
            assert budget - each < each * params.evolution.generations <= budget


def test_each_seed_has_worlds_of_its_own_that_never_return() -> None:
    experiment = catalogue.EXPERIMENTS["never-return"](True)
    one, other = (experiment.params("ga", seed).env for seed in (0, 1))
    assert one.kwargs != other.kwargs
    modes = [switch.mode for switch in one.schedule]
    assert len(set(modes)) == len(modes)
    assert "0" not in modes


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("static", still.BUDGET),
        ("static-cartpole", still.WORLDS["CartPole-v1"].budget),
        ("static-lunarlander", still.WORLDS["LunarLander-v3"].budget),
    ],
)
def test_still_arms_may_spend_the_same_number_of_episodes(name: str, budget: int) -> None:
    experiment = catalogue.EXPERIMENTS[name](False)
    spent = {}
    for arm in experiment.arms:
        params = experiment.params(arm, 0)
        strategy = make_strategy(params, pinned(params.env.model_dump_json()).interface)
        state = strategy.init(0)
        sizes = []
        for _ in range(2):
            asked = strategy.ask(state)
            sizes.append(len(asked))
            state = strategy.tell(state, asked, np.arange(len(asked), dtype=np.float64))
        spent[arm] = sizes[-1] * params.evolution.episodes * params.evolution.generations
    assert max(spent.values()) <= budget
    assert min(spent.values()) > 0.95 * budget, spent  # whole generations alone


def test_functions_of_ten_variables_stay_where_they_are() -> None:
    optimum = still_optimum(10)
    for name in FUNCTIONS:
        env = StillFunction(name)
        _, best, ended, _, _ = env.step(optimum.astype(np.float32))
        assert abs(float(best)) < 1e-9
        assert ended
        for row in np.eye(10):
            for step in (0.3, -5.0):
                _, worse, _, _, _ = env.step((optimum + step * row).astype(np.float32))
                assert float(worse) < -0.05


def test_still_targets_are_missed_where_a_control_needs_fewer_evaluations() -> None:
    def alone(arm: str, *taken: int | None) -> list[Outcome]:
        return [Outcome(arm, s, (phase(0, g),)) for s, g in enumerate(taken)]

    runs = [
        *alone("sphere self-referential", 4, 6, 9),
        *alone("sphere cmaes", 1, 2, None),
        *alone("rastrigin self-referential", 4, 6, None),
        *alone("rastrigin cmaes", None, None, 1),
    ]
    found = targets.still(runs)
    assert [(t.name, t.value, t.hit) for t in found] == [
        ("sphere", "3,584; cmaes: 1,536", False),
        ("rastrigin", "3,584; self-referential: 3,584", True),
    ]
    never = targets.still(alone("self-referential", None, None))
    assert [(t.value, t.hit) for t in never] == [
        ("not solved; self-referential: not solved", False)
    ]
    assert targets.recovered(runs[0])
    assert not targets.recovered(runs[5])


def test_a_run_on_a_function_ends_when_solved_and_is_resumed_as_it_was(tmp_path: Path) -> None:
    quick = catalogue.EXPERIMENTS["static"](True)
    single = dataclasses.replace(quick, arms={"sphere cmaes": quick.arms["sphere cmaes"]})
    folder = play.folder_of(single, "sphere cmaes", 0, tmp_path)
    found = play.play(single, "sphere cmaes", 0, folder)
    (only,) = found.judged
    assert only.scores["normal"] >= -1e-3
    assert only.generations is not None
    assert len(play.curves(folder)) == only.generations + 1
    assert play.play(single, "sphere cmaes", 0, folder) == found
    page.write(single, [found], tmp_path, quick=True)
    text = (tmp_path / "index.html").read_text()
    assert f">{only.evaluations}</td>" in text
    assert "Recovered" not in text


def test_lunarlander_switch_counts_each_phase_by_its_own_bound() -> None:
    runs = [run(arm, s, 120, 5) for arm in ("self-referential", targets.MEMORY) for s in range(9)]
    late = [run("self-referential", 9, 121, 6), run(targets.MEMORY, 9, None, None)]
    found = targets.lunarlander_switch([*runs, *late])
    assert [t.value for t in found] == ["10 of 10", "9 of 10", "9 of 10"] * 2
    assert all(t.hit for t in found)
    assert not any(t.hit for t in targets.lunarlander_switch(late)[1:3])
    assert len(targets.lunarlander_switch(late[:1])) == 3  # an arm that did not run misses nothing


def test_ant_is_judged_by_its_last_champions_beside_the_others_and_by_its_rate() -> None:
    def walker(arm: str, score: float, **rates: float) -> Outcome:
        return Outcome(
            arm, 0, (dataclasses.replace(phase(0, None, **rates), scores={"normal": score}),)
        )

    good = [walker("self-referential", 1900.0), walker("snes", 1500.0)]
    assert [t.hit for t in targets.ant(good)] == [True, True, True]
    assert targets.ant(good)[-1].value == "1900; snes: 1500"
    held = walker("self-referential", 1700.0, peak=0.1, rest=0.06)
    assert [t.hit for t in targets.ant([held, walker("snes", 1800.0)])] == [False, False, False]
    assert len(targets.ant(good[:1])) == 2


@pytest.mark.usefixtures("in_place")
def test_champions_are_tested_every_so_many_generations_and_at_the_end(tmp_path: Path) -> None:
    rare = dataclasses.replace(small(), test_every=3, solved=1e4, arms={"ga": small().arms["ga"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play.Champions, "__setattr__", _but_near)
        play.play(rare, "ga", 0, tmp_path)
    tested = list(play.read_tests(tmp_path / "champions.jsonl"))
    assert tested == [2, 5, 7, 8, 11, 14, 15, 17, 20, 23]


def _but_near(self: Any, name: str, value: Any) -> None:
    object.__setattr__(self, name, -1e9 if name == "near" else value)


def test_landers_have_time_before_the_first_switch_and_worlds_that_never_return() -> None:
    back = catalogue.EXPERIMENTS["many-switches-lunarlander"](False).params("ga", 0)
    assert [s.generation for s in back.env.schedule] == list(range(200, 1000, 80))
    assert {s.mode for s in back.env.schedule} == {"reversed", "normal"}
    assert back.evolution.generations == 1000
    new = catalogue.EXPERIMENTS["never-return-lunarlander"](False)
    modes = [s.mode for s in new.params("ga", 0).env.schedule]
    assert len(set(modes)) == 10
    assert "0" not in modes
    assert new.params("ga", 0).env.kwargs != new.params("ga", 1).env.kwargs


def lasting(arm: str, *taken: int | None) -> list[Outcome]:
    return [run(arm, seed, *taken) for seed in range(2)]


def test_wear_is_what_is_lost_and_the_first_beside_the_last_quarter() -> None:
    found = targets.wear(lasting("a", 4, 6, 9, None, 9, 9, 2, 3))
    assert found == {"lost": 2, "share": 0.125, "early": 5.0, "late": 2.5}
    assert targets.wear(lasting("a", 4, 4, None, None))["late"] is None


def test_lasting_is_missed_by_loss_by_wear_and_by_a_faster_constant() -> None:
    held = lasting("constant-rate 0.2", 9, 9, 9, 5)
    good = lasting("self-referential", 6, 6, 6, 5)
    assert [t.hit for t in targets.lasting(good + held, 0.01, "constant-rate")] == [True] * 3
    worn = lasting("self-referential", 4, 6, 6, 5)
    hits = [t.hit for t in targets.lasting(worn + held, 0.01, "constant-rate")]
    assert hits == [True, False, True]
    slow = lasting("self-referential", 6, 6, 6, 6)
    hits = [t.hit for t in targets.lasting(slow + held, 0.01, "constant-rate")]
    assert hits == [True, True, False]
    lost = lasting("self-referential", 6, None, 6, 5)
    assert not targets.lasting(lost + held, 0.01, "constant-rate")[0].hit


def test_a_switch_is_never_counted_in_parts() -> None:
    rows = [{"arm": "one", "seed": 0, "phase": phase, "generations": 5.0} for phase in range(3)]
    said = re.findall(r"<text[^>]*>(.*?)</text>", figures.draw_wear(pd.DataFrame(rows), ["one"]))
    assert said[:3] == ["1", "2", "switch"]


def test_many_switches_are_one_table_and_a_figure_of_their_own(tmp_path: Path) -> None:
    experiment = dataclasses.replace(
        catalogue.EXPERIMENTS["many-switches"](True),
        arms={"self-referential": {}, "constant-rate 0.2": controls.HELD["constant-rate 0.2"]},
    )
    outcomes = [
        run(arm, seed, *([7, None, 5, 5, 4, 4, 3, 3])) for arm in experiment.arms for seed in (0, 1)
    ]
    frame = page.results(experiment, outcomes)
    assert figures.draw_wear(frame, list(experiment.arms)).count("constant-rate 0.2") >= 1
    assert figures.draw_wear(frame, list(experiment.arms)) == figures.draw_wear(
        frame, list(experiment.arms)
    )
