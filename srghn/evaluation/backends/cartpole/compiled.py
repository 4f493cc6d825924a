"""The CartPole family with an MLP policy, in compiled code: the fastest backend there is.

Equal to Gymnasium step for step, observations and ends bit for bit: physics in float64, policy in
float32. The policy's outputs are within a few float32 ulp of PyTorch's, so an action can differ
only where two outputs all but tie.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from srghn.compiled import in_c_library
from srghn.config import NetworkParams
from srghn.envs.interface import Interface
from srghn.errors import EvaluationError
from srghn.evaluation.backends.cartpole.kernel import ACTIVATIONS, packing, play, sines_and_cosines
from srghn.evaluation.backends.cartpole.world import CartPoleBackend, World, start_states
from srghn.evaluation.base import Crash, Evaluation, Policies, Progress, WeightedPolicies
from srghn.evaluation.task import Task

if TYPE_CHECKING:
    from srghn.envs.version import EnvVersion

NO_TRACE = np.zeros((0, 0, 0, 5), dtype=np.float32)


class CompiledCartPole(CartPoleBackend):
    """Plays weighted MLPs in one compiled loop; callables go to the backend `cartpole`."""

    name = "cartpole-mlp"
    fallback = "cartpole"

    @classmethod
    def supports(cls, version: EnvVersion, network: NetworkParams) -> bool:
        known = network.kwargs.get("activation", "tanh") in ACTIVATIONS
        plain = network.stack == 1 and not version.interface.observation_mean
        mlp = network.module == "srghn.policies:MLP" and known and plain
        return mlp and numpy_uses_libm() and super().supports(version, network)

    def plays(self, policies: Policies) -> bool:
        return isinstance(policies, WeightedPolicies)

    def play(
        self, policies: Policies, task: Task, world: World, progress: Progress | None
    ) -> Evaluation:
        assert isinstance(policies, WeightedPolicies)
        weights, widths = policies.dense(), mlp_widths(policies.network, task.version.interface)
        order = packing(widths)
        if weights.shape[1] != order.size:
            raise EvaluationError(
                f"an MLP of layers {widths} has {order.size} parameters, got {weights.shape[1]}; "
                "generate weights for this network"
            )
        activation = ACTIVATIONS[policies.network.kwargs.get("activation", "tanh")]
        lengths, broken = play(
            weights, order, np.array(widths), activation, start_states(world.env, task.seeds),
            world.physics, world.forces, world.limit, world.source, world.signs,
            NO_TRACE,
        )  # fmt: skip
        if progress is not None:
            progress(lengths.size, lengths.size)
        crashes = [
            Crash(int(i), int(task.seeds[k]), int(lengths[i, k]), "the policy's output is NaN")
            for i, k in np.argwhere(broken)
        ]
        return Evaluation(
            returns=np.where(broken, -np.inf, lengths.astype(np.float64)),
            lengths=lengths,
            steps=int(lengths.sum()),
            crashes=tuple(sorted(crashes, key=lambda c: (c.individual, c.seed))),
        )


@lru_cache(maxsize=1)
def numpy_uses_libm() -> bool:
    """Whether NumPy's sine and cosine, which Gymnasium calls, are the C library's, as the kernel's.

    They are not where NumPy was built with vector mathematics for this processor (AVX-512): there
    the last bit differs, and the backend `cartpole` plays instead. So it does without glibc.
    """
    if not in_c_library("sincos"):
        return False
    angles = np.linspace(-0.25, 0.25, 4001)
    sines, cosines = sines_and_cosines(angles)
    return np.array_equal(np.sin(angles), sines) and np.array_equal(np.cos(angles), cosines)


def mlp_widths(network: NetworkParams, interface: Interface) -> tuple[int, ...]:
    """Layer sizes of `srghn.policies:MLP`, inputs first."""
    hidden = network.kwargs.get("hidden", (8,))
    return (interface.observation_size, *hidden, interface.action_size)
