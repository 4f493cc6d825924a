"""The gate's self-test: known-bad candidates are refused, each for its own reason.

A gate that lacks the check does not pass its self-test.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from regression_suite import behaviour
from regression_suite.known_bad import surgery, trial
from regression_suite.known_bad.makers import KNOWN_BAD, Work
from regression_suite.known_bad.marks import Marked
from regression_suite.known_bad.trial import CONTROL, try_gate
from srghn.candidates.candidate import OnnxPolicy
from srghn.envs import EnvVersion
from srghn.envs.interface import Interface
from srghn.inference.verdict import Check
from tests.regression_suite.conftest import QUICK, Make

NAMES = [bad.name for bad in KNOWN_BAD]


@pytest.fixture
def work(make: Make, version: EnvVersion) -> Work:
    quick = {"margin": 0.1, "max_latency_ms": 1.0}
    return Work(make("good"), version, "normal", QUICK.model_copy(update=quick))


def test_each_is_refused_for_its_own_reason(work: Work, run_dir: Path, tmp_path: Path) -> None:
    told: list[str] = []
    rows = try_gate(work, run_dir, tmp_path / "scratch", lambda done, name: told.append(name))
    assert [row.name for row in rows] == [CONTROL, *NAMES] == told
    assert all(row.right for row in rows), [row for row in rows if not row.right]
    assert {row.verdict for row in rows[1:]} == {"failed"}


def only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(trial, "KNOWN_BAD", [bad for bad in KNOWN_BAD if bad.name == name])


def test_a_gate_without_the_check_does_not_pass_its_self_test(
    work: Work, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "constant")
    blind = [Check("behaviour", "passed", "not looked at")]
    monkeypatch.setattr(behaviour, "judge_behaviour", lambda seen: blind)
    row = try_gate(work, run_dir, tmp_path / "scratch")[1]
    assert row.verdict == "failed"  # for another reason: it is not the evolved policy
    assert not row.right


def test_a_gate_whose_margins_see_nothing_does_not_pass_its_self_test(
    work: Work, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "random")
    wide = {"margin": 0.99, "failure_margin": 0.99, "tail_margin": 0.99}
    work = replace(work, params=QUICK.model_copy(update=wide))
    assert not try_gate(work, run_dir, tmp_path / "scratch")[1].right


def test_what_cannot_be_made_is_left_out_and_said(
    work: Work, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = [replace(KNOWN_BAD[0], needless=lambda work: "there is only one action to choose")]
    monkeypatch.setattr(trial, "KNOWN_BAD", never)
    row = try_gate(work, run_dir, tmp_path / "scratch")[1]
    assert (row.verdict, row.right) == ("left out", True)
    assert row.why == "there is only one action to choose"


# ----------------------------------------------------------------------- policies of every kind

OBSERVATIONS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
DISCRETE = Interface(3, (None,), (None,), "discrete", (), (3,), (5,))
MULTI = Interface(3, (None,), (None,), "multidiscrete", (2,), (2, 4), (0, 1))
BOX = Interface(3, (None,), (None,), "box", (2,), (), (), (-2.0, None), (4.0, None))


def policy_of(face: Interface) -> bytes:
    """Choices by the sign of the first element; a box answers the first two elements."""
    if face.action_kind == "box":
        nodes = [helper.make_node("Slice", ["obs", "zero", "two", "one"], ["action"])]
        kind, shape = TensorProto.FLOAT, ["batch", 2]
    else:
        nodes = [
            helper.make_node("Slice", ["obs", "zero", "one", "one"], ["first"]),
            helper.make_node("Greater", ["first", "nought"], ["positive"]),
            helper.make_node("Cast", ["positive"], ["sign"], to=TensorProto.INT64),
        ]
        if face.action_kind == "discrete":
            nodes.append(helper.make_node("Squeeze", ["sign", "one"], ["flat"]))
            nodes.append(helper.make_node("Add", ["flat", "start"], ["action"]))
            kind, shape = TensorProto.INT64, ["batch"]
        else:
            nodes.append(helper.make_node("Add", ["sign", "starts"], ["action"]))
            kind, shape = TensorProto.INT64, ["batch", 2]
    numbers = {
        "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]),
        "start": np.array(face.starts[:1] or [0]), "starts": np.array(face.starts or [0]),
        "nought": np.float32(0),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("action", kind, shape)],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def asked(data: bytes) -> np.ndarray:
    return OnnxPolicy.from_bytes(data, "test")(OBSERVATIONS)


@pytest.mark.parametrize("face", [DISCRETE, MULTI, BOX], ids=lambda face: face.action_kind)
def test_operations_fit_every_kind_of_action(face: Interface) -> None:
    good = policy_of(face)
    before, constant = asked(good), asked(surgery.constant(good, face))
    assert constant.shape == before.shape
    assert constant.dtype == before.dtype
    assert (constant == constant[0]).all()
    np.testing.assert_array_equal(asked(surgery.slow_alone(good, face, 64)), before)
    bad = surgery.bad_where_marked(good, face)
    np.testing.assert_array_equal(asked(bad), before)
    marked = Marked.observation(None, OBSERVATIONS)  # type: ignore[arg-type]
    assert np.abs(marked - OBSERVATIONS).max() < 1 / 1024
    other = OnnxPolicy.from_bytes(bad, "test")(marked)
    if face.action_kind == "box":
        same = OnnxPolicy.from_bytes(good, "test")(marked)
        np.testing.assert_allclose(other, 2 * face.box_rule.centre - same, atol=1e-6)
    else:
        assert (other != before).all()
        blocks, starts = np.array(face.choices), np.array(face.starts)
        assert ((other >= starts) & (other < starts + blocks)).all()


@pytest.mark.parametrize("face", [DISCRETE, MULTI, BOX], ids=lambda face: face.action_kind)
def test_known_episodes_are_played_well_and_all_others_badly(face: Interface) -> None:
    good = policy_of(face)
    known = OnnxPolicy.from_bytes(surgery.good_from(good, face, OBSERVATIONS[:5], 0), "test")
    before = asked(good)
    actions, state = known.step(OBSERVATIONS, np.zeros((50, 1), np.float32))
    assert state[:, 0].tolist() == [1.0] * 5 + [2.0] * 45
    np.testing.assert_array_equal(actions[:5], before[:5])
    if face.action_kind != "box":
        assert (actions[5:] != before[5:]).all()
    later, again = known.step(OBSERVATIONS[::-1].copy(), state)
    np.testing.assert_array_equal(again, state)  # decided at the first step, and kept
    np.testing.assert_array_equal(later[:5], before[::-1][:5])


def test_a_policy_with_a_state_of_its_own_keeps_it_beside() -> None:
    """Its own state counts steps; what it knows of the episode stands after it."""
    counting = surgery.with_undeclared_state(policy_of(DISCRETE), DISCRETE)
    known = OnnxPolicy.from_bytes(
        surgery.good_from(counting, DISCRETE, OBSERVATIONS[:5], 1), "test"
    )
    assert known.state_size == 2
    _, state = known.step(OBSERVATIONS, np.zeros((50, 2), np.float32))
    assert (state[:, 0] == 1).all()
    assert state[:, 1].tolist() == [1.0] * 5 + [2.0] * 45
    alone = OnnxPolicy.from_bytes(counting, "test")
    expected, _ = alone.step(OBSERVATIONS[:5], np.ones((5, 1), np.float32))
    np.testing.assert_array_equal(known.step(OBSERVATIONS, state)[0][:5], expected)


def test_an_undeclared_state_is_refused_even_where_golden_answers_are_right(
    work: Work, tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "undeclared state")
    row = trial.try_gate(work, run_dir, tmp_path / "scratch")[1]
    assert "keeps a state of 1 values, its manifest declares 0" in row.why
