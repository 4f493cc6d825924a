"""Build an environment from its description; every way this can fail has its own error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.error import DependencyNotInstalled
from gymnasium.wrappers import TimeLimit

from srghn.config import EnvParams
from srghn.envs import perturb, pooled
from srghn.envs.disturb import disturb
from srghn.envs.interface import Float32
from srghn.envs.perturb import Perturbation
from srghn.envs.registry import WorldSpec, find, load_object
from srghn.envs.spaces import FlatWorld, read_interface
from srghn.errors import FAILURES, EnvVersionError, SrghnError, one_line

Env = gym.Env[Any, Any]


def build(params: EnvParams, mode: str, perturbation: Perturbation | None, scale: Float32) -> Env:
    """A flat world, perturbed or not; `scale` (observation_size,) as in `disturb`."""
    spec = find(params.id)
    if perturbation is None:
        return flatten(native(spec, mode, params), spec.id)
    perturb.check(perturbation, spec, params.backend)
    change = spec.dynamics.get(perturbation.name)
    if change is None:
        return disturb(flatten(native(spec, mode, params), spec.id), perturbation, scale)

    def changed(env: Env) -> Env:
        change(env.unwrapped, perturbation.severity)
        return env

    return flatten(native(spec, mode, params, changed), spec.id)


def native(
    spec: WorldSpec, mode: str, params: EnvParams, change: Callable[[Env], Env] | None = None
) -> Env:
    """The environment with its own spaces: built in a mode, then wrapped in order, then perturbed.

    With `env.fresh` all of that is done again for every episode.
    """

    def make() -> Env:
        env = _native(spec, mode, params)
        return env if change is None else change(env)

    return Fresh(make) if params.fresh else make()


def _native(spec: WorldSpec, mode: str, params: EnvParams) -> Env:
    kwargs = {**params.kwargs, **_backend(spec, params.backend)}
    if limit := params.window or params.max_episode_steps:
        kwargs["max_episode_steps"] = limit
    try:
        env = spec.build(mode, **kwargs)
        for wrapper in params.wrappers:
            path, arguments = (
                (wrapper, {}) if isinstance(wrapper, str) else (wrapper.path, wrapper.kwargs)
            )
            env = load_object(path, "wrapper")(env, **arguments)
    except SrghnError:
        raise
    except DependencyNotInstalled as error:
        if spec.extra is None:
            raise EnvVersionError(f"{spec.id} lacks a package: {one_line(error)}") from error
        raise spec.missing(spec.extra) from error
    except FAILURES as error:
        raise EnvVersionError(
            f"{spec.id} could not be built with {_asked(params, spec, mode)}: "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error
    if not isinstance(env, gym.Env):
        raise EnvVersionError(f"{spec.id} must give a gymnasium.Env, got {type(env).__name__}")
    return env


def _asked(params: EnvParams, spec: WorldSpec, mode: str) -> str:
    wrapped = [w if isinstance(w, str) else f"{w.path} {w.kwargs}" for w in params.wrappers]
    parts = [f"env.kwargs {params.kwargs}"]
    parts += [f"mode={mode!r} (it has modes {', '.join(spec.modes)})"] * (len(spec.modes) > 1)
    parts += [f"wrappers {', '.join(wrapped)}"] * bool(wrapped)
    return " and ".join(parts)


class Fresh(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that is built again for every episode after the first."""

    def __init__(self, make: Callable[[], Env]) -> None:
        super().__init__(make())
        self._make, self._used = make, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self._used:
            self.env.close()
            self.env = self._make()
        self._used = True
        return self.env.reset(seed=seed, options=options)


def _backend(spec: WorldSpec, backend: str) -> dict[str, Any]:
    """Keyword arguments that make a builder use that backend."""
    if backend == "gymnasium":
        return {}
    if not spec.pooled:
        raise EnvVersionError(
            f"{spec.id} does not run on backend {backend}; set env.backend=gymnasium"
        )
    return {"make": pooled.make}


def flatten(env: Env, name: str) -> FlatWorld:
    """The environment as a policy sees it; raises `EnvVersionError` if it cannot be flattened."""
    return FlatWorld(env, read_interface(env, name))


def time_limit(env: Env, name: str) -> int:
    """The time limit of an episode in steps; raises `EnvVersionError` if there is none."""
    limits = []
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, TimeLimit):
            limits.append(layer._max_episode_steps)
        layer = layer.env
    if not limits:
        raise EnvVersionError(
            f"{name} declares no time limit (that its step truncates shows none); give one: "
            "env.max_episode_steps=1000, or env.window=1000 for a task that never ends"
        )
    return min(limits)
