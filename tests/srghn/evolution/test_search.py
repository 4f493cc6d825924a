"""Ask and tell without an environment; strategies of one's own; a run as a picture."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from srghn.config import EvolutionParams, parse_params
from srghn.errors import ConfigError
from srghn.evolution import STRATEGIES, Genetic, Search, make_strategy, plot
from srghn.evolution.direct import Direct, PolicyWeights
from srghn.evolution.search import OF_RUNS
from tests.srghn.evolution.test_strategies import LINE, run_params


@pytest.mark.parametrize("name", ["self-referential", "ga", "snes", "gesmr"])
def test_ten_lines_find_the_optimum(name: str) -> None:
    search = Search(dimensions=2, strategy=name, seed=1)
    for _ in range(80):
        points = search.ask()
        assert points.shape[1] == 2
        search.tell([-float(((point - 2) ** 2).sum()) for point in points])
    assert search.best_fitness > -0.05
    assert search.best == pytest.approx([2, 2], abs=0.25)
    assert len(search.history) == search.generation == 80
    assert name in repr(search)


def test_asked_twice_the_points_are_the_same_and_a_seed_decides() -> None:
    search = Search(3, seed=4)
    assert search.ask().tobytes() == search.ask().tobytes() == Search(3, seed=4).ask().tobytes()
    assert search.ask().tobytes() != Search(3, seed=5).ask().tobytes()


def test_a_callback_hears_every_generation_and_may_look_at_the_search() -> None:
    heard: list[int] = []
    search = Search(2, on_generation=lambda s: heard.append(s.generation), parents=2, children=3)
    for _ in range(3):
        search.tell(search.ask().sum(axis=1))
    assert heard == [1, 2, 3]


def test_what_is_told_is_checked_in_words() -> None:
    search = Search(2)
    with pytest.raises(ValueError, match="call ask first"):
        search.tell([1.0])
    points = search.ask()
    with pytest.raises(ValueError, match=rf"shape \({len(points)},\), got shape \(1,\)"):
        search.tell([1.0])
    with pytest.raises(ValueError, match="of something else"):
        search.tell(["far"] * len(points))
    with pytest.raises(ValueError, match="complex numbers have no order"):
        search.tell(np.ones(len(points)) * 1j)
    with pytest.raises(ValueError, match="of something else: int too large"):
        search.tell([10**400] * len(points))
    bad: list[Any] = [["1"] * len(points), np.zeros(len(points), "M8[s]"), [None] * len(points)]
    for told in bad:
        with pytest.raises(ValueError, match="of something else"):
            search.tell(told)
    with pytest.warns(RuntimeWarning, match="no fitness of generation 0 is finite"):
        search.tell(np.full(len(points), np.nan))
    assert search.best is search.last_best is None
    assert search.best_fitness == -np.inf


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"parent": 3}, "did you mean 'parents'"),
        (
            {"popsize": 9},
            r"known: parents, .*a population is parents \* \(1 \+ children\)",
        ),
        ({"on_generation": 3}, "on_generation: expected a function, got 3"),
        (
            {"strategy": "snes", "elites": 9, "ghn": {"hidden": 9}},
            "no use for elites, ghn; leave",
        ),
        ({"strategy": "ga", "ghn": {"hidden": 9}}, "ga has no use for ghn"),
        (
            {"selection": "comma", "parents": 3, "elites": 4},
            r"evolution.elites must be at most evolution.parents \(3\), .* got 4",
        ),
        (
            {"strategy": "self-adaptive-ga", "options": {"sigma_min": 2, "sigma_max": 1}},
            "expected sigma_min <= sigma <= sigma_max, got 2, 0.3 and 1",
        ),
    ],
)
def test_parameters_that_say_nothing_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        Search(2, **given)
    assert "generations" not in str(refused.value)  # nothing that a search refuses, too


@pytest.mark.parametrize("name", ["snes", "cmaes", "openes", "ga"])
def test_a_point_is_the_numbers_that_the_strategy_searches(name: str) -> None:
    search = Search(3, strategy=name, options={"sigma": 2.0}, parents=1, children=999)
    points = search.ask()
    assert points.shape[1] == search.strategy.ask(search.state).genomes.shape[1] == 3
    assert points[1:].std(axis=0) == pytest.approx(2.0, rel=0.15)


def test_points_are_the_callers_own() -> None:
    one, other = Search(2, strategy="ga", seed=1), Search(2, strategy="ga", seed=1)
    for search in (one, other):
        points = search.ask()
        fitness = points.sum(axis=1)
        if search is one:
            points[:] = np.nan
        search.tell(fitness)
    assert one.ask().tobytes() == other.ask().tobytes()


def test_the_last_best_is_of_the_function_as_it_is_now() -> None:
    search = Search(2, seed=1)
    for where in (3.0, -3.0):
        for _ in range(40):
            search.tell([-float(((p - where) ** 2).sum()) for p in search.ask()])
    assert search.last_best == pytest.approx([-3, -3], abs=0.5)
    assert search.history[-1] == -float(((search.last_best + 3) ** 2).sum())


@pytest.mark.parametrize("dimensions", [0, -1, 2.5, True, "3", None, float("nan"), [2]])
def test_dimensions_are_a_whole_number(dimensions: Any) -> None:
    with pytest.raises(ConfigError, match="at least one dimension, got"):
        Search(dimensions)
    assert Search(np.int64(2)).dimensions == 2


@pytest.mark.parametrize("name", OF_RUNS)
def test_what_only_a_run_takes_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"leave out {name}, which evolve takes"):
        Search(2, **{name: EvolutionParams.model_fields[name].default})


def test_a_state_that_is_set_while_points_are_asked_makes_them_void() -> None:
    search, other = Search(2, seed=1), Search(2, seed=1)
    start = search.state
    search.tell(search.ask().sum(axis=1))
    search.ask()
    search.state = start
    with pytest.raises(ValueError, match="call ask first"):
        search.tell([0.0])
    assert search.ask().tobytes() == other.ask().tobytes()
    with pytest.raises(ConfigError, match="expected AlertState, got SNESState; give the state"):
        search.state = Search(2, strategy="snes").state


@pytest.mark.parametrize("name", ["cmaes", "snes", "ga", "gesmr", "openes", "self-referential"])
def test_the_state_of_a_search_in_other_dimensions_is_refused(name: str) -> None:
    search = Search(3, strategy=name)
    before = search.ask()
    with pytest.raises(ConfigError, match=r"not the state of a search by .* in 3 dimensions"):
        search.state = Search(5, strategy=name).state
    assert search.ask().tobytes() == before.tobytes()


@pytest.mark.parametrize("name", ["ga", "immigrants", "restart", "openes", "snes"])
def test_the_state_of_a_search_in_one_dimension_is_refused(name: str) -> None:
    """NumPy would give its one value to every dimension."""
    search = Search(5, strategy=name)
    with pytest.raises(ConfigError, match=r"has shape .* expected"):
        search.state = Search(1, strategy=name).state


def test_the_state_of_a_search_with_fewer_groups_is_refused() -> None:
    search = Search(3, strategy="gesmr", options={"groups": 4})
    with pytest.raises(ConfigError, match=r"sigmas has shape \(2,\), expected \(4,\)"):
        search.state = Search(3, strategy="gesmr", options={"groups": 2}).state


@pytest.mark.parametrize("name", ["openes", "snes"])
def test_a_generation_of_two_is_too_small_for_a_mean_and_its_samples(name: str) -> None:
    wrong = rf"{name} needs a generation of at least 3 points, .* got 2; give more parents"
    with pytest.raises(ConfigError, match=wrong):
        Search(3, strategy=name, parents=1, children=1)
    assert len(Search(3, strategy=name, parents=1, children=2).ask()) == 3


def test_a_masked_fitness_is_none() -> None:
    search = Search(2, strategy="ga")
    points = search.ask()
    values = np.arange(len(points), dtype=float)
    search.tell(np.ma.masked_greater(values, 3))
    assert search.best_fitness == 3.0


@pytest.mark.parametrize("dtype", [complex, str, "datetime64[D]"])
def test_a_masked_fitness_is_numbers_too(dtype: Any) -> None:
    search = Search(2, strategy="ga")
    values = np.ma.masked_array(np.zeros(len(search.ask()), int).astype(dtype), False)
    with pytest.raises(ValueError, match="tell takes"):
        search.tell(values)


def test_the_state_of_another_encoding_is_refused() -> None:
    search = Search(3)
    with pytest.raises(ConfigError, match="not the state of a search by self-referential"):
        search.state = Search(3, strategy="ga").state


def test_a_strategy_refuses_a_list_in_words() -> None:
    strategy = make_strategy(run_params("ga"), LINE)
    population = strategy.ask(state := strategy.init(0))
    with pytest.raises(ValueError, match=r"got a list; use np\.asarray"):
        strategy.tell(state, population, [0.0] * len(population))  # type: ignore[arg-type]


def wide_ga(params: object, interface: object) -> Genetic:
    """A strategy of one's own, as its import path names it."""
    from srghn.config import RunParams
    from srghn.envs.interface import Interface

    assert isinstance(params, RunParams)
    assert isinstance(interface, Interface)
    encoding = Direct("wide-ga", PolicyWeights(params.network, interface), 2.0)
    return Genetic("wide-ga", encoding, params.evolution)


