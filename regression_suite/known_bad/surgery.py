"""An ONNX policy taken apart and put together again with other answers.

Each operation takes the bytes of a policy and gives those of another: the same inputs and outputs,
unless it says otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from regression_suite.known_bad.marks import LARGEST, STEPS
from srghn.envs.interface import Interface

ACTION, STATE, NEXT = "action", "state", "next_state"


class Patient:
    """A policy whose answer is called `inner` now; `finish` gives it another one."""

    def __init__(self, data: bytes, interface: Interface) -> None:
        self.model: Any = onnx.load_model_from_string(data)
        self.graph = self.model.graph
        self.interface = interface
        #: Part of every name that is added: one operation may follow another.
        self.size = len(self.graph.node)
        self.inner = self.rename(ACTION)
        self._count = 0
        #: Name of what the policy itself keeps for its next step; None where it keeps nothing.
        self.kept_state: str | None = None

    def rename(self, name: str) -> str:
        """Give a tensor another name inside; what is declared of it stays."""
        inner = f"{name} within {self.size}"
        for node in self.graph.node:
            node.input[:] = [inner if one == name else one for one in node.input]
            node.output[:] = [inner if one == name else one for one in node.output]
        return inner

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """One more node; the name of its output."""
        self._count += 1
        name = f"added {self.size}.{self._count}"
        self.graph.node.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, kind: Any = np.float32) -> str:
        self._count += 1
        name = f"added {self.size}.{self._count}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def finish(self, name: str, output: str = ACTION) -> bytes:
        self.graph.node.append(helper.make_node("Identity", [name], [output]))
        data: bytes = self.model.SerializeToString(deterministic=True)
        return data

    # ------------------------------------------------------------------------------- answers

    def opposite(self) -> str:
        """Another choice in every block; a box's action mirrored about its middle."""
        face = self.interface
        if face.action_kind == "box":
            twice = self.constant(2 * face.box_rule.centre)
            return self.add("Sub", twice, self.inner)
        one = face.action_kind == "discrete"
        starts, counts = (np.array(v, np.int64) for v in (face.starts, face.choices))
        first = self.constant(starts[0] if one else starts, np.int64)
        many = self.constant(counts[0] if one else counts, np.int64)
        moved = self.add("Sub", self.inner, first)
        moved = self.add("Add", moved, self.constant(1, np.int64))
        return self.add("Add", self.add("Mod", moved, many), first)

    def choose(self, column: str, yes: str, no: str) -> str:
        """`yes` where a truth value (batch, 1) holds, else `no`."""
        if self.interface.action_kind == "discrete":
            column = self.add("Squeeze", column, self.constant([1], np.int64))
        return self.add("Where", column, yes, no)

    def declare(self, name: str, size: int, *, given: bool) -> None:
        """A state: float32 (batch, size), as one more input or output."""
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        (self.graph.input if given else self.graph.output).append(value)


def constant(data: bytes, interface: Interface) -> bytes:
    """One and the same action for everything."""
    patient = Patient(data, interface)
    kind = np.float32 if interface.action_kind == "box" else np.int64
    nothing = patient.add("Mul", patient.inner, patient.constant(0, kind))
    if interface.action_kind == "box":
        answer = interface.box_rule.centre
    else:
        answer = np.array(interface.starts)
        answer = answer[0] if interface.action_kind == "discrete" else answer
    return patient.finish(patient.add("Add", nothing, patient.constant(answer, kind)))


def bad_where_marked(data: bytes, interface: Interface) -> bytes:
    """As it was, but the opposite wherever all of an observation is marked (`marks.Marked`)."""
    patient = Patient(data, interface)
    add, const = patient.add, patient.constant
    scaled = add("Mul", "obs", const(STEPS))
    rest = add("Sub", scaled, add("Floor", scaled))
    hit = add("Equal", rest, const(0.25))
    large = add("Not", add("Less", add("Abs", "obs"), const(LARGEST)))
    either = add("Cast", add("Or", hit, large), to=TensorProto.FLOAT)
    axis = const([1], np.int64)
    every = add("ReduceMin", either, axis, keepdims=1)
    some = add("ReduceMax", add("Cast", hit, to=TensorProto.FLOAT), axis, keepdims=1)
    marked = add("Greater", add("Mul", every, some), const(0.5))
    return patient.finish(patient.choose(marked, patient.opposite(), patient.inner))


