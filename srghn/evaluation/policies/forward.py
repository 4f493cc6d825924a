"""Policies over lanes: each lane is one running episode, and belongs to one individual.

A lane's answer is computed from its own observation and its individual's weights by operations
whose order does not depend on the other lanes. So an action is the same bytes whoever else is in
the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from srghn.envs.interface import Interface
from srghn.errors import FAILURES, EvaluationError
from srghn.evaluation.base import (
    Float32,
    Int64,
    Policies,
    PolicyFunction,
    SeveralPolicies,
    WeightedPolicies,
)
from srghn.interrupt import raise_interrupt

if TYPE_CHECKING:
    from srghn.evaluation.policies.mapped import MappedModule

#: Rows that a policy function is asked about at once; fewer are padded with zeros.
BLOCK = 64
IDLE = -1

#: What `srghn.policies.MLP` may have between its layers and numpy computes lane by lane.
ACTIVATIONS: dict[str, Callable[[Float32], NDArray[Any]]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


class Forward(ABC):
    """One forward pass for all lanes. `who` int64 (lanes,): a lane's individual, or `IDLE`.

    To be entered before it is asked, and left when the last episode has ended.
    """

    def __init__(self, interface: Interface, lanes: int) -> None:
        self.interface = interface
        self.who = np.full(lanes, IDLE, dtype=np.int64)
        self._used: Int64 | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def assign(self, lane: int, individual: int) -> None:
        """From now on this lane asks that individual (`IDLE`: nobody)."""
        self.who[lane] = individual
        self._used = None

    def used(self) -> Int64:
        """The lanes (u,) that are not idle, in order."""
        if self._used is None:
            self._used = np.flatnonzero(self.who != IDLE)
        return self._used

    @abstractmethod
    def __call__(self, observations: Float32) -> tuple[NDArray[Any], dict[int, str]]:
        """Observations (lanes, size) -> native actions (lanes, ...), and lane -> what went wrong.

        The actions of idle and of failed lanes mean nothing.
        """


class _Outputs(Forward):
    """Forward passes that give raw outputs, which the interface's rule decodes."""

    @abstractmethod
    def outputs(self, observations: Float32) -> Float32:
        """Observations (lanes, size) -> raw outputs (lanes, action_size)."""

    def __call__(self, observations: Float32) -> tuple[NDArray[Any], dict[int, str]]:
        outputs = self.outputs(observations)
        failed = {}
        if np.isnan(outputs.max()):
            nan = np.isnan(outputs).any(axis=1) & (self.who != IDLE)
            failed = {int(lane): "the policy's output is NaN" for lane in np.flatnonzero(nan)}
        return self.interface.decode(outputs), failed


class MLPForward(_Outputs):
    """`srghn.policies.MLP` without torch: compiled layers, numpy activations.

    Sums run over the inputs in order, one float32 operation at a time.
    """

    def __init__(self, policies: WeightedPolicies, lanes: int) -> None:
        super().__init__(policies.interface, lanes)
        kwargs = policies.network.kwargs
        self._activation = ACTIVATIONS[kwargs.get("activation", "tanh")]
        hidden = kwargs.get("hidden", (8,))
        sizes = (self.interface.observation_size, *hidden, self.interface.action_size)
        self._layers = _split(policies.dense(), sizes)
        self._mean = np.array(self.interface.observation_mean, dtype=np.float32)
        self._deviation = np.array(self.interface.observation_deviation, dtype=np.float32)

    @staticmethod
    def fits(policies: WeightedPolicies) -> bool:
        """Whether this is an MLP with an activation that numpy computes."""
        network = policies.network
        known = network.kwargs.get("activation", "tanh") in ACTIVATIONS
        return network.module == "srghn.policies:MLP" and known and network.stack == 1

    def outputs(self, observations: Float32) -> Float32:
        from srghn.evaluation.policies.linear import linear

        used = self.used()
        who, values = self.who[used], observations[used]
        with np.errstate(all="ignore"):
            if self._mean.size:
                values = (values - self._mean) / self._deviation
            for depth, (weights, biases) in enumerate(self._layers):
                if depth:
                    values = np.asarray(self._activation(values), dtype=np.float32)
                values = linear(values, weights, biases, who)
        outputs = np.zeros((len(observations), values.shape[1]), dtype=np.float32)
        outputs[used] = values
        return outputs


