"""Known distributions of returns on [0, 1], and candidates that differ by a known amount."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from srghn.seeding import stream

Float = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Float]

#: Draws of which true means are computed.
TRUTH = 2_000_000
#: A return this low is a failure.
FAILURE = 0.2


def cartpole(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Seven in ten reach the ceiling, the rest fall somewhere on the way."""
    return np.where(rng.random(shape) < 0.7, 1.0, rng.uniform(0.3, 1.0, shape))


def lander(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Clean landings, hard ones, and a crash in a hundred."""
    kind = rng.random(shape)
    clean, hard = rng.normal(0.9, 0.03, shape), rng.normal(0.65, 0.08, shape)
    return np.clip(np.where(kind < 0.01, 0.1, np.where(kind < 0.15, hard, clean)), 0, 1)


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Paired differences of independent draws have a standard deviation of 20% of the range."""
    return np.clip(rng.normal(0.5, 0.2 / np.sqrt(2), shape), 0, 1)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Student's t with 2.5 degrees of freedom, clipped to the range."""
    return np.clip(0.6 + 0.08 * rng.standard_t(2.5, shape), 0, 1)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Most returns are low and a few are high."""
    return np.clip(rng.exponential(0.2, shape) + 0.21, 0, 1)


DISTRIBUTIONS: dict[str, Draw] = {
    "CartPole-like": cartpole,
    "LunarLander-like": lander,
    "Gaussian, sd .2": gaussian,
    "heavy-tailed": heavy,
    "skewed": skewed,
}


def lowered(draw: Draw, effect: float) -> Draw:
    """The distribution moved down (clipped) until its mean is lower by just `effect`."""
    if effect == 0:
        return draw
    step = _step(draw, effect)
    return lambda rng, shape: np.clip(draw(rng, shape) - step, 0, 1)


def failing(draw: Draw, rate: float) -> Draw:
    """The distribution with a share `rate` of all episodes replaced by the lowest return."""

    def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
        return np.where(rng.random(shape) < rate, 0.0, draw(rng, shape))

    return drawn


@cache
def truth(draw: Draw) -> tuple[float, float]:
    """Mean return and failure rate, from `TRUTH` draws."""
    x = draw(stream(0, "truth"), (TRUTH,))
    return float(x.mean()), float((x <= FAILURE).mean())


@cache
def _step(draw: Draw, effect: float) -> float:
    x = draw(stream(0, "truth"), (TRUTH // 4,))
    low, high, mean = 0.0, 1.0, x.mean()
    for _ in range(40):
        middle = (low + high) / 2
        lower = mean - np.clip(x - middle, 0, 1).mean() < effect
        low, high = (middle, high) if lower else (low, middle)
    return high