def half_done(params: object, interface: object) -> object:
    return object()


def test_a_strategy_by_import_path_is_one_like_any_other() -> None:
    path = f"{__name__}:wide_ga"
    strategy = make_strategy(run_params(path), LINE)
    assert strategy.name == "wide-ga"
    assert strategy.ask(strategy.init(0)).rates.max() == 2.0
    search = Search(2, strategy=path)
    search.tell(search.ask().sum(axis=1))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere_at_all:thing", "cannot import"),
        (f"{__name__}:nothing", "cannot import"),
        (f"{__name__}:half_done", "gave a object without name, digest"),
        (":thing", "cannot import ':thing'"),
        ("math:pi", "math:pi is a float; expected a function"),
        ("numpy:zeros", "numpy:zeros, called with .* gave no strategy but TypeError"),
        ("gesmrr", "did you mean 'gesmr'"),
    ],
)
def test_a_path_that_names_no_strategy_is_refused(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_strategy(run_params(path), LINE)


def test_step_sizes_of_the_baselines_grow_and_shrink_by_themselves() -> None:
    for name in ("snes", "gesmr"):
        search = Search(2, strategy=name, seed=3, options={"sigma": 0.01})
        rates = []
        for _ in range(150):
            points = search.ask()
            rates.append(float(np.median(search.strategy.ask(search.state).rates)))
            search.tell(-((points - 30.0) ** 2).sum(axis=1))
        assert max(rates) > 0.1, name
        assert rates[-1] < max(rates) / 10, name
        assert search.best_fitness > -1e-2, name


def test_gesmr_needs_a_child_for_each_group() -> None:
    with pytest.raises(ConfigError, match=r"expected from 2 to .* \(4\), got 8"):
        make_strategy(run_params("gesmr", children=1, options={"groups": 8}), LINE)
    strategy = make_strategy(run_params("gesmr", children=14), LINE)
    assert len(strategy.init(0).sigmas) == 8


def test_a_plot_has_a_panel_each_and_a_line_at_each_switch() -> None:
    table = pa.table(
        {
            "generation": [0, 1, 2, 3],
            "mode": ["a", "a", "b", "b"],
            "best": [1.0, 2.0, 0.5, 3.0],
            "rate": [0.1, 0.01, 0.3, 0.1],
            "diversity": [0.1, 0.01, 0.3, 0.1],
        }
    )
    assert plot.switches(table) == [2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot.draw(table)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "best fitness",
        "mutation rate",
        "diversity",
    ]
    assert all(len(axes.lines) == 2 for axes in figure.axes)
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_every_strategy_is_documented_by_its_own_file() -> None:
    assert {"gesmr", "snes"} <= set(STRATEGIES)
    assert parse_params({"evolution": {"strategy": "snes"}}, "test").evolution.strategy == "snes"


def test_the_page_on_the_method_has_every_strategy_with_its_options() -> None:
    page = (Path(__file__).parents[3] / "docs" / "method.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| ([^|]*) \|", page, re.MULTILINE))
    assert set(rows) == set(STRATEGIES)
    for name, told in rows.items():
        with pytest.raises(ConfigError) as refused:
            make_strategy(run_params(name, options={"nonsense": 1}), LINE)
        known = str(refused.value).partition("known: ")[2].split(", ")
        assert re.findall(r"`([a-z_]+)` \(", told) == ([] if known == ["none"] else known)


def test_the_programs_in_the_page_on_the_method_run() -> None:
    page = (Path(__file__).parents[3] / "docs" / "method.md").read_text()
    programs = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        exec(compile(program, "method.md", "exec"), {})


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("level", [1.0, 0.0], ids=["sphere", "plateau"])
def test_a_search_that_has_converged_goes_on(name: str, level: float) -> None:
    """In two dimensions, beyond what float32 can tell apart, and where all points are equal."""
    search = Search(dimensions=2, seed=1, strategy=name)
    for _ in range(200):
        points = search.ask()
        assert np.isfinite(points).all()
        search.tell([-level * float(((point - 2) ** 2).sum()) for point in points])
