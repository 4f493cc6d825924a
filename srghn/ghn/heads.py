"""The deterministic heads: from node vectors to values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from srghn.config import GHNParams
from srghn.ghn import kernels
from srghn.ghn.cosines import cosines
from srghn.ghn.noise import Float32, fixed_basis
from srghn.ghn.plan import Plan

#: (genomes (n, genome_size), vectors of the target's parameters (n, parameters, hidden)) -> flat
#: values (n, P).
Head = Callable[[Float32, Float32], Any]


def make_head(params: GHNParams, plan: Plan, start: int, width: int, seed: int) -> Head:
    """The deterministic head for one target: its tensors lie from `start` on in a genome.

    dense    one linear layer, of whose `width` outputs a tensor takes the first. Differs from the
             paper, where a network gives them
    chunked  a tensor in chunks of `params.chunk`, told apart by their position; positions are
             sinusoids, so that any number of chunks has one, through an evolved layer. Not in the
             paper
    basis    a few coefficients a tensor, spread by the fixed random basis of `seed`. Not in the
             paper, which names it as future work
    dct      coefficients of cosines over a tensor's (output, input), see `cosines`. Not in the
             paper
    """
    bounds = plan.bounds
    if params.head == "dense":
        return lambda genomes, vectors: kernels.dense(genomes, start, width, vectors, bounds)
    if params.head == "chunked":
        waves = _sinusoids(-(-plan.widest // width), params.hidden)
        return lambda genomes, vectors: kernels.chunked(
            genomes, start, width, waves, vectors, bounds
        )
    if params.head == "dct":
        patterns = np.concatenate(
            [cosines(shape, params.frequencies).ravel() for shape in plan.shapes]
        )
        return lambda genomes, vectors: kernels.patterned(
            genomes, start, width, patterns, vectors, bounds
        )
    basis = fixed_basis(seed, width, plan.widest)
    return lambda genomes, vectors: kernels.spread(genomes, start, basis, vectors, bounds)


def _sinusoids(count: int, width: int) -> Float32:
    """(count, width): sines and cosines of the position at wavelengths from 2 pi to 2000 pi."""
    frequency = 1000.0 ** -(np.arange((width + 1) // 2) / max((width + 1) // 2, 1))
    angle = np.arange(count)[:, None] * frequency
    waves = np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(count, -1)
    return np.ascontiguousarray(waves[:, :width], dtype=np.float32)
