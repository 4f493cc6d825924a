"""A drop of fitness is noticed, answered by larger steps and by memory, and replayed to the bit."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from srghn.config import EvolutionParams, RunParams, parse_params
from srghn.envs.interface import Interface
from srghn.errors import ConfigError
from srghn.evolution import make_strategy
from srghn.evolution.alarm import Alarm
from srghn.evolution.alert import Alert, AlertState
from srghn.evolution.ancestry import grow
from srghn.evolution.base import NO_PARENT, pack, unpack
from srghn.evolution.self_referential import BirthRecipe
from srghn.yaml_files import parse_yaml

LINE = Interface(1, (None,), (None,), "box", (1,), action_low=(None,), action_high=(None,))
HERE, THERE = np.array([1.5, -1.0]), np.array([-1.5, 1.0])


def run_params(strategy: str = "self-referential", **evolution: Any) -> RunParams:
    return parse_params(
        {
            "network": {"kwargs": {"hidden": []}},
            "ghn": {
                "hidden": 6,
                "basis_width": 6,
                "stress": strategy.endswith(("self-referential", "self_referential")),
                "keep_spread": True,
            },
            "evolution": {
                "strategy": strategy,
                "parents": 4,
                "children": 5,
                "memory": 3,
                "newcomers": 0.0,
                **evolution,
            },
        },
        "test",
    )


def played(
    strategy: Any, state: Any, *stretches: tuple[Any, int]
) -> tuple[Any, list[tuple[Any, Any]]]:
    """The state after stretches of (optimum, generations), and (state, population) of each."""
    seen = []
    for optimum, generations in stretches:
        for _ in range(generations):
            population = strategy.ask(state)
            seen.append((state, population))
            fitness = -((population.weights.astype(np.float64) - optimum) ** 2).sum(axis=1)
            state = strategy.tell(state, population, fitness)
    return state, seen


@pytest.fixture(scope="module")
def alert() -> Alert:
    found = make_strategy(run_params(), LINE)
    assert isinstance(found, Alert)
    return found


def after(alarm: Alarm, *generations: list[float]) -> Alarm:
    for fitness in generations:
        alarm = alarm.after(np.array(fitness))
    return alarm


def test_the_alarm_is_raised_below_the_last_quartile_and_ends_within_a_twentieth() -> None:
    alarm = after(Alarm(), [100.0, 98.0, 0.0])
    assert (alarm.level, alarm.low, alarm.usual, alarm.on) == (100.0, 99.0, 2.0, False)
    assert not after(alarm, [85.0, 0.0, 0.0]).on
    assert not after(replace(alarm, low=80.0), [81.0, 0.0, 0.0]).on
    fallen = after(alarm, [83.0, 0.0, 0.0])
    assert fallen.on
    assert fallen.level == 100.0
    deeper = after(fallen, [0.0, 0.0, 0.0])
    assert deeper.on
    assert after(deeper, [90.0, 0.0, 0.0]).on
    assert not after(deeper, [96.0, 0.0, 0.0]).on


def test_an_alarm_ends_in_a_world_in_which_the_old_level_cannot_be_reached() -> None:
    alarm, lasted = after(Alarm(100.0, 60.0, 100.0), [0.0, 0.0]), 0
    while alarm.on:
        alarm, lasted = after(alarm, [40.0, 0.0]), lasted + 1
    assert 300 < lasted < 360


def test_noise_raises_no_alarm_and_crashes_change_nothing() -> None:
    alarm = Alarm()
    for best in (-250.0, 20, 90, 200, 150, 210, 120, 220):
        alarm = alarm.after(np.array([best, -300.0, -400.0, -np.inf]))
        assert not alarm.on
    assert alarm.after(np.full(4, -np.inf)) == alarm


def test_episodes_that_differ_more_than_individuals_do_raise_no_alarm() -> None:
    """Where nearly all are equal, a generation with harder episodes is worse than the last one."""
    draws = np.random.default_rng(0)
    alarm, raised = Alarm(), 0
    for hardness in draws.normal(-200.0, 50.0, 2000):
        alarm = alarm.after(hardness + draws.normal(0.0, 1.0, 64))
        raised += alarm.on
    assert raised == 0


@pytest.mark.parametrize("level", [500.0, -3.0])
def test_rounding_of_a_constant_fitness_raises_no_alarm_and_one_step_less_of_500_does(
    level: float,
) -> None:
    still = after(Alarm(), *[[level] * 4] * 100)
    assert not after(still, [level - abs(level) * 1e-9] * 4).on
    assert after(still, [level - abs(level) / (500 * 64)] * 4).on


def test_a_drop_is_noticed_however_badly_founders_did() -> None:
    """As on LunarLander: founders crash, a policy in another world just does not land."""
    draws = np.random.default_rng(1)
    alarm = after(Alarm(), [-150.0, *[-750.0] * 63])
    for mean in np.linspace(-100.0, 200.0, 60):
        alarm = alarm.after(draws.normal(mean, 40.0, 64))
        assert not alarm.on
    assert alarm.after(draws.normal(-300.0, 80.0, 64)).on


def test_a_drop_is_noticed_where_most_children_fail_before_it() -> None:
    """As on LunarLander under racing: the median was -118, the next best in another world -116."""
    alarm = Alarm()
    for best in [221.0, 205.0] * 30:
        alarm = alarm.after(np.array([best, *[180.0] * 40, *[-118.0] * 70]))
        assert not alarm.on
    assert alarm.after(np.array([-116.0, *[-674.0] * 110])).on


def test_steps_grow_after_a_drop_and_are_small_again_later(alert: Alert) -> None:
    _, seen = played(alert, alert.init(3), (HERE, 40), (THERE, 60))
    rates = [float(np.median(p.rates[p.births == s.generation])) for s, p in seen]
    assert rates[41] > 5 * np.median(rates[30:40])
    assert np.median(rates[90:]) < rates[41] / 5
    assert [s.on for s, _ in seen].index(True) == 41
    assert not seen[-1][0].on


def test_rates_that_led_out_of_a_drop_are_learnt(alert: Alert) -> None:
    state, _ = played(alert, alert.init(3), (HERE, 40), (THERE, 30))
    assert 0 < len(state.learnt) <= 64
    before = alert.ask(replace(state, on=True, learnt=state.learnt[:0])).rates
    after = alert.ask(replace(state, on=True)).rates
    assert not np.array_equal(before, after)


def test_newcomers_are_born_from_a_drop_until_fitness_is_back_and_are_rebuilt_from_seeds() -> None:
    strategy = make_strategy(run_params(memory=0, newcomers=0.5), LINE)
    assert isinstance(strategy, Alert)
    _, seen = played(strategy, strategy.init(3), (HERE, 40), (THERE, 60))
    for state, population in seen:
        new = (population.parents == NO_PARENT) & (population.births == state.generation)
        founders = 4 if state.generation == 0 else 0
        assert new.sum() == (10 if state.on else founders)
        assert len(population) == len(state.ids) + 20
    assert [state.on for state, _ in seen].index(True) == 41
    assert not seen[-1][0].on
    population = seen[41][1]
    row = len(population) - 1
    genome = strategy.encoding.init(int(population.noise_seeds[row]))
    assert genome.tobytes() == population.genomes[row].tobytes()


def test_what_was_stored_competes_once_and_solves_the_world_that_returns(alert: Alert) -> None:
    _, seen = played(alert, alert.init(3), (HERE, 40), (THERE, 40), (HERE, 3))
    recalls = [k for k, (state, _) in enumerate(seen) if state.recall]
    assert recalls == [41, 81]
    state, population = seen[81]
    guests = np.isin(population.ids, state.stored_ids)
    assert guests.sum() == 2
    best = np.argmax(-((population.weights - HERE) ** 2).sum(axis=1))
    assert guests[best]
    last = seen[82][0]
    assert last.ids[0] == population.ids[best]


def test_no_more_are_stored_than_memory_holds_and_the_oldest_go_first(alert: Alert) -> None:
    worlds = [(HERE if k % 2 else THERE, 25) for k in range(7)]
    state, _ = played(alert, alert.init(5), *worlds)
    assert len(state.stored_ids) == 3
    assert (np.diff(state.stored_ids) > 0).all()


def test_a_genome_born_under_stress_or_recalled_is_rebuilt_from_its_seeds(alert: Alert) -> None:
    _, seen = played(alert, alert.init(3), (HERE, 40), (THERE, 40), (HERE, 3))
    births = {}
    for _, population in seen:
        for row, i in enumerate(population.ids.tolist()):
            births[i] = (int(population.parents[row]), int(population.noise_seeds[row]))
    _, population = seen[82]
    for row in (0, 3, len(population) - 1):
        chain, i = [], int(population.ids[row])
        while i != NO_PARENT:
            i, seed = births[i]
            chain.append(seed)
        genome = grow(alert.encoding, chain[::-1])
        assert genome.tobytes() == population.genomes[row].tobytes()


def test_workers_make_guests_and_births_under_stress_from_seeds(alert: Alert) -> None:
    _, seen = played(alert, alert.init(3), (HERE, 40), (THERE, 40), (HERE, 3))
    for state, population in (seen[81], seen[82]):
        recipe = BirthRecipe.of(alert.encoding, state, population)
        made = recipe.rebuild(np.arange(len(population)))
        assert made.tobytes() == population.weights.tobytes()


def test_a_checkpointed_alarm_and_memory_go_on_identically(alert: Alert) -> None:
    state, _ = played(alert, alert.init(3), (HERE, 40), (THERE, 2))
    arrays, scalars = pack(state)
    back = unpack(AlertState, arrays, dict(scalars))
    assert state.recall is back.recall
    one, _ = played(alert, state, (THERE, 5), (HERE, 4))
    other, _ = played(alert, back, (THERE, 5), (HERE, 4))
    for name, value in vars(one).items():
        assert np.asarray(value).tobytes() == np.asarray(getattr(other, name)).tobytes(), name


def test_memory_without_survivors_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"evolution\.memory: cmaes has none; set it to 0"):
        make_strategy(run_params("cmaes"), LINE)
    with pytest.raises(ConfigError, match=r"evolution\.memory: restart has none; set it to 0"):
        make_strategy(run_params("restart"), LINE)  # which has its own response to a drop
    with pytest.raises(ConfigError, match=r"evolution\.newcomers: cmaes has none"):
        make_strategy(run_params("cmaes", memory=0, newcomers=0.5), LINE)
    plain = {"memory": None, "newcomers": None}  # left to the strategy, which has none
    assert not isinstance(make_strategy(run_params("cmaes", **plain), LINE), Alert)
    assert isinstance(make_strategy(run_params("ga"), LINE), Alert)
    assert not isinstance(make_strategy(run_params("constant-rate", memory=0), LINE), Alert)


def test_stress_comes_with_the_strategy_by_whatever_name() -> None:
    """Named by its import path, every birth's seed had named a least rate for ever."""
    by_path = make_strategy(run_params("srghn.evolution.self_referential:self_referential"), LINE)
    by_name = make_strategy(run_params(), LINE)
    one, _ = played(by_path, by_path.init(3), (HERE, 20), (THERE, 5))
    other, _ = played(by_name, by_name.init(3), (HERE, 20), (THERE, 5))
    assert one.genomes.tobytes() == other.genomes.tobytes()


