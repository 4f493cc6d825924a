"""Native observations, as clients send them, to the vector that a policy sees."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from srghn.envs.interface import Interface
from srghn.envs.layout import Layout
from srghn.envs.spaces import read_interface
from srghn.errors import EnvVersionError, ObservationError
from tests.srghn.envs.test_interface import BOX, World

IMAGE = spaces.Box(0, 255, (2, 3, 1), np.uint8)
SPACES = [
    IMAGE,
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([2, 3], start=[1, 0]),
    spaces.MultiDiscrete([[2, 3], [4, 2]]),
    spaces.MultiBinary(4),
    spaces.Dict({"z": BOX, "a": spaces.Dict({"b": spaces.Discrete(2), "c": IMAGE})}),
    spaces.Tuple((spaces.Tuple((spaces.Discrete(3), BOX)), spaces.MultiBinary([2, 2]))),
]


def layout_of(space: Any) -> Layout:
    found = read_interface(World(space, spaces.Discrete(2)), "World-v0").layout
    assert found is not None
    return found


def plain(space: Any, sample: Any) -> Any:
    """One observation as Gymnasium's `to_jsonable` spells it, after a trip through JSON."""
    if isinstance(space, spaces.Dict):
        return {name: plain(part, sample[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return [plain(part, value) for part, value in zip(space.spaces, sample, strict=True)]
    return json.loads(json.dumps(np.asarray(sample).tolist()))


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_native_observations_flatten_as_gymnasium_does(space: Any) -> None:
    layout = layout_of(space)
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout
    space.seed(0)
    for _ in range(5):
        sample = space.sample()
        expected = flatten(space, sample).astype(np.float32)
        np.testing.assert_array_equal(layout.flatten(plain(space, sample)), expected)
        assert layout.size == len(expected)


def test_leaves_are_inputs_by_name() -> None:
    space = SPACES[5]
    layout = layout_of(space)
    assert [(leaf.name, leaf.shape) for leaf in layout.leaves] == [
        ("a.b", ()),
        ("a.c", (2, 3, 1)),
        ("z", (3,)),
    ]
    space.seed(1)
    samples = [space.sample() for _ in range(4)]
    batch = {
        "a.b": np.array([s["a"]["b"] for s in samples]),
        "a.c": np.stack([s["a"]["c"] for s in samples]),
        "z": np.stack([s["z"] for s in samples]),
    }
    expected = np.stack([flatten(space, s) for s in samples]).astype(np.float32)
    np.testing.assert_array_equal(layout.flatten_leaves(batch), expected)
    with pytest.raises(ObservationError, match=r"inputs a\.b, a\.c, z, got z"):
        layout.flatten_leaves({"z": batch["z"]})
    with pytest.raises(ObservationError, match=r"z: expected shape \(batch, 3\)"):
        layout.flatten_leaves({**batch, "z": batch["z"][:, :2]})


def test_an_array_may_come_as_base64_of_its_bytes() -> None:
    layout, values = layout_of(IMAGE), np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    sent = {"b64": base64.b64encode(values).decode(), "shape": [2, 3, 1], "dtype": "uint8"}
    np.testing.assert_array_equal(layout.flatten(sent), np.arange(6))
    for wrong in ({"dtype": "object"}, {"shape": [6, 2]}, {"b64": "!"}, {"more": 1}):
        with pytest.raises(ObservationError, match="observation obs: expected an array of shape"):
            layout.flatten({**sent, **wrong})
    for same in ("u1", "|u1"):
        np.testing.assert_array_equal(layout.flatten({**sent, "dtype": same}), np.arange(6))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dtype": ">i2"}, "dtype '>i2' is not one of bool, uint8"),  # was read the other way round
        ({"dtype": "f4," * 20_000}, r"dtype '[f4,]{40}' is not one of"),  # was parsed, at length
        ({"dtype": ["<i2"]}, "is not one of"),
        ({"shape": "2"}, "shape is no list of whole numbers"),
        ({"shape": {"2": 1}}, "shape is no list of whole numbers"),
        ({"shape": [2.9]}, "shape is no list of whole numbers"),
        ({"shape": [True, 2]}, "shape is no list of whole numbers"),
        ({"shape": [2**62, 4]}, "cannot reshape"),
    ],
)
def test_a_type_or_shape_that_nobody_meant_is_refused(wrong: dict[str, Any], message: str) -> None:
    layout = layout_of(spaces.Dict({"z": spaces.Box(-9, 9, (2,), np.int16)}))
    sent = {"b64": base64.b64encode(b"\1\0\2\0").decode(), "shape": [2], "dtype": "<i2"}
    np.testing.assert_array_equal(layout.flatten({"z": sent}), [1, 2])
    with pytest.raises(ObservationError, match=message) as refused:
        layout.flatten({"z": {**sent, **wrong}})
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gear": 4}, "gear: expected a whole number of 1 to 3, got 4"),
        ({"gear": 1.5}, "gear: expected a whole number of 1 to 3, got 1.5"),
        ({"gear": None}, "gear is missing; expected a whole number"),
        ({"gear": "one"}, "gear: expected a whole number.*does not hold numbers"),
        ({"camera": [[1, 2], [3, 4]]}, r"camera: .*shape \[2, 3\].*got shape \[2, 2\]"),
        ({"camera": [[1, 2, 3], [4, 5, 256]]}, "camera: expected uint8 numbers, got 256"),
        ({"camera": [[1, 2], [3]]}, "camera: expected an array"),
        ({"gearr": 1}, "has no 'gearr'; it has camera, gear, pair"),
        ({"pair": [[0, 0]]}, r"pair\.1 is missing"),
        ({"pair": [[1, 2], [0, 5]]}, r"pair\.1: expected 0 or 1, got 5"),
        ({"pair": [[1, 2], [0, 0.5]]}, r"pair\.1: expected 0 or 1, got 0.5"),
        ({"pair": [[1, 3], [0, 1]]}, r"pair\.0: expected a whole number of 0 to 2, got 3"),
        ({"gear": True}, "gear: expected a whole number of 1 to 3, got true"),
        ({"pair": [[True, False], [0, 1]]}, r"pair\.0: expected a whole number of 0 to 1, got tr"),
        ({"pair": [[1, False], [0, 1]]}, r"pair\.0: expected an array.*it holds false"),
    ],
)
def test_a_wrong_observation_is_refused_by_the_name_of_its_part(
    changed: dict[str, Any], message: str
) -> None:
    layout = layout_of(
        spaces.Dict(
            {
                "camera": spaces.Box(0, 255, (2, 3), np.uint8),
                "gear": spaces.Discrete(3, start=1),
                "pair": spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2))),
            }
        )
    )
    right = {"camera": [[1, 2, 3], [4, 5, 6]], "gear": 2, "pair": [[1, 2], [0, 1]]}
    assert layout.flatten(right).shape == (16,)
    with pytest.raises(ObservationError, match=message) as caught:
        layout.flatten({**right, **changed})
    assert "\n" not in str(caught.value)


