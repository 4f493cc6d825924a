"""From the description of a world to a running one, and every way in which that can fail."""

from __future__ import annotations

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
from srghn.errors import FAILURES, EnvVersionError, SrghnError

Env = gym.Env[Any, Any]


def build(params: EnvParams, mode: str, perturbation: Perturbation | None, scale: Float32) -> Env:
    """A flat world, perturbed or not; `scale` (observation_size,) as in `disturb`."""
    spec = find(params.id)
    if perturbation is not None:
        perturb.check(perturbation, spec, params.backend)
    flat = flatten(native(spec, mode, params), spec.id)
    if perturbation is None:
        return flat
    change = spec.dynamics.get(perturbation.name)
    if change is None:
        return disturb(flat, perturbation, scale)
    change(flat.unwrapped, perturbation.severity)
    return flat


def native(spec: WorldSpec, mode: str, params: EnvParams) -> Env:
    """The world with its own spaces: built in a mode, then wrapped in order."""
    kwargs = {**params.kwargs, **_backend(spec, params.backend)}
    try:
        env = spec.build(mode, **kwargs)
        for path in params.wrappers:
            env = load_object(path, "wrapper")(env)
    except SrghnError:
        raise
    except DependencyNotInstalled as error:
        raise spec.missing(spec.packages[0] if spec.packages else str(error)) from error
    except FAILURES as error:
        raise EnvVersionError(
            f"{spec.id} could not be built with {params.kwargs}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(env, gym.Env):
        raise EnvVersionError(f"{spec.id} must give a gymnasium.Env, got {type(env).__name__}")
    return env


def _backend(spec: WorldSpec, backend: str) -> dict[str, Any]:
    """What a builder is given so that its world comes from that backend."""
    if backend == "gymnasium":
        return {}
    if not spec.pooled:
        raise EnvVersionError(f"{spec.id} does not run on {backend}; set env.backend=gymnasium")
    return {"make": pooled.make}


def flatten(env: Env, name: str) -> FlatWorld:
    """The same world as a policy meets it; raises `EnvVersionError` where it cannot be flat."""
    return FlatWorld(env, read_interface(env, name))


def time_limit(env: Env, name: str) -> int:
    """The steps after which an episode is cut; raises `EnvVersionError` for an endless world."""
    limits = []
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, TimeLimit):
            limits.append(layer._max_episode_steps)
        layer = layer.env
    if not limits:
        raise EnvVersionError(
            f"{name} has no time limit; give one: env.kwargs.max_episode_steps=1000"
        )
    return min(limits)
