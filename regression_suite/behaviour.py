"""How the candidate acts: which actions, how often unlike the champion, alike again, how fast."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regression_suite.episodes import Seen, answer
from srghn.candidates.candidate import OnnxPolicy
from srghn.config import GateParams
from srghn.envs.interface import Interface
from srghn.evaluation.base import PolicyFunction
from srghn.inference.verdict import Check
from srghn.seeding import stream

Float = NDArray[np.float64]
#: Observations asked about, and how many of them are asked one at a time as well.
SAMPLE, SINGLE = 2000, 64
#: States that were met from which a policy that keeps one is shown other observations, and steps
#: within which it must come to act otherwise.
HELD, WITHIN = 4, 64
#: Calls of one observation whose median is the latency.
CALLS = 200
#: Milliseconds that the reference network takes on the machine that budgets are written for.
REFERENCE_MS = 0.02


@dataclass(frozen=True)
class Behaviour:
    """Answers to the observations that the candidate met.

    `candidate` and `incumbent` are shares (rows, columns): a row for every block or dimension of
    the action; columns are the choices, or for a box low bound, between, and high bound. `heeds`:
    where it keeps a state, its actions depend on what it sees and not on that state alone.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    candidate: Float
    incumbent: Float | None
    disagreement: float | None
    repeatable: bool
    varied: bool
    observations: int
    heeds: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        tables = {"candidate": self.candidate.tolist()}
        if self.incumbent is not None:
            tables["incumbent"] = self.incumbent.tolist()
        return asdict(self) | tables


def observe(
    interface: Interface,
    seen: Seen,
    policy: PolicyFunction,
    incumbent: PolicyFunction | None,
) -> Behaviour:
    """Ask both policies about what was seen.

    A champion that keeps a state is not asked: which it would have been in, nobody knows.
    """
    observations, states = seen.observations, seen.states
    actions, _ = answer(policy, observations, states)
    few = zip(observations[:SINGLE, None], states[:SINGLE, None], strict=True)
    alone = np.concatenate([answer(policy, *one)[0] for one in few])
    again, _ = answer(policy, observations, states)
    asked = incumbent if not getattr(incumbent, "state_size", 0) else None
    theirs = None if asked is None else asked(observations)
    rows, columns = _labels(interface)
    return Behaviour(
        rows=rows,
        columns=columns,
        candidate=_shares(interface, actions),
        incumbent=None if theirs is None else _shares(interface, theirs),
        disagreement=None if theirs is None else _disagreement(interface, actions, theirs),
        repeatable=_same(actions, again) and bool(interface.alike(actions[:SINGLE], alone).all()),
        varied=bool((actions != actions[0]).any()),
        observations=len(observations),
        heeds=not states.shape[1] or _heeds(interface, seen, policy),
    )


def _heeds(interface: Interface, seen: Seen, policy: PolicyFunction) -> bool:
    """Whether a policy that is in one state comes to act otherwise where it sees something else.

    One that counts its steps acts in many ways and heeds nothing. What it sees may show in its
    actions only later, through its state, so it is shown one observation after another.
    """
    # equal rows of a batch may be rounded otherwise
    bar = interface.box_rule.half * 1e-6 if interface.action_kind == "box" else 0.0
    held = np.linspace(0, len(seen) - 1, HELD).astype(int)
    for state in seen.states[held]:
        states = np.repeat(state[None], len(seen), axis=0)
        for step in range(WITHIN):
            shown = np.roll(seen.observations, step, axis=0)
            actions, states = answer(policy, shown, states)
            if (np.abs(_rows(actions) - _rows(actions)[0]) > bar).any():
                return True
    return False


def judge_behaviour(seen: Behaviour | None) -> list[Check]:
    """A policy must answer alike when asked again, and must not ignore what it sees."""
    if seen is None:
        reason = "no observation was recorded in the primary cell"
        return [Check("behaviour", "error", reason)]
    if not seen.repeatable:
        reason = "the same observation, alone or in another batch, gives another action"
        return [
            Check(
                "behaviour",
                "failed",
                reason,
                remedy="Remove randomness and hidden state from the policy.",
            )
        ]
    if not (seen.varied and seen.heeds):
        reason = (
            "from one and the same state it acts alike whatever it sees: its actions depend on its "
            "state alone"
            if seen.varied
            else f"one action for all {seen.observations:,} observations that it saw"
        )
        remedy = "A policy that ignores its observations is refused whatever its returns."
        return [Check("behaviour", "failed", reason, remedy=remedy)]
    reason = (
        f"answers {seen.observations:,} observations alike when repeated, and they are not all "
        "equal"
    )
    return [Check("behaviour", "passed", reason)]


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of one answer and of the reference network's, asked in turn."""

    policy: float
    reference: float

    @property
    def normal(self) -> float:
        """Milliseconds on a machine on which the reference takes `REFERENCE_MS`."""
        return REFERENCE_MS * self.policy / self.reference


