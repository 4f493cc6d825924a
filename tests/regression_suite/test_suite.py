"""The suite as data: read, resolved, digested, tried; what each part of it decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from regression_suite.new_suite import MILD, begin
from regression_suite.suite import (
    cell_named,
    chosen_cells,
    left_out,
    plan,
    suite_digest,
    suite_of,
    suite_version,
)
from regression_suite.try_cells import try_cells
from srghn.config import GateParams, load_params, parse_params
from srghn.envs import EnvVersion, registered
from srghn.envs.perturb import GENERIC
from srghn.errors import ConfigError, EnvVersionError
from srghn.suites import RULES, Suite, shipped

HERE = "tests.regression_suite.test_suite"


class Gust(gym.Wrapper[Any, Any, Any, Any]):
    """An own perturbation: shifts what is seen, by the severity."""

    def __init__(self, env: Any, severity: float) -> None:
        super().__init__(env)
        self.severity = np.float32(severity)

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        return observation + self.severity, *rest


class Forgetful(Gust):
    """One that does not draw from its seed."""

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        return observation + np.float32(np.random.default_rng().random()), *rest


def narrower(env: Any, severity: float) -> Any:
    return gym.wrappers.FlattenObservation(gym.wrappers.FrameStackObservation(env, 2))


def suite(*cells: dict[str, Any], **fields: Any) -> GateParams:
    return GateParams.model_validate({"suite": {"name": "t", "cells": cells, **fields}})


def test_cells_are_modes_by_perturbations_by_severities(version: EnvVersion) -> None:
    params = suite(
        {"perturbation": "force", "severities": [0.8, 1.2], "modes": ["normal", "flipped"]},
        {"modes": ["flipped"], "binding": False, "episodes": 40},
    )
    cells = plan(version, "normal", params)
    binding = chosen_cells(version, "normal", params)
    assert binding == tuple(c for c in cells[1:] if c.binding)
    assert binding  # finalists are chosen by them
    assert chosen_cells(version, "normal", GateParams()) is None
    names = ["primary", "force:0.8", "force:1.2", "force:0.8 in mode flipped"]
    assert [c.name for c in cells] == [*names, "force:1.2 in mode flipped", "mode flipped"]
    assert [c.mode for c in cells][-3:] == ["flipped"] * 3
    assert (cells[-1].binding, cells[-1].episodes) == (False, 40)
    for cell in cells:
        again = cell_named(cell.name, "normal")
        assert (again.mode, again.perturbation) == (cell.mode, cell.perturbation)
    assert plan(version, "flipped", params)[1].name == "force:0.8 in mode normal"


def test_a_suite_s_rules_hold_and_a_cell_s_own_before_them(version: EnvVersion) -> None:
    own = {"perturbation": "force", "severities": [1.2], "margin": 0.25, "max_failure_rate": 0.5}
    params = suite(
        own, {"perturbation": "gravity", "severities": [1.1]}, rules={"cell_margin": 0.2}
    )
    _, first, second, _ = plan(version, "normal", params)
    assert params.cell_margin == 0.2
    assert first.rules(params).cell_margin == 0.25
    assert first.rules(params).max_cell_failure_rate == 0.5
    assert second.rules(params).cell_margin == 0.2


def test_saying_two_things_is_refused() -> None:
    theirs = {"name": "t", "rules": {"margin": 0.04}, "worlds": ["CartPole-v1"]}
    with pytest.raises(ConfigError) as refused:
        parse_params({"gate": {"margin": 0.3, "suite": theirs}}, "f")
    assert str(refused.value) == (
        "f: gate: gate.margin is 0.3, but suite t (for CartPole-v1) says 0.04; change it in one of "
        "them"
    )
    with pytest.raises(ConfigError, match=r"gate.suite or gate.perturbations, not both"):
        parse_params({"gate": {"perturbations": [], "suite": {"name": "t"}}}, "f")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"name": "t", "rules": {"margn": 0.1}}, "did you mean 'margin'"),
        ({"name": "t", "rules": {"attempts": 9}}, "no rule of a suite"),
        ({"name": "t", "cells": [{"severities": [1]}]}, "give both, or neither$"),
        ({"name": "t", "cells": [{}]}, "a perturbation with severities, or modes"),
        ({"name": "t", "cells": [{"modes": ["a"], "severity": 1}]}, "did you mean 'severities'"),
        ({"cells": []}, "name: it is missing"),
    ],
)
def test_a_bad_suite_is_refused_by_name(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Suite.read(data)


def test_what_this_world_does_not_know_is_refused(version: EnvVersion) -> None:
    with pytest.raises(ConfigError, match="did you mean 'force'"):
        plan(version, "normal", suite({"perturbation": "forc", "severities": [1]}))
    with pytest.raises(ConfigError, match="no mode 'windy'"):
        plan(version, "normal", suite({"modes": ["windy"]}))
    with pytest.raises(ConfigError, match="is for Crane-v0, not for CartPoleSwitch-v1"):
        plan(version, "normal", suite(worlds=["Crane-v0"]))


NOISE = {"perturbation": "observation_noise", "severities": [0.05]}


def test_what_a_suite_says_twice_of_one_cell_holds_both_times(version: EnvVersion) -> None:
    returns = {**NOISE, "metrics": ["returns"], "margin": 0.2, "min_return": 200.0}
    failures = {**NOISE, "metrics": ["failures"], "failure_margin": 0.02, "episodes": 400}
    for cells in ((returns, failures), (failures, returns)):
        _, cell, _ = plan(version, "normal", suite(*cells))
        assert set(cell.metrics) == {"returns", "failures"}
        assert cell.episodes == 400
        assert dict(cell.own) == {
            "cell_margin": 0.2,
            "min_cell_return": 200.0,
            "cell_failure_margin": 0.02,
        }
    # of two that look at returns the stricter holds: here what the rules say of every cell
    _, cell, _ = plan(version, "normal", suite(returns, NOISE, failures))
    assert dict(cell.own) == {"min_cell_return": 200.0, "cell_failure_margin": 0.02}
    once, twice = suite(returns), suite(returns, returns)
    assert plan(version, "normal", once) == plan(version, "normal", twice)


def test_a_cell_that_binds_does_so_beside_one_that_is_reported(version: EnvVersion) -> None:
    """The reported one names a mode: once that is served, both are the same cell."""
    shown = {**NOISE, "modes": ["flipped"], "binding": False, "margin": 0.01}
    params = suite(shown, NOISE)
    found = [(c.name, c.binding) for c in plan(version, "normal", params)[1:3]]
    assert found == [
        ("observation_noise:0.05 in mode flipped", False),
        ("observation_noise:0.05", True),
    ]
    for cells in ((shown, NOISE), (NOISE, shown)):
        (cell,) = chosen_cells(version, "flipped", suite(*cells)) or ()
        assert (cell.name, cell.episodes, cell.own) == ("observation_noise:0.05", 300, ())


def test_what_does_nothing_is_left_out_and_said(version: EnvVersion) -> None:
    params = suite(
        {"perturbation": "action_repeat", "severities": [1, 2]},
        {"perturbation": "observation_scaling", "severities": [1.0]},
    )
    assert [c.name for c in plan(version, "normal", params)][:2] == ["primary", "action_repeat:2"]
    assert left_out(version, "normal", params) == (
        ("action_repeat:1", "severity 1 changes nothing"),
        ("observation_scaling:1", "severity 1 changes nothing"),
    )


@pytest.mark.parametrize("name", sorted({spec.suite for spec in registered().values()}))
def test_every_shipped_suite_is_a_file_with_a_version(name: str) -> None:
    found = shipped(name)
    assert (found.name, found.version) == (name, 1)
    assert found.cells


def test_the_digest_is_of_all_that_decides(version: EnvVersion) -> None:
    plain = GateParams()
    assert suite_version(plain, version).startswith("3:")
    assert suite_version(plain, version) == suite_version(GateParams(confidence=0.99), version)
    assert suite_version(plain, version) != suite_version(GateParams(margin=0.06), version)
    listed = GateParams(perturbations=("force:1.2",))
    assert suite_version(plain, version) != suite_version(listed, version)
    named = suite({"perturbation": "force", "severities": [1.2]})
    assert suite_of(named, version).rules == suite_of(plain, version).rules
    assert set(suite_of(plain, version).rules) == set(RULES)


def test_the_digest_is_of_an_own_perturbation_s_source_too(
    version: EnvVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "my_gusts.py"
    module.write_text("def gust(env, severity):\n    return env\n")
    found = suite_of(suite({"perturbation": "my_gusts:gust", "severities": [1]}), version)
    before = suite_digest(found)
    module.write_text("def gust(env, severity):\n    return env  # changed\n")
    assert suite_digest(found) != before


def test_a_file_begins_a_suite_that_reads_back_whole(version: EnvVersion, tmp_path: Path) -> None:
    text = begin(GateParams(), version, "mine")
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    read = Suite.read(str(path))
    assert suite_of(GateParams(suite=read), version).cells == suite_of(GateParams(), version).cells
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    path.write_text("\n".join(line for line in lines[3:] if not line.startswith("Other")))
    kinds = {cell.perturbation for cell in Suite.read(str(path)).cells}
    assert set(GENERIC) <= kinds
    assert set(MILD) == set(GENERIC)


def test_a_parameter_file_names_a_suite_beside_it(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: mine\nrules: {episodes: 80}\n")
    (tmp_path / "p.yaml").write_text("gate: {suite: s.yaml}\n")
    params = load_params(tmp_path / "p.yaml")
    assert params.gate.episodes == 80
    again = parse_params(params.model_dump(mode="json"), "again")
    assert again == params


def test_cells_are_tried_by_playing_them(version: EnvVersion) -> None:
    params = suite(
        {"perturbation": f"{HERE}:Gust", "severities": [0.0, 0.5]},
        {"perturbation": f"{HERE}:Forgetful", "severities": [1]},
        {"perturbation": f"{HERE}:narrower", "severities": [1]},
        {"perturbation": f"{HERE}:nobody", "severities": [1]},
        {"perturbation": "force", "severities": [1.0, 1.2]},
        {"perturbation": "action_delay", "severities": [0]},
    )
    with pytest.raises(EnvVersionError, match="nobody"):
        suite_version(params, version)
    found = {c.name: (c.verdict, c.why) for c in try_cells(params, version, "normal")}
    verdicts = {name: verdict for name, (verdict, _) in found.items()}
    assert verdicts == {
        "primary": "acts",
        f"{HERE}:Gust:0": "does nothing",
        f"{HERE}:Gust:0.5": "acts",
        f"{HERE}:Forgetful:1": "broken",
        f"{HERE}:narrower:1": "broken",
        f"{HERE}:nobody:1": "broken",
        "force:1": "does nothing",
        "force:1.2": "acts",
        "mode flipped": "acts",
        "action_delay:0": "left out",
    }
    assert "from the seed given to reset" in found[f"{HERE}:Forgetful:1"][1]
    assert "changes the observation space" in found[f"{HERE}:narrower:1"][1]
