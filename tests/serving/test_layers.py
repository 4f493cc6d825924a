"""Numpy in place of ONNX Runtime: what it takes, that it is equal, and what it leaves."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.actions import Actions
from serving.layers import Layers, proven, read_layers
from serving.predictor import InvalidAction, Predictor
from srghn.candidates.candidate import OnnxPolicy

RANDOM = np.random.default_rng(3)
W1, B1 = RANDOM.normal(size=(8, 4)).astype("f4"), RANDOM.normal(size=8).astype("f4")
W2, B2 = RANDOM.normal(size=(3, 8)).astype("f4"), RANDOM.normal(size=3).astype("f4")
HALF = np.array([0.5, 1.5, 2.0], "f4")
GOLDEN = RANDOM.normal(size=(16, 4)).astype("f4")


def model(nodes: list[Any], kind: int, rank: int, **constants: Any) -> bytes:
    """A graph from `obs` (batch, 4) to `action`."""
    shape = ["batch", 3][:rank]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("action", kind, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def network(activation: str, *tail: Any) -> list[Any]:
    return [
        helper.make_node("Gemm", ["obs", "w1", "b1"], ["h"], transB=1),
        helper.make_node(activation, ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["out"], transB=1),
        *tail,
    ]


WEIGHTS = {"w1": W1, "b1": B1, "w2": W2, "b2": B2}
LARGEST = helper.make_node("ArgMax", ["out"], ["action"], axis=1, keepdims=0)
BOX = [
    helper.make_node("Max", ["out", "low"], ["x"]),
    helper.make_node("Min", ["x", "high"], ["y"]),
    helper.make_node("Mul", ["y", "half"], ["z"]),
    helper.make_node("Add", ["z", "half"], ["action"]),
]


def discrete(activation: str) -> bytes:
    return model(network(activation, LARGEST), TensorProto.INT64, 1, **WEIGHTS)


def box(activation: str) -> bytes:
    bounds = {"low": np.float32(-1), "high": np.float32(1), "half": HALF}
    return model(network(activation, *BOX), TensorProto.FLOAT, 2, **WEIGHTS, **bounds)


def prove(data: bytes) -> tuple[Layers, OnnxPolicy]:
    layers, policy = read_layers(data), OnnxPolicy.from_bytes(data, "made here")
    assert layers is not None
    found = proven(layers, policy, GOLDEN, np.random.default_rng(0))
    assert found is not None
    assert found.bound >= 10
    return found, policy


@pytest.mark.parametrize("activation", ["Tanh", "Relu", "Sigmoid", "Elu"])
@pytest.mark.parametrize("make", [discrete, box])
def test_a_plain_network_is_computed_equally(make: Any, activation: str) -> None:
    layers, policy = prove(make(activation))
    observations = RANDOM.normal(size=(100, 4)).astype("f4")
    before = observations.copy()
    np.testing.assert_allclose(
        layers.many(observations), policy(observations), rtol=1e-5, atol=1e-5
    )
    assert (observations == before).all()  # the caller's array is left alone
    one = layers.one(observations[0].tolist())
    assert np.allclose(one, policy(observations[:1])[0], rtol=1e-5, atol=1e-5)


def test_a_number_may_be_added_to_a_choice() -> None:
    largest = helper.make_node("ArgMax", ["out"], ["n"], axis=1, keepdims=0)
    tail = [largest, helper.make_node("Add", ["n", "start"], ["action"])]
    nodes = network("Tanh", *tail)
    data = model(nodes, TensorProto.INT64, 1, **WEIGHTS, start=np.int64(5))
    layers, _ = prove(data)
    assert layers.one([0.0, 0.0, 0.0, 0.0]) >= 5
    assert layers.choices(4) == (5, 7)


@pytest.mark.parametrize(
    "nodes",
    [
        network("Tanh", helper.make_node("Softmax", ["out"], ["action"])),
        network("Tanh", helper.make_node("Add", ["out", "out"], ["action"])),
        [helper.make_node("Div", ["obs", "obs"], ["action"])],
        [helper.make_node("Mul", ["obs", "half"], ["action"])],
        network("Tanh", helper.make_node("ArgMax", ["out"], ["action"], axis=0, keepdims=0)),
        [helper.make_node("Gemm", ["obs", "w1", "b1"], ["action"], transB=1, alpha=2.0)],
    ],
)
def test_any_other_graph_is_left_to_onnx_runtime(nodes: list[Any]) -> None:
    assert read_layers(model(nodes, TensorProto.FLOAT, 2, **WEIGHTS, half=HALF)) is None


def test_layers_that_differ_are_not_proven() -> None:
    other = {**WEIGHTS, "b2": B2 + np.float32(1e-3)}
    changed = read_layers(
        model(network("Tanh", helper.make_node("Identity", ["out"], ["action"])),
              TensorProto.FLOAT, 2, **other)
    )  # fmt: skip
    same = model(
        network("Tanh", helper.make_node("Identity", ["out"], ["action"])),
        TensorProto.FLOAT, 2, **WEIGHTS,
    )  # fmt: skip
    assert changed is not None
    policy = OnnxPolicy.from_bytes(same, "made here")
    assert proven(changed, policy, GOLDEN, np.random.default_rng(0)) is None


def test_large_observations_go_to_onnx_runtime() -> None:
    data = discrete("Tanh")
    layers, policy = prove(data)
    asked: list[float] = []

    class Noted(OnnxPolicy):
        def __init__(self) -> None:
            pass

        def __call__(self, observations: Any) -> Any:
            asked.append(float(observations.max()))
            return policy(observations)

    predictor = Predictor(1, "d", "e", "normal", 4, (), "i", Noted(), layers)
    bound = layers.bound
    predictor.act_one([1.0, 0.0, 0.0, bound])
    predictor.act(np.ones((3, 4), "f4"))
    assert asked == []
    predictor.act_one([1.0, 0.0, 0.0, 2 * bound])
    predictor.act(np.full((3, 4), 2 * bound, "f4"))
    assert asked == [2 * bound, 2 * bound]


@pytest.mark.parametrize("low", [0, 1, -1])
def test_an_action_is_checked_unless_each_output_is_one(low: int) -> None:
    layers, policy = prove(discrete("Tanh"))
    actions = Actions(np.array([float(low)]), np.array([low + 2.0]))
    predictor = Predictor(1, "d", "e", "normal", 4, (), "i", policy, layers, actions=actions)
    observations = np.random.default_rng(1).uniform(-10, 10, size=(1000, 4)).astype("f4")
    plain = policy(observations)
    assert set(plain) == {0, 1, 2}  # one of them is unknown where the choices begin elsewhere
    if low == 0:
        assert (predictor.act(observations) == plain).all()
        return
    bad = observations[plain == (0 if low == 1 else 2)]
    with pytest.raises(InvalidAction, match="one of a batch"):
        predictor.act(observations)
    with pytest.raises(InvalidAction, match="does not have"):
        predictor.act_one(bad[0].tolist())


@pytest.mark.parametrize("large", [np.nan, np.inf, 3e38, 1.01, -1.01])
def test_one_number_beyond_the_bound_is_enough(large: float) -> None:
    layers, policy = prove(discrete("Tanh"))
    asked: list[int] = []

    def noted(observations: Any) -> Any:
        asked.append(len(observations))
        return policy(observations)

    predictor = Predictor(1, "d", "e", "normal", 4, (), "i", cast(OnnxPolicy, noted), layers)
    observations = np.zeros((300, 4), "f4")
    observations[150, 2] = large if abs(large) > 2 or np.isnan(large) else large * layers.bound
    predictor.act(observations)
    assert asked == [300]
    many = np.full((300, 4), layers.bound, "f4")  # whose squares add up to more than the bound's
    predictor.act(many)
    assert asked == [300]
