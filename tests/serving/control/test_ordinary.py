"""Observations that no environment shows decide no guard."""

from __future__ import annotations

from typing import Any

import pytest

from serving.control.ordinary import ordinary

FACE = {"observation_low": [-4.8, None, 0.0], "observation_high": [4.8, None, None]}
ONE = {"observation_low": [0], "observation_high": [255]}


@pytest.mark.parametrize(
    ("observation", "face", "expected"),
    [
        ([0.1, -3.0, 2.0], FACE, True),
        ([-40.0, 1e9, -7.0], FACE, True),  # noise; an element without two bounds
        ([50.0, 0.0, 0.0], FACE, False),
        ([0.0, 1e38, 0.0], FACE, False),
        ([0.0, 0.0, -1e38], FACE, False),
        ([0.0, 255.0, 300.0], ONE, True),
        ([0.0, 255.0, 3000.0], ONE, False),
        ([1e9, -1e9], {}, True),
        ([1e9, -1e30], {}, False),
        ([1e9, 0.0], {"observation_low": [0, 0, 0], "observation_high": [1, 1, 1]}, True),
        ([1e9], {"observation_low": [-3.4e38], "observation_high": [3.4e38]}, True),
    ],
)
def test_what_is_ordinary(observation: list[float], face: dict[str, Any], expected: bool) -> None:
    assert ordinary(observation, face) is expected
