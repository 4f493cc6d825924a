"""Parameters made in Python: what is wrong with them is told in one line, as it is of a file's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

import srghn
from srghn.config import Returns, parse_params


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: srghn.EvolutionParams(genrations=2),
            "EvolutionParams: unknown parameter 'genrations'; did you mean 'generations'?",
        ),
        (
            lambda: srghn.EvolutionParams(generations=0),
            "EvolutionParams: generations: Input should be greater than or equal to 1, got 0",
        ),
        (
            lambda: srghn.RunParams(evolution={"genrations": 2}, ghn={"hiden": 4}),
            "RunParams: unknown parameter 'ghn.hiden'; did you mean 'hidden'?; "
            "unknown parameter 'evolution.genrations'; did you mean 'generations'?",
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