def measure_latency(
    policy: PolicyFunction, reference: PolicyFunction, seen: Seen, calls: int = CALLS
) -> Latency:
    """Time answers to the first of what was seen.

    Policy and reference are asked in turn, so a machine that is busy, or slow, is so for both.
    """
    times, observation, state = np.empty((calls, 2)), seen.observations[:1], seen.states[:1]
    for row in times:
        for column, asked in enumerate((policy, reference)):
            start = time.perf_counter()
            answer(asked, observation, state)
            row[column] = time.perf_counter() - start
    mine, theirs = np.median(times, axis=0) * 1e3
    return Latency(float(mine), float(theirs))


def reference_policy(observation_size: int) -> OnnxPolicy:
    """Two hidden layers of 64 units and two choices: what latencies are a multiple of."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = stream(0, "reference policy")
    sizes = (observation_size, 64, 64, 2)
    nodes, weights, name = [], [], "obs"
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        values = rng.standard_normal((inputs, outputs), dtype=np.float32)
        weights.append(numpy_helper.from_array(values, f"weight{layer}"))
        nodes.append(helper.make_node("MatMul", [name, f"weight{layer}"], [f"sum{layer}"]))
        name = f"tanh{layer}"
        nodes.append(helper.make_node("Tanh", [f"sum{layer}"], [name]))
    nodes.append(helper.make_node("ArgMax", [name], ["action"], axis=1, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", observation_size])],
        [helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"])],
        weights,
    )
    opset = helper.make_opsetid("", 18)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    return OnnxPolicy.from_bytes(model.SerializeToString(), "the reference network")


def judge_latency(measured: Latency | None, params: GateParams) -> Check:
    """The figure itself is a clock's and stays out of the report, whose bytes are the evidence."""
    if measured is None:
        return Check("latency", "error", "no call was made, so none was timed")
    within = measured.normal <= params.max_latency_ms
    return Check(
        name="latency",
        outcome="passed" if within else "failed",
        reason=f"median of {CALLS} calls {'within' if within else 'above'} the budget of "
        f"{params.max_latency_ms:g} ms, relative to a reference network in the same process "
        "(figures: timings.json)",
        threshold=params.max_latency_ms,
        remedy="" if within else "Evolve a smaller policy, or raise gate.max_latency_ms.",
    )


def _labels(interface: Interface) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if interface.action_kind == "box":
        rows = tuple(f"action {i}" for i in range(interface.action_size))
        return rows, ("low bound", "between", "high bound")
    rows = tuple(f"action {i}" for i in range(len(interface.choices)))
    return rows, tuple(str(i) for i in range(max(interface.choices)))


def _shares(interface: Interface, actions: NDArray[Any]) -> Float:
    table = _rows(actions)
    if interface.action_kind == "box":
        rule = interface.box_rule
        low, high = rule.low * rule.half + rule.centre, rule.high * rule.half + rule.centre
        parts: Sequence[NDArray[np.bool_]] = [
            table <= low,
            (table > low) & (table < high),
            (table >= high) & (table > low),  # of a range without a width all is its foot
        ]
        return np.stack([part.mean(axis=0) for part in parts], axis=1)
    start = np.array(interface.starts)
    width = max(interface.choices)
    return np.stack(
        [np.bincount(column, minlength=width) / len(table) for column in (table - start).T]
    )


def _disagreement(interface: Interface, actions: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Share of observations answered otherwise; for a box, by more than a tenth of its range."""
    gap = np.abs(_rows(actions).astype(np.float64) - _rows(theirs))
    bar = interface.box_rule.half * 0.2 if interface.action_kind == "box" else 0.0
    return float((gap > bar).any(axis=1).mean())


def _same(first: NDArray[Any], second: NDArray[Any]) -> bool:
    return first.shape == second.shape and first.tobytes() == second.tobytes()


def _rows(actions: NDArray[Any]) -> NDArray[Any]:
    return actions.reshape(len(actions), -1)
