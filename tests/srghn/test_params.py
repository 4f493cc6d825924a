"""Parameters made in Python: what is wrong with them is told in one line, as it is of a file's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

import srghn
from srghn.config import NetworkParams, Returns, RunParams, parse_params, with_overrides


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: srghn.EvolutionParams(genrations=2),
            "EvolutionParams: unknown parameter 'genrations'; did you mean 'generations'?",
        ),
        (
            lambda: srghn.EvolutionParams(generations=0),
            "EvolutionParams: generations: expected at least 1, got 0",
        ),
        (
            lambda: srghn.EvolutionParams(generations="many", seed=2**40, memory=65),
            "EvolutionParams: seed: expected less than 2147483648, got 1099511627776; "
            "generations: expected a whole number, got 'many'; memory: expected at most 64, got 65",
        ),
        (
            lambda: srghn.EnvParams(returns={"low": 1}, fresh="maybe", kwargs=3, schedule="x"),
            "EnvParams: kwargs: expected {name: value, ...}, got 3; schedule: expected a list, "
            "got 'x'; fresh: expected true or false, got 'maybe'; returns.high: it is missing",
        ),
        (
            lambda: srghn.RunParams(evolution={"genrations": 2}, ghn={"hiden": 4}),
            "RunParams: unknown parameter 'ghn.hiden'; did you mean 'hidden'?; "
            "unknown parameter 'evolution.genrations'; did you mean 'generations'?",
        ),
        (
            lambda: srghn.RunParams(generations=2, head="dct"),
            "RunParams: unknown parameter 'generations'; did you mean 'evolution.generations'?; "
            "unknown parameter 'head'; did you mean 'ghn.head'?",
        ),
        (
            lambda: srghn.EnvParams(schedule=[{"generation": 3, "mode": "a", "mods": 1}]),
            "EnvParams: unknown parameter 'schedule.0.mods'; did you mean 'mode'?",
        ),
        (
            lambda: srghn.EnvParams(returns={"low": 0, "high": 1, "hih": 2}),
            "EnvParams: unknown parameter 'returns.hih'; did you mean 'high'?",
        ),
        (
            lambda: srghn.EngineSettings(worker=2),
            "EngineSettings: unknown parameter 'worker'; did you mean 'workers'?",
        ),
        (
            lambda: Returns(low=1, high=0),  # a rule about all of them
            "Returns: low must be below high, got 1.0 and 0.0",
        ),
    ],
)
def test_a_constructor_says_in_one_line_what_is_wrong(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(srghn.SrghnError) as refused:
        make()
    assert str(refused.value) == words
    assert isinstance(refused.value, ValueError)  # which Pydantic's own error is


def test_validation_of_data_is_pydantics_and_tells_the_errors_of_every_part() -> None:
    bad = {"evolution": {"parents": 0}, "ghn": {"hidden": 0}}
    with pytest.raises(ValidationError, match="2 validation errors"):
        srghn.RunParams.model_validate(bad)
    with pytest.raises(srghn.SrghnError, match=r"^here: ghn.hidden: .*; evolution.parents: "):
        parse_params(bad, "here")


MLPS = {"hidden": [8], "activation": "tanh"}


@pytest.mark.parametrize(
    ("given", "kwargs"),
    [
        ({}, MLPS),
        ({"module": "srghn.policies:MLP"}, MLPS),
        ({"stack": 2}, MLPS),
        ({"module": "mine:Net"}, {}),
        ({"module": "mine:Net", "stack": 2}, {}),
        ({"module": "mine:Net", "kwargs": MLPS}, MLPS),
    ],
)
def test_another_module_without_arguments_does_not_get_the_defaults_ones(
    given: dict[str, Any], kwargs: dict[str, Any]
) -> None:
    assert NetworkParams(**given).kwargs == kwargs
    params = parse_params({"network": given}, "mine.yaml")
    assert params.network.kwargs == kwargs
    assert parse_params({"policy": given}, "old.yaml").network == params.network
    record = params.model_dump(mode="json")
    assert record["network"]["kwargs"] == kwargs  # so that it reads as it was written
    assert RunParams.model_validate(record) == params


@pytest.mark.parametrize(
    ("module", "sets", "kwargs"),
    [
        ("srghn.policies:MLP", ["network.module=mine:Net"], {}),
        ("srghn.policies:MLP", ["policy.module=mine:Net"], {}),
        ("srghn.policies:MLP", ["network.module= srghn.policies:MLP"], {"hidden": [16]}),
        ("srghn.policies:MLP", ["network.stack=2"], {"hidden": [16]}),
        (
            "srghn.policies:MLP",
            ["network.kwargs.width=4", "network.module=mine:Net"],
            {"width": 4},
        ),
        (
            "srghn.policies:MLP",
            ["network.kwargs={hidden: [2]}", "network.module=mine:Net"],
            {"hidden": [2]},
        ),
        ("mine:Net", ["network.module=mine:Other"], {"hidden": [16]}),
    ],
)
def test_a_module_set_in_place_of_the_mlp_does_not_get_its_arguments(
    module: str, sets: list[str], kwargs: dict[str, Any]
) -> None:
    preset = {"network": {"module": module, "kwargs": {"hidden": [16]}}}
    assert with_overrides(parse_params(preset, "preset"), iter(sets)).network.kwargs == kwargs
