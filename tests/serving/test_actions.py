"""Which actions an interface has, and when two differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.actions import Actions, actions_of


def of(interface: dict[str, Any]) -> Actions:
    found = actions_of(interface)
    assert found is not None
    return found


def test_a_discrete_action_is_a_choice() -> None:
    two = of({"action_kind": "discrete", "choices": [2], "starts": [3]})
    assert [two.have(n) for n in (2, 3, 4, 5)] == [False, True, True, False]
    assert two.have_all(np.array([3, 4]))
    assert not two.have_all(np.array([3, 5]))
    assert (two.differ(3, 3), two.differ(3, 4)) == (False, True)


def test_blocks_have_their_own_choices() -> None:
    blocks = of({"action_kind": "multidiscrete", "choices": [2, 3], "starts": [0, 0]})
    assert blocks.have([1, 2])
    assert not blocks.have([2, 1])
    assert not blocks.have([1])
    assert blocks.differ([1, 2], [1, 1])


def test_a_box_has_bounds_to_rounding_and_a_tenth_of_its_range_differs() -> None:
    box = of(
        {"action_kind": "box", "action_shape": [2], "action_low": [-0.1], "action_high": [0.1]}
    )
    assert box.have([float(np.float32(0.1)), -0.1])
    assert not box.have([0.11, 0.0])
    assert not box.have([float("nan"), 0.0])
    assert not box.differ([0.0, 0.0], [0.015, 0.0])
    assert box.differ([0.0, 0.0], [0.0, 0.03])


def test_an_open_box_takes_every_number() -> None:
    box = of(
        {"action_kind": "box", "action_shape": [1], "action_low": [None], "action_high": [2.0]}
    )
    assert box.have([-1e30])
    assert not box.have([2.5])


@pytest.mark.parametrize("interface", [None, {}, {"kind": "discrete", "n": 2}])
def test_an_interface_that_says_no_actions_bounds_none(interface: Any) -> None:
    assert actions_of(interface) is None