def test_bits_may_be_truths_and_a_choice_in_base64_may_not() -> None:
    bits = layout_of(spaces.MultiBinary(3))
    np.testing.assert_array_equal(bits.flatten([True, False, True]), [1, 0, 1])
    np.testing.assert_array_equal(bits.flatten([1, 0, 1.0]), [1, 0, 1])
    items = bits.json_schema()["anyOf"][0]["items"]
    assert items == {"type": "integer", "minimum": 0, "maximum": 1}
    choices = layout_of(spaces.MultiDiscrete([2, 2]))
    sent = {"b64": base64.b64encode(b"\1\0").decode(), "shape": [2], "dtype": "bool"}
    with pytest.raises(ObservationError, match="expected a whole number of 0 to 1, got true"):
        choices.flatten(sent)
    with pytest.raises(ObservationError, match="obs: expected 0 or 1, got 5"):
        bits.flatten_leaves({"obs": np.array([[0, 1, 1], [0, 1, 5]])})


def test_the_schema_says_names_ranges_and_shapes() -> None:
    schema = layout_of(SPACES[5]).json_schema()
    assert schema["required"] == ["a", "z"]
    assert schema["properties"]["a"]["properties"]["b"] == {
        "type": "integer",
        "minimum": 0,
        "maximum": 1,
    }
    nested, encoded = schema["properties"]["z"]["anyOf"]
    assert nested == {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    assert encoded["properties"]["shape"] == {"const": [3]}


def test_a_flat_box_has_no_layout_and_an_old_interface_is_still_the_same() -> None:
    face = read_interface(World(BOX, spaces.Discrete(2)), "World-v0")
    assert face.layout is None
    assert "layout" not in face.to_dict()
    nested = read_interface(World(SPACES[5], spaces.Discrete(2)), "World-v0")
    assert Interface.from_dict(json.loads(json.dumps(nested.to_dict()))) == nested
    assert "layout" not in nested.for_clients()
    with pytest.raises(EnvVersionError, match="not a layout"):
        Layout.from_dict({"leaves": [{"path": []}]})