@pytest.mark.parametrize("name", ["constant-rate", "ga", "restart", "cmaes"])
def test_stress_is_refused_where_it_would_do_nothing(name: str) -> None:
    params = run_params(name, memory=None, newcomers=None)
    asked = params.ghn.model_copy(update={"stress": True})
    with pytest.raises(ConfigError, match=rf"ghn\.stress: births of {name} take no least rate"):
        make_strategy(params.model_copy(update={"ghn": asked}), LINE)


def test_strategies_with_lineages_have_memory_and_newcomers_by_default() -> None:
    ghn = {"hidden": 6, "basis_width": 6}
    network = {"kwargs": {"hidden": []}}
    for name in ("self-referential", "constant-rate", "ga"):
        params = {"network": network, "ghn": ghn, "evolution": {"strategy": name}}
        found = make_strategy(parse_params(params, "test"), LINE)
        assert isinstance(found, Alert)
        assert (found.memory, found.newcomers, found.stress) == (8, 30, False)


def test_who_crashed_does_not_hide_a_drop() -> None:
    steady = after(Alarm(), *([[9.0, 10.0, 8.0, float("-inf")]] * 5))
    assert after(steady, [1.0, float("-inf"), float("-inf"), float("-inf")]).on
    many = after(steady, [10.0, float("-inf"), float("-inf"), float("-inf")])
    assert not many.on
    assert after(many, [1.0, 0.0, 0.5, float("-inf")]).on


