"""From node vectors to values: the deterministic heads, and the stochastic head with its rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from srghn.config import GHNParams
from srghn.ghn.noise import fixed_basis
from srghn.ghn.plan import Float32, Plan, spread

#: The hypernetwork's tensors by name, each (n, *shape).
Tensors = Mapping[str, Float32]
#: (tensors, vectors of the target's parameters (n, parameters, hidden)) -> flat values (n, P).
Head = Callable[[Tensors, Float32], Float32]


def make_head(params: GHNParams, plan: Plan, seed: int) -> Head:
    """The deterministic head for one target; `seed` fixes the random basis."""
    return {"dense": _dense, "chunked": _chunked, "basis": _basis}[params.head](params, plan, seed)


def _dense(params: GHNParams, plan: Plan, seed: int) -> Head:
    """One linear layer, of whose P_max outputs a tensor takes the first P, as in the paper."""

    def head(tensors: Tensors, vectors: Float32) -> Float32:
        return spread(vectors, tensors["decode.weight"], plan.spans, tensors["decode.bias"])

    return head


def _basis(params: GHNParams, plan: Plan, seed: int) -> Head:
    """A few coefficients a tensor, spread by the fixed random basis. Ours, not the paper's."""
    basis = fixed_basis(seed, params.basis_width, plan.widest)

    def head(tensors: Tensors, vectors: Float32) -> Float32:
        return spread(linear(tensors, "decode", vectors), basis, plan.spans)

    return head


def _chunked(params: GHNParams, plan: Plan, seed: int) -> Head:
    """A tensor in chunks of one width, told apart by their position. Ours, not the paper's.

    Positions are sinusoids, so that any number of chunks has one, through an evolved layer.
    """
    width = params.chunk
    counts = [-(-(span.stop - span.start) // width) for span in plan.spans]
    tensor = np.repeat(np.arange(len(counts)), counts)
    position = np.concatenate([np.arange(count) for count in counts])
    waves = _sinusoids(max(counts), params.hidden)
    # Runs of chunks that lie side by side: (first chunk, end, values a chunk, place), tails apart.
    runs: list[tuple[int, int, int, int]] = []
    for span, first in zip(plan.spans, np.cumsum([0, *counts]), strict=False):
        whole, tail = divmod(span.stop - span.start, width)
        end = int(first) + whole
        runs += [(int(first), end, width, span.start)] if whole else []
        runs += [(end, end + 1, tail, span.stop - tail)] if tail else []

    def head(tensors: Tensors, vectors: Float32) -> Float32:
        chunks = np.take(vectors, tensor, axis=1)
        chunks += np.take(waves @ tensors["decode.position"], position, axis=1)
        np.tanh(chunks, out=chunks)
        n, weight, bias = len(chunks), tensors["decode.weight"], tensors["decode.bias"]
        flat = np.empty((n, plan.spans[-1].stop), dtype=np.float32)
        for first, end, size, place in runs:
            values = flat[:, place : place + (end - first) * size].reshape(n, end - first, size)
            np.matmul(chunks[:, first:end], weight[..., :size], out=values)
            values += bias[:, None, :size]
        return flat

    return head


def _sinusoids(count: int, width: int) -> Float32:
    """(count, width): sines and cosines of the position at wavelengths from 2 pi to 2000 pi."""
    frequency = 1000.0 ** -(np.arange((width + 1) // 2) / max((width + 1) // 2, 1))
    angle = np.arange(count)[:, None] * frequency
    waves = np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(count, -1)
    return np.ascontiguousarray(waves[:, :width], dtype=np.float32)


def linear(tensors: Tensors, name: str, inputs: Float32) -> Float32:
    """Each individual's own layer: (n, rows, inputs) -> (n, rows, outputs)."""
    outputs = inputs @ tensors[f"{name}.weight"]
    outputs += tensors[f"{name}.bias"][:, None]
    return outputs


def deviations(tensors: Tensors, vectors: Float32) -> Float32:
    """The stochastic head: positive standard deviations (n, parameters, basis_width)."""
    raw = linear(tensors, "sigma.out", np.tanh(linear(tensors, "sigma.hidden", vectors)))
    softplus = np.maximum(raw, 0) + np.log(1 + np.exp(-np.abs(raw)))  # this way it never overflows
    return np.asarray(softplus, dtype=np.float32)


def mutation_rates(params: GHNParams, tensors: Tensors, vectors: Float32) -> Float32:
    """The rate head: (n, parameters), around the initial rate and within its bounds.

    Differs from the paper: bounded, since an unbounded rate runs away. Logarithms beyond a bound
    are folded back. Clipped, they would wander on unseen while the world rests, and a population
    would need hundreds of generations to find its rates again when the world moves.
    """
    low, high = np.log(params.rate_min), np.log(params.rate_max)
    level = linear(tensors, "rate", vectors)[:, :, 0] + np.float32(np.log(params.initial_rate))
    if params.rate_bounds == "fold":
        level = _folded(np.clip(level, -1e4, 1e4), low, high)  # beyond that nothing is left of it
    rates: Float32 = np.exp(np.clip(level, np.float32(low), np.float32(high)))
    return rates


def _folded(values: Float32, low: float, high: float) -> Float32:
    """Values reflected at both bounds as often as it takes, as between two mirrors."""
    width = np.float32(high - low)
    if width == 0:
        return np.full_like(values, low)
    folded: Float32 = np.float32(low) + np.abs((values - np.float32(high)) % (2 * width) - width)
    return folded
