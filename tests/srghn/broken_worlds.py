"""Worlds that misbehave on purpose, for the tests to import by path."""

from __future__ import annotations

import sys
import time
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Counter(gym.Env[Any, Any]):
    """Ends after 5 to 14 steps, as the seed says; the return is the number of steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space: gym.Space[Any] = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(5, 15))
        self.length = self.left
        return self.look(), {}

    def look(self) -> Any:
        return np.array([self.left, self.length, 1.0], dtype=np.float32)

    def step(self, action: Any) -> Any:
        self.left -= 1
        return self.look(), 1.0, self.left == 0, False, {}


class Breaks(Counter):
    """Fails in some way in every episode of exactly 9 steps, at its start or third step."""

    def __init__(self, way: str = "raise") -> None:
        self.way = way
        self.armed = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        found = super().reset(seed=seed)
        if self.way == "reset" and self.length == 9:
            raise RuntimeError("no start")
        if self.way == "start" and self.length == 9:
            return found[0] * np.float32(np.nan), {}
        return found

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        if self.length == 9 and self.left == 6:
            if self.way == "raise":
                raise RuntimeError("gears jammed")
            if self.way == "exit":
                sys.exit(7)
            if self.way == "complex":
                reward = 1j  # type: ignore[assignment]
            if self.way == "ends":
                rest[0] = np.array([True, False])
            if self.way == "observation":
                observation = observation * np.float32(np.nan)
            if self.way == "reward":
                reward = float("nan")
        return observation, reward, *rest


class Quits(Counter):
    """Ends the process that would build it."""

    def __init__(self) -> None:
        sys.exit(7)


class Asserts(Counter):
    """Fails an assertion that says nothing."""

    def __init__(self) -> None:
        super().__init__()
        assert 2 + 2 == 5


class Forgetful(Counter):
    """Lets a hidden counter survive reset: not reproducible."""

    calls = 0

    def look(self) -> Any:
        type(self).calls += 1
        return np.array([self.left, self.calls, 1.0], dtype=np.float32)


class Mixed(Counter):
    """Dict observations and a multi-discrete action whose blocks start at 1 and 0."""

    observation_space = spaces.Dict(
        {
            "grid": spaces.Box(0, 1, (2, 2), np.float64),
            "kind": spaces.Discrete(3),
            "pair": spaces.Tuple((spaces.MultiBinary(2), spaces.Box(-1, 1, (1,), np.float32))),
        }
    )
    action_space = spaces.MultiDiscrete([3, 2], start=[1, 0])

    def look(self) -> Any:
        return {
            "grid": np.full((2, 2), self.left / 20),
            "kind": np.int64(self.left % 3),
            "pair": (np.array([1, 0], dtype=np.int8), np.zeros(1, dtype=np.float32)),
        }

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(np.asarray(action)), action
        return super().step(action)


class Matrix(Counter):
    """A 2 x 2 box action with an unbounded column."""

    action_space = spaces.Box(
        np.array([[0.0, -np.inf], [-2.0, 0.0]], dtype=np.float32),
        np.array([[10.0, np.inf], [2.0, np.inf]], dtype=np.float32),
    )

    def step(self, action: Any) -> Any:
        assert action.shape == (2, 2)
        observation, _, *rest = super().step(action)
        return observation, float(action.sum()), *rest


class Strict(Counter):
    """Takes no action that is not in its space, which is one of these by name."""

    spaces: ClassVar[dict[str, gym.Space[Any]]] = {
        "float64": spaces.Box(-0.1, 0.1, (2,), np.float64),
        "float64, half": spaces.Box(0.1, np.inf, (2,), np.float64),
        "float16": spaces.Box(-0.1, 0.3, (2,), np.float16),
        "scalar": spaces.Box(-1, 1, (), np.float32),
        "int8": spaces.MultiDiscrete(np.array([3, 2]), dtype=np.int8),
        "binary": spaces.MultiBinary([2, 2]),
    }

    def __init__(self, space: str) -> None:
        self.action_space = self.spaces[space]

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        return super().step(action)


class Crowded(Counter):
    """Draws from numpy's global generator, seeded at reset: reproducible only while alone."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        np.random.seed(seed)
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, np.random.random(), *rest


class Empty(Counter):
    """Observes nothing at all."""

    observation_space = spaces.Dict({})  # type: ignore[assignment]


class Huge(Counter):
    """Observes what no float32 holds."""

    observation_space = spaces.Box(-1e300, 1e300, (3,), np.float64)

    def look(self) -> Any:
        return np.full(3, 1e300)


class Talks(Counter):
    """Observes sequences, which have no fixed size."""

    observation_space = spaces.Sequence(spaces.Discrete(3))  # type: ignore[assignment]


class Moody(Counter):
    """A world with modes of its own and a knob to perturb."""

    modes = ("calm", "wild")
    perturbations: ClassVar = {"gift": lambda env, factor: setattr(env, "gift", env.gift * factor)}

    def __init__(self, mode: str) -> None:
        self.gift = 1.0 if mode == "calm" else -1.0

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, self.gift, *rest


class Old(Counter):
    """Has Gym's interface of before 0.26 in `way`: step or reset."""

    def __init__(self, way: str) -> None:
        self.way = way

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        both = super().reset(seed=seed, options=options)
        return (*both, None) if self.way == "reset" else both

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        old = observation, reward, terminated or truncated, info
        return old if self.way == "step" else (observation, reward, terminated, truncated, info)