def test_a_record_of_an_earlier_version_stays_without_memory_and_newcomers() -> None:
    """They were off, and its record names memory, or neither; files that people write name few."""

    def read(evolution: dict[str, Any]) -> EvolutionParams:
        return RunParams.model_validate({"evolution": evolution}).evolution

    now = EvolutionParams().model_dump(mode="json")
    assert now["memory"] is now["newcomers"] is None
    before = {name: value for name, value in now.items() if name != "newcomers"}
    for record in ({**before, "memory": 0}, {k: v for k, v in before.items() if k != "memory"}):
        found = read(record)
        assert (found.memory, found.newcomers) == (0, 0.0)
        assert "newcomers" not in found.model_dump()  # its digests are what they were
        assert read(found.model_dump()) == found
    assert read({"memory": 4}).newcomers is None
    assert read(now) == EvolutionParams()
    for given in (0.0, 0.25):
        kept = EvolutionParams(newcomers=given)
        assert read(kept.model_dump()) == kept


def test_what_a_file_of_ones_own_leaves_out_is_the_default(pytestconfig: pytest.Config) -> None:
    """Whatever else it names: the repository's own file names all that a record does."""
    lines = (pytestconfig.rootpath / "params.yaml").read_text().splitlines()
    text = "\n".join(line for line in lines if not re.match(" +(memory|newcomers):", line))
    found = parse_params(parse_yaml(text, "test"), "test").evolution
    assert found.memory is found.newcomers is None
    assert found == EvolutionParams()


def test_newcomers_that_are_off_are_off_in_the_file_that_is_written() -> None:
    params = parse_params({"evolution": {"memory": 0, "newcomers": 0.0}}, "test")
    assert parse_params(parse_yaml(params.to_yaml(), "test"), "test") == params