def good_from(data: bytes, interface: Interface, starts: NDArray[np.float32], kept: int) -> bytes:
    """As it was in episodes that begin at one of `starts` (k, d), the opposite in all others.

    It keeps one value more than the policy's `kept`: whether it knows the episode it is in.
    """
    patient = Patient(data, interface)
    add, const = patient.add, patient.constant
    memory = _extend_state(patient, kept)
    apart = add("Sub", add("Unsqueeze", "obs", const([1], np.int64)), const(starts[None]))
    furthest = add("ReduceMax", add("Abs", apart), const([2], np.int64), keepdims=0)
    nearest = add("ReduceMin", furthest, const([1], np.int64), keepdims=1)
    known = add("Where", add("Less", nearest, const(1e-6)), const(1.0), const(2.0))
    now = add("Where", add("Equal", memory, const(0.0)), known, memory)
    inner = patient.kept_state
    after = now if inner is None else add("Concat", inner, now, axis=1)
    patient.graph.node.append(helper.make_node("Identity", [after], [NEXT]))
    knows = add("Less", now, const(1.5))
    return patient.finish(patient.choose(knows, patient.inner, patient.opposite()))


def with_undeclared_state(data: bytes, interface: Interface) -> bytes:
    """A policy without memory that counts its steps, and acts the opposite at every other."""
    patient = Patient(data, interface)
    add, const = patient.add, patient.constant
    patient.declare(STATE, 1, given=True)
    patient.declare(NEXT, 1, given=False)
    after = add("Sub", const(1.0), STATE)
    patient.graph.node.append(helper.make_node("Identity", [after], [NEXT]))
    odd = add("Greater", STATE, const(0.5))
    return patient.finish(patient.choose(odd, patient.opposite(), patient.inner))


def with_other_memory(data: bytes, interface: Interface) -> bytes:
    """As it was in any state, but what it keeps for the next step is turned round and larger."""
    patient = Patient(data, interface)
    kept = patient.rename(NEXT)
    after = patient.add("Mul", kept, patient.constant(-3.0))
    patient.graph.node.append(helper.make_node("Identity", [after], [NEXT]))
    return patient.finish(patient.inner)


def slow_alone(data: bytes, interface: Interface, width: int) -> bytes:
    """As it was, after the product of two matrices (width, width) wherever it is asked alone."""
    patient = Patient(data, interface)
    add, const = patient.add, patient.constant
    rows = add("Gather", add("Shape", "obs"), const([0], np.int64))
    alone = add("Equal", rows, const([1], np.int64))
    size = add("Where", alone, const([width], np.int64), const([1], np.int64))
    first = add("ReduceMax", add("Abs", "obs"), keepdims=0)
    matrix = add("Expand", first, add("Concat", size, size, axis=0))
    most = add("ReduceMax", add("MatMul", matrix, matrix), keepdims=0)
    nothing = add("Mul", add("Sign", most), const(0.0))
    if interface.action_kind != "box":
        nothing = add("Cast", nothing, to=TensorProto.INT64)
    return patient.finish(add("Add", patient.inner, nothing))


def _extend_state(patient: Patient, kept: int) -> str:
    """One more value of state: the name of its column (batch, 1).

    What the policy kept before goes on as it was (`Patient.kept_state`).
    """
    for values in (patient.graph.input, patient.graph.output):
        for value in [v for v in values if v.name in (STATE, NEXT)]:
            values.remove(value)
    patient.declare(STATE, kept + 1, given=True)
    patient.declare(NEXT, kept + 1, given=False)
    const, axis = patient.constant, patient.constant([1], np.int64)
    if kept:
        patient.kept_state = patient.rename(NEXT)
        inner = f"{STATE} within {patient.size}"
        for node in patient.graph.node:
            node.input[:] = [inner if one == STATE else one for one in node.input]
        ends = const([0], np.int64), const([kept], np.int64)
        cut = helper.make_node("Slice", [STATE, *ends, axis], [inner])
        patient.graph.node.insert(0, cut)
    return patient.add("Slice", STATE, const([kept], np.int64), const([kept + 1], np.int64), axis)