def _split(weights: Float32, sizes: Sequence[int]) -> list[tuple[Float32, Float32]]:
    """Flat weights (n, P) -> per layer (n, inputs, outputs) and (n, outputs)."""
    layers, at = [], 0
    for inputs, outputs in pairwise(sizes):
        end = at + inputs * outputs
        matrix = weights[:, at:end].reshape(-1, outputs, inputs).transpose(0, 2, 1)
        layers.append((np.ascontiguousarray(matrix), weights[:, end : end + outputs].copy()))
        at = end + outputs
    _check_count(weights, at)
    return layers


def _check_count(weights: Float32, expected: int) -> None:
    if weights.shape[1] != expected:
        raise EvaluationError(
            f"the policy has {expected} parameters, got weights of shape {weights.shape}; were "
            "they made for another architecture or interface?"
        )


class ModuleForward(_Outputs):
    """Any `torch.nn.Module`, mapped over lanes that each hold a copy of their weights, and a state.

    Lanes in use are moved together where fewer of them can be asked for the same bytes. Torch has
    one thread from entering to leaving: on lanes so narrow a second would only wait, and for all
    episodes, because every change of the number wakes the others up.
    """

    def __init__(self, policies: WeightedPolicies, lanes: int) -> None:
        import torch

        from srghn.evaluation.policies.mapped import mapped_modules

        super().__init__(policies.interface, lanes)
        self._torch = torch
        described = policies.network.model_dump_json()
        self._modules = mapped_modules(described, policies.interface, lanes)
        self._states = np.zeros((lanes, self._modules[-1].state_size), dtype=np.float32)
        weights = policies.dense()
        _check_count(weights, sum(self._modules[-1].room().sizes))
        self._weights = self._modules[-1].room().spread(torch.from_numpy(weights))
        self._take(self._modules[-1], np.arange(lanes))

    def __enter__(self) -> Self:
        self._threads = self._torch.get_num_threads()
        self._torch.set_num_threads(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._torch.set_num_threads(self._threads)

    def _take(self, module: MappedModule, lanes: Int64) -> None:
        """Switch to this module, whose first rows are these lanes."""
        self._module, self._room = module, module.room()
        self._rows = np.full(len(self.who), IDLE)
        self._rows[lanes] = np.arange(len(lanes))
        used = lanes[self.who[lanes] != IDLE]
        self._room.rows[self._rows[used]] = self._weights[self.who[used]]

    def assign(self, lane: int, individual: int) -> None:
        super().assign(lane, individual)
        self._states[lane] = 0
        if individual == IDLE:
            used = self.used()
            fit = next(module for module in self._modules if module.lanes >= len(used))
            if fit.lanes < self._module.lanes:
                self._take(fit, used)
        elif self._rows[lane] == IDLE:
            self._take(self._modules[-1], np.arange(len(self.who)))
        else:
            self._room.rows[self._rows[lane]] = self._weights[individual]

    def outputs(self, observations: Float32) -> Float32:
        torch, used = self._torch, self.used()
        rows, wide = self._rows[used], observations.shape[1]
        seen = np.zeros((self._module.lanes, wide + self._states.shape[1]), dtype=np.float32)
        seen[rows, :wide], seen[rows, wide:] = observations[used], self._states[used]
        found = self._module(self._room.tensors, torch.from_numpy(seen), rows.tolist())
        outputs = np.zeros((len(observations), self.interface.action_size), dtype=np.float32)
        answered = found.numpy()[rows]
        outputs[used] = answered[:, : outputs.shape[1]]
        self._states[used] = answered[:, outputs.shape[1] :]
        return outputs


class FunctionForward(Forward):
    """Policy functions, each asked about its own lanes in blocks of `BLOCK` rows.

    One with a `state_size` above 0 is asked by its `step(observations, state)`, which gives actions
    and the next state; every episode begins with zeros. One that has a method `met(observations,
    states)` is told by it what the episodes showed; what it is then asked is filled up with zeros.

    A function that raises, or whose answer has the wrong shape, holds NaN or a choice that there is
    not, fails its lanes.
    """

    def __init__(
        self, functions: Sequence[PolicyFunction], interface: Interface, lanes: int
    ) -> None:
        super().__init__(interface, lanes)
        self._functions = functions
        sizes = [int(getattr(function, "state_size", 0)) for function in functions]
        self._states = np.zeros((lanes, max(sizes, default=0)), dtype=np.float32)
        self._tail = (interface.action_size,) if interface.action_kind == "box" else ()
        if interface.action_kind == "multidiscrete":
            self._tail = (len(interface.choices),)
        self._first = np.array(interface.starts)
        self._after = self._first + interface.choices
        self._dtype = np.float32 if interface.action_kind == "box" else np.int64

    def assign(self, lane: int, individual: int) -> None:
        super().assign(lane, individual)
        self._states[lane] = 0

    def __call__(self, observations: Float32) -> tuple[NDArray[Any], dict[int, str]]:
        actions = np.zeros((len(self.who), *self._tail), dtype=self._dtype)
        failed: dict[int, str] = {}
        for individual in np.unique(self.who[self.who != IDLE]):
            lanes = np.flatnonzero(self.who == individual)
            for start in range(0, len(lanes), BLOCK):
                part = lanes[start : start + BLOCK]
                try:
                    actions[part] = self._ask(individual, observations[part], part)
                except FAILURES as error:  # its episodes are lost
                    raise_interrupt(error)
                    failed |= {int(lane): f"policy: {describe(error)}" for lane in part}
        return actions, failed

    def _answer(self, individual: int, block: Float32, lanes: Int64) -> NDArray[Any]:
        """Actions (BLOCK, ...) of one function; the lanes' states are carried on."""
        function: Any = self._functions[individual]
        kept = int(getattr(function, "state_size", 0))
        if not kept:
            return np.asarray(function(block))
        before = np.zeros((BLOCK, kept), dtype=np.float32)
        before[: len(lanes)] = self._states[lanes, :kept]
        answer, after = function.step(block, before)
        self._states[lanes, :kept] = after[: len(lanes)]
        return np.asarray(answer)

    def _ask(self, individual: int, rows: Float32, lanes: Int64) -> NDArray[Any]:
        function: Any = self._functions[individual]
        if (met := getattr(function, "met", None)) is not None:
            met(rows, self._states[lanes, : int(getattr(function, "state_size", 0))])
        block = np.zeros((BLOCK, rows.shape[1]), dtype=np.float32)
        block[: len(rows)] = rows
        answer = self._answer(individual, block, lanes)
        if answer.shape != (BLOCK, *self._tail):
            raise EvaluationError(
                f"actions must have shape {(BLOCK, *self._tail)}, got {answer.shape}"
            )
        kept = answer[: len(rows)]
        if np.isnan(kept).any():
            raise EvaluationError("an action is NaN")
        # a fast backend would play another action, or whatever lies beyond its memory
        if (
            self._after.size
            and ((kept < self._first) | (kept >= self._after) | (kept % 1 != 0)).any()
        ):
            raise EvaluationError(
                f"actions must be of {self._first} to {self._after - 1}, and whole numbers"
            )
        return kept


def describe(error: BaseException) -> str:
    """Kind and words of an exception, for a `Crash`."""
    return f"{type(error).__name__}: {error}"


def make_forward(policies: Policies, interface: Interface, lanes: int) -> Forward:
    """The forward pass that fits: compiled for MLPs, torch for other modules, functions as such."""
    assert not isinstance(policies, SeveralPolicies)  # `check_call` has refused them
    if not isinstance(policies, WeightedPolicies):
        return FunctionForward(policies, interface, lanes)
    if MLPForward.fits(policies):
        return MLPForward(policies, lanes)
    return ModuleForward(policies, lanes)
