"""Weights as sums of cosines over a tensor's indices, for tensors of any size.

A tensor's values are sampled from a smooth function of (output, input), whose coefficients the
hypernetwork makes. A layer of another width samples the same function at other places, so one
genome serves widths that it was never evolved at. The coefficients are those of a discrete cosine
transform, as in Koutnik, Gomez and Schmidhuber 2010, 'Evolving Neural Networks in Compressed Weight
Space'; that a weight is a function of the places of its two units is HyperNEAT's idea (Stanley,
D'Ambrosio and Gauci 2009).

Differs from both: the coefficients come from a node's vector by one linear layer that all tensors
share, and the places are indices alone, for a tensor does not tell where its units stand.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from srghn.ghn.noise import Float32


def cosines(shape: tuple[int, ...], frequencies: int) -> Float32:
    """Patterns (frequencies**2, values) of which a tensor is the sum, by its coefficients.

    A pattern is a product of one cosine for each dimension. The layer's width allows
    frequencies**2 of them: all for a matrix; for a tensor of more dimensions, those of the lowest
    total frequency. A pattern that a small tensor cannot tell from a lower one is zero.

    Values of independent unit coefficients have a variance of at most 4 / inputs (He et al. 2015
    want 2 / inputs, and a founder's coefficients have about half a unit); vectors and single
    values, which have no inputs, at most 1.
    """
    chosen = _lowest(len(shape), frequencies)
    patterns = np.zeros((frequencies**2, *shape))
    waves = [_waves(size, frequencies) for size in shape]
    for row, each in enumerate(chosen):
        pattern = np.ones(())
        for wave, frequency in zip(waves, each, strict=True):
            pattern = np.multiply.outer(pattern, wave[frequency])
        patterns[row] = pattern
    inputs = np.prod(shape[1:]) if len(shape) > 1 else 4.0
    patterns *= 2 / np.sqrt(inputs * len(chosen))
    return np.ascontiguousarray(patterns.reshape(frequencies**2, -1), dtype=np.float32)


def _lowest(dimensions: int, frequencies: int) -> list[tuple[int, ...]]:
    """Frequencies for each dimension, the lowest in total first, and at most frequencies**2."""
    every = product(range(frequencies), repeat=dimensions)
    return sorted(every, key=lambda each: (sum(each), each))[: frequencies**2]


def _waves(size: int, frequencies: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(frequencies, size): cosines at the middle of each unit, of mean square 1."""
    places = (np.arange(size) + 0.5) / size
    frequency = np.arange(frequencies)[:, None]
    waves = np.where(frequency, np.sqrt(2), 1.0) * np.cos(np.pi * frequency * places)
    return np.where(frequency < size, waves, 0.0)
