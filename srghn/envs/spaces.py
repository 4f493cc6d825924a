"""Gymnasium's spaces as an `Interface`, and the wrapper that makes observations flat.

Observations: Box -> its elements in row-major order; Discrete, MultiDiscrete -> one-hot;
MultiBinary -> its bits; Dict and Tuple of these -> theirs, one after another, as Gymnasium's own
`flatten`; all as one float32 vector. Every other space is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten, flatten_space
from numpy.typing import NDArray

from srghn.envs.interface import ActionKind, Bounds, Float32, Interface
from srghn.envs.layout import Kind, Layout, Leaf, Path
from srghn.errors import EnvVersionError

Space = gym.Space[Any]


def read_interface(env: gym.Env[Any, Any], name: str) -> Interface:
    """The interface of a policy for `env`.

    Raises `EnvVersionError` if it has no spaces of Gymnasium's, or some that cannot be flattened.
    """
    observed, taken = (_space(env, f"{what}_space", name) for what in ("observation", "action"))
    leaves = tuple(_leaves(observed, (), name, observed))
    observations = flatten_space(observed) if leaves else None
    if not isinstance(observations, spaces.Box) or not observations.shape[0]:
        raise EnvVersionError(
            f"{name} observes {_short(observed)}, which has no elements; add a "
            "wrapper that gives observations"
        )
    layout = Layout(leaves)
    names = [leaf.name for leaf in leaves]
    if twice := sorted({leaf for leaf in names if names.count(leaf) > 1}):
        raise EnvVersionError(
            f"{name} has two observations named {twice[0]!r}: keys within keys are joined by dots; "
            "rename a key of its Dict space"
        )
    assert layout.size == observations.shape[0]
    return Interface(
        observation_size=layout.size,
        observation_low=_bounds(observations.low),
        observation_high=_bounds(observations.high),
        layout=None if _is_flat(observed) else layout,
        **_actions(taken, name),
    )


def _space(env: gym.Env[Any, Any], which: str, name: str) -> Space:
    missing = f"{name} has no {which}"
    remedy = f"give it one of gymnasium.spaces: self.{which} = ..., in its constructor"
    try:
        space: object = getattr(env, which)
    except AttributeError as error:
        raise EnvVersionError(f"{missing}; {remedy}") from error
    if not isinstance(space, gym.Space):
        kind = type(space)
        raise EnvVersionError(f"{missing} but a {kind.__module__}.{kind.__name__}; {remedy}")
    return space


def _is_flat(space: Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1


def _leaves(space: Space, path: Path, name: str, whole: Space) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, (*path, str(key)), name, whole)
    elif isinstance(space, spaces.Tuple):
        for place, part in enumerate(space.spaces):
            yield from _leaves(part, (*path, place), name, whole)
    elif isinstance(space, spaces.Discrete):
        yield Leaf(path, "discrete", (), str(space.dtype), (int(space.n),), (int(space.start),))
    elif isinstance(space, spaces.MultiDiscrete):
        counts, starts = (tuple(int(n) for n in v.ravel()) for v in (space.nvec, space.start))
        yield Leaf(path, "multidiscrete", space.shape, str(space.dtype), counts, starts)
    elif isinstance(space, spaces.Box | spaces.MultiBinary):
        kind: Kind = "box" if isinstance(space, spaces.Box) else "multibinary"
        yield Leaf(path, kind, tuple(map(int, space.shape)), str(space.dtype))
    else:
        where = f" at {'.'.join(map(str, path))}" if path else ""
        raise EnvVersionError(
            f"{name} observes {type(space).__name__}{where}, which has no fixed-size flat form; "
            "expected Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of these: leave "
            "it out or change it with a wrapper, such as gymnasium.wrappers:FilterObservation"
        )


def _short(space: Space) -> str:
    """A space in one line, however its class prints it."""
    text = " ".join(str(space).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _actions(space: Space, name: str) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete):
        return _choices("discrete", (), [int(space.n)], [int(space.start)])
    if isinstance(space, spaces.MultiDiscrete):
        return _choices("multidiscrete", space.shape, space.nvec.ravel(), space.start.ravel())
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape, dtype=int))
        return _choices("multidiscrete", space.shape, [2] * size, [0] * size)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return {
            "action_kind": "box",
            "action_shape": space.shape,
            "action_low": _bounds(space.low),
            "action_high": _bounds(space.high),
        }
    raise EnvVersionError(
        f"{name} takes actions {_short(space)}; expected Discrete, MultiDiscrete, MultiBinary or a "
        "Box of floats: add a wrapper that makes it so"
    )


def _choices(kind: ActionKind, shape: tuple[int, ...], counts: Any, starts: Any) -> dict[str, Any]:
    return {
        "action_kind": kind,
        "action_shape": shape,
        "choices": tuple(int(n) for n in counts),
        "starts": tuple(int(n) for n in starts),
    }


def _bounds(values: NDArray[Any]) -> Bounds:
    """One bound per element, one for all where they agree; None where unbounded."""
    listed = [float(v) if np.isfinite(v) else None for v in values.ravel()]
    return (listed[0],) if len(set(listed)) == 1 else tuple(listed)


class FlatWorld(gym.Wrapper[Any, Any, Any, Any]):
    """Flat float32 observations; actions in the form that `Interface.decode` gives.

    Action rows of a space that is not one-dimensional come flat and are reshaped here, and have its
    dtype. The action space stays the world's own.
    """

    def __init__(self, env: gym.Env[Any, Any], interface: Interface) -> None:
        super().__init__(env)
        self._flatten = _flattener(env.observation_space)
        rows = interface.action_kind != "discrete"
        shape, dtype = interface.action_shape, env.action_space.dtype
        self._shape = shape if rows and len(shape) != 1 else None
        self._dtype = dtype if rows and dtype not in (np.float32, np.int64) else None
        size = interface.observation_size
        self.observation_space = spaces.Box(
            _full(interface.observation_low, size, -np.inf),
            _full(interface.observation_high, size, np.inf),
            dtype=np.float32,
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._flatten(observation), info

    def step(self, action: Any) -> tuple[Float32, Any, bool, bool, dict[str, Any]]:
        if isinstance(action, np.ndarray):
            action = action.copy()  # an environment may write to it, and a wrapper give it again
        if self._shape is not None:
            action = np.reshape(action, self._shape)
        if self._dtype is not None:
            action = np.asarray(action, dtype=self._dtype)
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._flatten(observation), reward, terminated, truncated, info


def _flattener(space: Space) -> Callable[[Any], Float32]:
    """Copies: an environment may give one array, which it writes to, at every step."""
    if isinstance(space, spaces.Box):
        if len(space.shape) == 1:
            return lambda observation: np.array(observation, dtype=np.float32)
        return lambda observation: np.array(observation, dtype=np.float32).ravel()
    return lambda observation: np.asarray(flatten(space, observation), dtype=np.float32)


def _full(bounds: Bounds, size: int, unbounded: float) -> Float32:
    values = [unbounded if b is None else b for b in bounds]
    with np.errstate(over="ignore"):  # a bound beyond float32 is none
        return np.broadcast_to(np.array(values, dtype=np.float32), (size,)).copy()
