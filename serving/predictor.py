"""A loaded version, ready to answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.actions import Actions
from serving.layers import Layers
from srghn.candidates.candidate import OnnxPolicy
from srghn.envs.layout import Layout
from srghn.errors import SrghnError


class PredictionError(SrghnError):
    """A loaded policy failed, or its answer is not an action."""


class InvalidAction(PredictionError):
    """The policy's action is not finite, or not an action of the interface."""


@dataclass(frozen=True)
class Predictor:
    """One verified version, ready to answer. Immutable, so a request can keep a reference to it.

    `layers` is the same policy in numpy if it was proven equal to the ONNX file; None leaves every
    request to ONNX Runtime. A `state_size` above 0 means that the policy keeps a state from step
    to step. In an episode call `step_one`; elsewhere each observation starts from the zero state.
    """

    version: int
    digest: str
    env_fingerprint: str
    mode: str
    observation_size: int
    action_shape: tuple[int, ...]  # one action's shape in its environment, () for a number
    action_kind: str  # "i" integers, "f" numbers
    policy: OnnxPolicy
    layers: Layers | None = None
    state_size: int = 0
    actions: Actions | None = None  # None if the manifest does not describe them
    #: Clients' name for its observations and actions (`serving.registry.interfaces.key_of`).
    interface: str = ""
    #: The interface as the manifest describes it.
    face: Mapping[str, Any] = field(default_factory=dict, compare=False)
    #: Flattens native observations; None if they are flat vectors already.
    layout: Layout | None = None

    @cached_property
    def beside(self) -> int:
        """Bytes of names and brackets that a native observation may take in JSON."""
        leaves = self.layout.leaves if self.layout is not None else ()
        return sum(96 + sum(len(str(step)) + 8 for step in leaf.path) for leaf in leaves)

    @property
    def marks(self) -> tuple[int, int]:
        """Most commas, and most opening brackets, of one observation in JSON."""
        return (self.observation_size + 1, 2) if self.layout is None else self.layout.marks

    def act_one(self, observation: list[float]) -> Any:
        """The action for one observation of d numbers, each within float32.

        It is a number, or lists in the environment's shape. Raises `PredictionError` if the policy
        fails, `InvalidAction` if the action is not finite or not an action of the interface.
        """
        layers = self.layers
        bound = 0.0 if layers is None else layers.bound
        if layers is None or not (-bound <= min(observation) and max(observation) <= bound):
            return self.act(np.array([observation], np.float32)).tolist()[0]
        action = layers.one(observation)
        if layers.offset is None and not math.isfinite(sum(action)):
            raise InvalidAction(f"version {self.version} answered with an action not finite")
        if not self._always_known and self.actions is not None and not self.actions.have(action):
            raise self._unknown(action)
        return self._shaped(action)

    def _shaped(self, action: Any) -> Any:
        """A flat action in the environment's shape."""
        if type(action) is int or len(self.action_shape) == 1:
            return action
        return np.reshape(action, self.action_shape).tolist()

    def step_one(self, observation: list[float], memory: bytes) -> tuple[Any, bytes]:
        """The action and the state for the next step; `memory` is the state, b"" at the start.

        Raises as `act_one` does.
        """
        if not self.state_size:
            return self.act_one(observation), b""
        state = np.frombuffer(memory, np.float32).reshape(1, -1)
        if state.shape[1] != self.state_size:
            state = np.zeros((1, self.state_size), np.float32)
        try:
            actions, after = self.policy.step(np.array([observation], np.float32), state)
        except Exception as error:  # onnxruntime's own types derive from Exception alone
            raise PredictionError(f"version {self.version} failed: {error}") from error
        finite = np.isfinite(after).all() and (
            actions.dtype.kind != "f" or np.isfinite(actions).all()
        )
        if not finite:
            raise InvalidAction(f"version {self.version} answered with numbers that are not finite")
        if self.actions is not None and not self.actions.have_all(actions):
            raise self._unknown(actions.tolist()[0])
        return self._shaped(actions.tolist()[0]), np.ascontiguousarray(after, np.float32).tobytes()

    def act(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        """Actions (n, *action_shape) for observations (n, d); raises as `act_one` does."""
        try:
            actions = self._run(observations)
        except Exception as error:  # onnxruntime's own types derive from Exception alone
            raise PredictionError(f"version {self.version} failed: {error}") from error
        if actions.dtype.kind == "f" and not np.isfinite(actions).all():
            raise InvalidAction(f"version {self.version} answered with an action not finite")
        known = self._always_known or self.actions is None or self.actions.have_all(actions)
        if not known:
            raise self._unknown("one of a batch")
        return actions.reshape(len(actions), *self.action_shape)

    @cached_property
    def _always_known(self) -> bool:
        """Whether each output of a discrete policy is an action of the interface."""
        found = None if self.layers is None else self.layers.choices(self.observation_size)
        if found is None or self.actions is None:
            return False
        return self.actions.have(found[0]) and self.actions.have(found[1])

    def _unknown(self, action: Any) -> InvalidAction:
        return InvalidAction(
            f"version {self.version} answered with an action that its interface does not have: "
            f"{action}"
        )

    def _run(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        layers = self.layers
        if self.state_size:
            zeros = np.zeros((len(observations), self.state_size), np.float32)
            return self.policy.step(observations, zeros)[0]
        if layers is None or not _within(observations, layers.bound):
            return self.policy(observations)
        return layers.many(observations)


def _within(observations: NDArray[np.float32], bound: float) -> bool:
    """Whether no number exceeds `bound`. Mostly their squares' sum says so, in half the time."""
    squares = float(np.vdot(observations, observations))
    near = squares < 0.99 * bound**2  # .99: sums are rounded
    return near or bool(np.abs(observations).max() <= bound)
