"""Digests of an environment's behaviour under fixed actions: the part that cannot be faked.

Fixed seeds and fixed policy outputs are played; every step's observation, reward and ends give a
short digest, so that two records show the first step at which two environments differ.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srghn.envs.interface import Interface
from srghn.errors import FAILURES, EnvVersionError, one_line
from srghn.seeding import stream

if TYPE_CHECKING:
    import gymnasium as gym

SEEDS = (0, 1, 2, 3, 4, 5)
STEPS = 120
WIDTH = 8  # hex digits kept of each step's digest
#: Bits of a float32's mantissa that count. The last seven do not, so that another processor's
#: sine, one unit in the last place away, is not another world; a constant changed by 1e-4 is.
MANTISSA_BITS = 16
DECIMALS = 6


class Irreproducible(EnvVersionError):
    """An environment that behaves differently under the same seed and actions."""


@dataclass(frozen=True)
class Behaviour:
    """Seed -> hex digests of its steps, `WIDTH` digits each; the reset is step 0."""

    steps: Mapping[str, str]

    @property
    def digest(self) -> str:
        """One SHA-256, in hex, over all steps of all seeds."""
        text = "\n".join(f"{seed} {digits}" for seed, digits in sorted(self.steps.items()))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `from_dict` is the inverse."""
        return {"digest": self.digest, "steps": dict(self.steps)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Behaviour:
        """Read `to_dict`'s form; raises `ValueError` where the digest is not that of the steps."""
        found = cls(steps=dict(data["steps"]))
        if found.digest != data["digest"]:
            raise ValueError(f"behaviour digest {data['digest']} does not match its steps")
        return found


def first_difference(a: Behaviour, b: Behaviour) -> tuple[int, int] | None:
    """(seed, step) at which two records part for the first time; None where they are equal."""
    for seed in sorted({*a.steps, *b.steps}, key=int):
        left, right = a.steps.get(seed, ""), b.steps.get(seed, "")
        for at in range(0, max(len(left), len(right)), WIDTH):
            if left[at : at + WIDTH] != right[at : at + WIDTH]:
                return int(seed), at // WIDTH
    return None


def most_calls(limit: int) -> int:
    """Most resets and steps of a reproducible environment that `observe` makes.

    `limit` is the time limit in steps. All is played twice, the second time beside another.
    """
    return 3 * len(SEEDS) * (1 + min(STEPS, limit))


def observe(
    env: gym.Env[Any, Any], other: gym.Env[Any, Any], interface: Interface, name: str
) -> tuple[Behaviour, NDArray[np.float32]]:
    """Play the fixed seeds twice on `env`: digests, and observations (steps, size).

    The second time `other`, built like it, is stepped beside it, as many are in an evaluation.
    Raises `EnvVersionError` for one that behaves differently under the same seed and actions, that
    fails, gives NaN, or observes something of another size than its space says.
    """
    first, seen = _record(env, interface, name)
    beside, _ = _record(env, interface, name, _company(other, interface))
    parted = first_difference(first, beside)
    if parted:
        alone = first_difference(first, _record(env, interface, name)[0])
        seed, step = alone or parted
        raise Irreproducible(
            f"{name} is not reproducible: with reset(seed={seed}) and the same actions it differs "
            f"at step {step}"
            + ("" if alone else ", but only while another instance is stepped in the same process")
            + "; draw every random number from self.np_random, and keep no state across resets or "
            "in anything that instances share"
        )
    return first, np.stack(seen)


def _company(env: gym.Env[Any, Any], interface: Interface) -> Iterator[object]:
    """Steps of one episode after another, of other seeds and actions than those recorded."""
    outputs = stream(0, "company").standard_normal((STEPS, interface.action_size), dtype=np.float32)
    for seed in itertools.count(len(SEEDS)):
        yield from _steps(env, seed, interface.decode(outputs))


@np.errstate(over="ignore")  # a number beyond float32 becomes infinite, which `_check` refuses
def _record(
    env: gym.Env[Any, Any], interface: Interface, name: str, company: Iterator[object] | None = None
) -> tuple[Behaviour, list[NDArray[np.float32]]]:
    digits: dict[str, str] = {}
    seen: list[NDArray[np.float32]] = []
    for seed in SEEDS:
        rng = stream(0, "behaviour", seed)
        outputs = rng.standard_normal((STEPS, interface.action_size), dtype=np.float32)
        before, text = len(seen), ""
        try:
            for observation, reward, *ends in _steps(env, seed, interface.decode(outputs)):
                _check(observation, reward, interface)
                if company:
                    next(company)
                text += _step_digest(observation, reward, ends)
                seen.append(observation)
        except FAILURES as error:
            raise EnvVersionError(
                f"{name} fails with seed {seed}, step {len(seen) - before}: {_said(error)}"
            ) from error
        digits[str(seed)] = text
    return Behaviour(digits), seen


def _said(error: BaseException) -> str:
    """What an error of an environment says; of one that has Gym's old interface, what to change."""
    said = one_line(error)
    if isinstance(error, ValueError) and "values to unpack (expected 5" in said:
        got = said.rpartition("got ")[2].rstrip(")") if "got " in said else "more"
        return (
            f"its step gives {got} values, expected 5: observation, reward, terminated, truncated, "
            "info; Gym's old done is terminated, or truncated at a time limit"
        )
    if isinstance(error, ValueError) and "values to unpack (expected 2" in said:
        return "its reset must give two values: observation, info"
    return f"{type(error).__name__}: {said}"


def _check(observation: NDArray[np.float32], reward: float, interface: Interface) -> None:
    if observation.shape != (interface.observation_size,):
        raise ValueError(
            f"the observation has shape {observation.shape}, its space says "
            f"({interface.observation_size},)"
        )
    if not (np.isfinite(observation).all() and math.isfinite(reward)):
        raise ValueError(f"observation {observation}, reward {reward}: not finite in float32")


def _steps(
    env: gym.Env[Any, Any], seed: int, actions: NDArray[Any]
) -> Iterator[tuple[NDArray[np.float32], float, bool, bool]]:
    """One episode: observation, reward and ends of the reset and of every step."""
    yield env.reset(seed=seed)[0], 0.0, False, False
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        if (given := np.asarray(reward)).ndim:
            remedy = "give it as a float"
            if given.size != 1:
                remedy = "weight its components: env.wrappers: [{path: "
                remedy += "srghn.envs.wrappers:WeightedReward, kwargs: {weights: [...]}}]"
            raise ValueError(
                f"its reward is a vector of shape {given.shape}, expected one number; {remedy}"
            )
        if reward is None:
            raise ValueError("its reward is None, expected one number; does each path return one?")
        yield observation, float(reward), bool(terminated), bool(truncated)
        if terminated or truncated:
            return


def _step_digest(observation: NDArray[np.float32], reward: float, ends: Sequence[bool]) -> str:
    values = _coarse(np.append(observation, np.float32(reward)))
    return hashlib.sha256(values.tobytes() + bytes(ends)).hexdigest()[:WIDTH]


def _coarse(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Float32 bits rounded to `DECIMALS` decimals and to `MANTISSA_BITS` bits of mantissa."""
    rounded = np.round(values.astype(np.float64), DECIMALS).astype(np.float32) + np.float32(0.0)
    dropped = 23 - MANTISSA_BITS
    bits = rounded.view(np.uint32).astype(np.uint64) + (1 << (dropped - 1))
    return (bits >> dropped).astype(np.uint32)
