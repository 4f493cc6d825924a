"""The wrappers behind the perturbations that fit every world, and anyone's own.

Each draws from a stream named by the episode's seed, so a perturbed episode is as reproducible as
a plain one and shares its world's own randomness with it (common random numbers).
"""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np

from srghn.envs import perturb
from srghn.envs.interface import Float32, at_most
from srghn.envs.perturb import Perturbation
from srghn.envs.registry import load_object
from srghn.errors import FAILURES, EnvVersionError
from srghn.seeding import stream

Env = gym.Env[Any, Any]


class _Seeded(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper with a stream of its own for each episode, named by `kind` and the seed."""

    kind = ""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._rng = stream(0, self.kind)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None:
            self._rng = stream(seed, "perturbation", self.kind)
        return self.env.reset(seed=seed, options=options)


class _Blurred(_Seeded):
    """A wrapper whose every observation is drawn anew around the one inside."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = super().reset(seed=seed, options=options)
        return self._shown(observation), info

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        return self._shown(observation), *rest

    def _shown(self, observation: Float32) -> Float32:
        """What is seen of an observation (observation_size,)."""
        raise NotImplementedError


class ObservationNoise(_Blurred):
    """Adds Gaussian noise of standard deviation `scale` (observation_size,) to observations."""

    kind = perturb.NOISE

    def __init__(self, env: Env, scale: Float32) -> None:
        super().__init__(env)
        self.scale = scale

    def _shown(self, observation: Float32) -> Float32:
        noise = self._rng.standard_normal(observation.shape, dtype=np.float32)
        return observation + noise * self.scale


class SensorDropout(_Blurred):
    """At each step each element reads 0 with a probability."""

    kind = perturb.DROPOUT

    def __init__(self, env: Env, probability: float) -> None:
        super().__init__(env)
        self.probability = probability

    def _shown(self, observation: Float32) -> Float32:
        lost = self._rng.random(observation.shape) < self.probability
        return np.where(lost, np.float32(0), observation)


class ActionDrop(_Seeded):
    """Loses actions at random; the last executed one is repeated, the first is never lost."""

    kind = perturb.DROP

    def __init__(self, env: Env, probability: float) -> None:
        super().__init__(env)
        self.probability = probability
        self._last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._last = None
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        lost = self._rng.random() < self.probability
        if self._last is None or not lost:
            self._last = action
        return self.env.step(self._last)


class ActionDelay(gym.Wrapper[Any, Any, Any, Any]):
    """Step t executes the action chosen at step max(0, t - delay)."""

    def __init__(self, env: Env, delay: int) -> None:
        super().__init__(env)
        self._waiting: deque[Any] = deque(maxlen=delay + 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._waiting.clear()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self._waiting.append(action)
        return self.env.step(self._waiting[0])


class ObservationBias(_Seeded):
    """Every element is off by `scale` (observation_size,), up or down, for a whole episode."""

    kind = perturb.BIAS

    def __init__(self, env: Env, scale: Float32) -> None:
        super().__init__(env)
        self.scale = scale
        self._bias = np.zeros_like(scale)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = super().reset(seed=seed, options=options)
        signs = 2 * self._rng.integers(0, 2, len(self.scale)) - 1
        self._bias = signs.astype(np.float32) * self.scale
        return observation + self._bias, info

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        return observation + self._bias, *rest


class ObservationScaling(gym.ObservationWrapper[Any, Any, Any]):
    """Multiplies observations by `factors` (observation_size,)."""

    def __init__(self, env: Env, factors: Float32) -> None:
        super().__init__(env)
        self.factors = factors
        self.observation_space = env.observation_space

    def observation(self, observation: Float32) -> Float32:
        return observation * self.factors


class ObservationDelay(gym.Wrapper[Any, Any, Any, Any]):
    """Step t shows what was to be seen at step max(0, t - delay)."""

    def __init__(self, env: Env, delay: int) -> None:
        super().__init__(env)
        self._coming: deque[Float32] = deque(maxlen=delay + 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = self.env.reset(seed=seed, options=options)
        self._coming.clear()
        self._coming.append(observation)
        return observation, info

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        self._coming.append(observation)
        return self._coming[0], *rest


class ActionNoise(_Seeded):
    """Choices: each is a random one with probability `size`; box: noise of that share of half.

    What leaves the bounds of a box is clipped; an element without both bounds has a half of 1.
    """

    kind = perturb.RANDOM

    def __init__(self, env: Env, size: float) -> None:
        super().__init__(env)
        self.size = size
        space: Any = env.action_space
        self._box = isinstance(space, gym.spaces.Box)
        if self._box:
            low, high = (np.ravel(v).astype(np.float64) for v in (space.low, space.high))
            self._half = np.ones_like(low)
            bounded = np.isfinite(low) & np.isfinite(high)
            np.subtract(high / 2, low / 2, out=self._half, where=bounded)
            self._low, self._high = -at_most(-low), at_most(high)  # actions are float32
        else:
            self._counts, self._starts = _choices(space)

    def step(self, action: Any) -> Any:
        return self.env.step(self._noisy(action))

    def _noisy(self, action: Any) -> Any:
        given = np.asarray(action)
        if self._box:
            moved = given.ravel() + self.size * self._half * self._rng.standard_normal(given.size)
            bounded = np.clip(moved, self._low, self._high)
            return bounded.reshape(given.shape).astype(given.dtype)
        drawn = self._starts + self._rng.integers(0, self._counts)
        lost = self._rng.random(len(drawn)) < self.size
        executed = np.where(lost, drawn, given.ravel()).astype(np.int64)
        return int(executed[0]) if given.ndim == 0 else executed.reshape(given.shape)


def _choices(space: Any) -> tuple[Any, Any]:
    """How many values each element of a discrete action has, and the first of them."""
    if isinstance(space, gym.spaces.MultiDiscrete):
        return space.nvec.ravel(), space.start.ravel()
    if isinstance(space, gym.spaces.MultiBinary):
        return np.full(int(np.prod(space.shape)), 2), np.zeros(1, int)
    return np.array([int(space.n)]), np.array([int(space.start)])


class ActionRepeat(gym.Wrapper[Any, Any, Any, Any]):
    """Only every n-th choice counts: it is executed `times` times, whatever is chosen between."""

    def __init__(self, env: Env, times: int) -> None:
        super().__init__(env)
        self.times, self._step, self._chosen = times, 0, None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._step = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        if self._step % self.times == 0:
            self._chosen = action
        self._step += 1
        return self.env.step(self._chosen)


def disturb(env: Env, perturbation: Perturbation, scale: Float32) -> Env:
    """Wrap a flat world; `scale` (observation_size,) is the spread that noise is a share of."""
    if perturbation.own:
        return own(env, perturbation)
    severity = perturbation.severity
    shares = np.float32(severity) * scale
    factors = np.where(scale > 0, np.float32(severity), np.float32(1))
    wrapped: dict[str, Any] = {
        perturb.NOISE: lambda: ObservationNoise(env, shares),
        perturb.BIAS: lambda: ObservationBias(env, shares),
        perturb.SCALING: lambda: ObservationScaling(env, factors),
        perturb.DROPOUT: lambda: SensorDropout(env, severity),
        perturb.LATE: lambda: ObservationDelay(env, int(severity)),
        perturb.DELAY: lambda: ActionDelay(env, int(severity)),
        perturb.DROP: lambda: ActionDrop(env, severity),
        perturb.RANDOM: lambda: ActionNoise(env, severity),
        perturb.REPEAT: lambda: ActionRepeat(env, int(severity)),
    }
    made: Env = wrapped[perturbation.name]()
    return made


def own(env: Env, perturbation: Perturbation) -> Env:
    """Anyone's own perturbation: what `module:Class` names, called with the world and the severity.

    The world is flat: observations are float32 (observation_size,), actions its own, and
    `env.unwrapped` is the native one. It must give an environment with the same spaces, and take
    whatever it draws from the seed given to `reset`. Raises `EnvVersionError` for anything else.
    """
    try:
        made = load_object(perturbation.name, "perturbation")(env, perturbation.severity)
    except EnvVersionError:
        raise
    except FAILURES as error:
        told = " ".join(str(error).split())[:300]
        raise EnvVersionError(
            f"perturbation {perturbation} could not be made: {type(error).__name__}: {told}"
        ) from error
    if not isinstance(made, gym.Env):
        got = type(made).__name__
        raise EnvVersionError(f"perturbation {perturbation} must give a gymnasium.Env, got {got}")
    for name in ("observation_space", "action_space"):
        before, after = getattr(env, name), getattr(made, name)
        if before.shape != after.shape or type(before) is not type(after):
            raise EnvVersionError(
                f"perturbation {perturbation} changes the {name.replace('_', ' ')} from {before} "
                f"to {after}; a policy meets the same spaces in every cell"
            )
    return made