class Shifty(Counter):
    """A world whose modes do not have the same spaces."""

    modes = ("two", "three")

    def __init__(self, mode: str) -> None:
        self.action_space = spaces.Discrete(2 if mode == "two" else 3)


def make_counter(**kwargs: Any) -> gym.Env[Any, Any]:
    """A factory.

    ## Version history
    * v1: counts.
    """
    return gym.wrappers.TimeLimit(Counter(**kwargs), 50)


def shout(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """A wrapper that doubles rewards."""
    return gym.wrappers.TransformReward(env, lambda reward: 2 * reward)


class Nested(Counter):
    """Observes a Dict of an image, a choice and a Tuple."""

    observation_space = spaces.Dict(  # type: ignore[assignment]
        {
            "camera": spaces.Box(0, 255, (2, 3), np.uint8),
            "gear": spaces.Discrete(3, start=1),
            "pair": spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2))),
        }
    )

    def look(self) -> Any:
        self.observation_space.seed(self.left)
        return self.observation_space.sample()


BOX = spaces.Box(-1, 1, (2,), np.float32)


class Strange(spaces.Space[Any]):
    """A space that Gymnasium does not know."""


class Words(Counter):
    """Has something in its observation that is no fixed number of numbers."""

    def __init__(self, kind: str = "text") -> None:
        kinds = {"text": spaces.Text(5), "custom": Strange(), "sequence": spaces.Sequence(BOX)}
        self.observation_space = spaces.Dict({"fine": BOX, "odd": kinds[kind]})  # type: ignore[assignment]


class Vector(Counter):
    """Rewards two things at once."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, np.array([1.0, -2.0]), *rest


class Payless(Counter):
    """Forgets the reward."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, None, *rest


class Modeless(Counter):
    """Names modes, and takes none."""

    modes = ("up", "down")


class Worn(Counter):
    """An instance that was used differs from a new one."""

    max_episode_steps = 30

    def __init__(self) -> None:
        self.used = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.used += 1
        return super().reset(seed=seed)

    def look(self) -> Any:
        return np.array([self.left, self.length, self.used], dtype=np.float32)


class Offset(Counter):
    """Observes a time stamp in float64, and leaves the space that it declares."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float64)

    def look(self) -> Any:
        return np.array([1.7e9 + self.left, self.left / 10], dtype=np.float64)


class OneHot(Counter):
    """Observes nothing but a choice."""

    observation_space = spaces.Discrete(20)  # type: ignore[assignment]

    def look(self) -> Any:
        return self.left


class Endless(Counter):
    """Never ends by itself."""

    def step(self, action: Any) -> Any:
        observation, reward, *_ = super().step(action)
        return observation, reward, False, False, {}


gym.register("Packed-v0", entry_point="broken_worlds:Counter", max_episode_steps=25)


class OneArray(Counter):
    """Gives the same array at every step and writes to it, as Gymnasium allows; or a copy of it."""

    action_space = spaces.Box(-1000.0, 1000.0, (2,), np.float32)

    def __init__(self, copies: bool = False) -> None:
        self.seen, self.copies = np.zeros(3, dtype=np.float32), copies

    def look(self) -> Any:
        self.seen[:] = super().look()
        return self.seen.copy() if self.copies else self.seen


class WritesToItsAction(Counter):
    """Doubles its action in place, and gives it as the reward."""

    action_space = spaces.Box(-10.0, 10.0, (1,), np.float32)

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        action *= 2
        return observation, float(action[0]), *rest


class Pressure(Counter):
    """Observes something far from 0 that moves by little, and something small that moves."""

    def look(self) -> Any:
        moved = self.np_random.normal(size=2)
        return np.array([101_325 + 5 * moved[0], 1e-8 * moved[1], 101_325], dtype=np.float32)


class SameNames(Counter):
    """Observes two things whose keys, joined, are one name."""

    observation_space = spaces.Dict(  # type: ignore[assignment]
        {"a.b": spaces.Box(-1.0, 1.0, (1,)), "a": spaces.Dict({"b": spaces.Box(-1.0, 1.0, (1,))})}
    )


class RewardInAnArray(Counter):
    """Gives its reward as an array of one."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, np.array([reward], dtype=np.float32), *rest


class Keyed(Counter):
    """Observes a Dict; `flaw` is how its observations differ from what it declares."""

    observation_space = spaces.Dict(  # type: ignore[assignment]
        {"left": spaces.Box(0.0, 20.0, (1,)), "gear": spaces.Discrete(3)}
    )
    FLAWS: ClassVar[dict[str, dict[str, Any]]] = {
        "surplus": {"wind": 3.0},
        "array": {"gear": np.array([1])},
        "truth": {"gear": True},
        "": {},
    }

    def __init__(self, flaw: str = "") -> None:
        self.flaw = flaw

    def look(self) -> Any:
        left = np.array([self.left], dtype=np.float32)
        return {"left": left, "gear": self.left % 3, **self.FLAWS[self.flaw]}


class Bare(gym.Env[Any, Any]):
    """Has no spaces."""


class Sleeps(Counter):
    """Takes its time in the third step, the second reset or each step, as `at` says."""

    def __init__(self, at: str, seconds: float) -> None:
        self.at, self.seconds, self.resets = at, seconds, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.resets += 1
        if self.at == "reset" and self.resets == 2:
            time.sleep(self.seconds)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        third = self.at == "step" and self.resets == 1 and self.length - self.left == 2
        if third or self.at == "each step":
            time.sleep(self.seconds)
        return super().step(action)
