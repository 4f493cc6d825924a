"""Message passing over a graph, for a whole population at once.

Every individual has matrices of its own, so products are stacks of small ones, one an individual:
what one individual gets never depends on who else is in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from srghn.ghn.plan import Float32, Plan


def node_vectors(
    tensors: Mapping[str, Float32],
    plan: Plan,
    rounds: int,
    order: Literal["generations", "synchronous"],
) -> Float32:
    """Vectors (n, nodes, hidden) in (-1, 1) after `rounds` of messages forward and backward."""
    vectors = np.take(tensors["embed"], plan.kinds, axis=1)
    step = _sweep if order == "generations" else _synchronous
    for _ in range(rounds):
        vectors = step(vectors, plan, tensors)
    return vectors


def _synchronous(vectors: Float32, plan: Plan, tensors: Mapping[str, Float32]) -> Float32:
    """All nodes at once, from both sides: what a node knows travels one edge a round."""
    forward = (plan.incoming @ vectors) @ tensors["message.forward"]
    backward = (plan.outgoing @ vectors) @ tensors["message.backward"]
    own = vectors @ tensors["message.self"] + tensors["message.bias"][:, None]
    return np.tanh(own + forward + backward)


def _sweep(vectors: Float32, plan: Plan, tensors: Mapping[str, Float32]) -> Float32:
    """Forward and then backward, a topological generation at a time (Zhang et al. 2018, eq. 3-4).

    One sweep each way, and every node has heard from every node before and after it.
    """
    bias = tensors["message.bias"][:, None]
    sides = (
        (plan.incoming, tensors["message.forward"], plan.generations),
        (plan.outgoing, tensors["message.backward"], plan.generations[::-1]),
    )
    for average, weight, generations in sides:
        own = vectors @ tensors["message.self"] + bias
        vectors = np.empty_like(own)
        vectors[:] = 0
        for first, end in generations:
            heard = (average[first:end] @ vectors) @ weight
            vectors[:, first:end] = np.tanh(own[:, first:end] + heard)
    return vectors
