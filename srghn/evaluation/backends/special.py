"""Backends that reimplement some environments and step them without Gymnasium."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import gymnasium as gym

from srghn.config import NetworkParams
from srghn.envs.spaces import FlatWorld
from srghn.envs.switch import ActionOrder, ObservationOrder
from srghn.evaluation.base import (
    Backend,
    Evaluation,
    Policies,
    Progress,
    check_call,
    make_backend,
)
from srghn.evaluation.task import Task
from srghn.interrupt import interruptible

if TYPE_CHECKING:
    from srghn.envs.version import EnvVersion

Env = gym.Env[Any, Any]
World = TypeVar("World")

#: Wrappers that change nothing that an episode consists of.
_NEUTRAL = (FlatWorld, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)


@dataclass(frozen=True)
class Bare:
    """An environment without its wrappers, and what they did.

    `limit`: steps of an episode; `order[a]`: the action inside that action `a` is, None for itself;
    `view`: (order, signs) in which the observation is seen, None for itself.
    """

    env: Any
    limit: int
    order: tuple[int, ...] | None
    view: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @classmethod
    def of(cls, env: Env, kind: type[Any]) -> Bare | None:
        """None if a wrapper does anything else, nothing limits the episodes, or it is no `kind`.

        An instance of a subclass is none: it may step otherwise.
        """
        limits: list[int] = []
        order: tuple[int, ...] | None = None
        view: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        while isinstance(env, gym.Wrapper):
            if type(env) is ActionOrder:
                order = env.order if order is None else tuple(env.order[a] for a in order)
            elif type(env) is ObservationOrder and view is None:
                view = env.order, env.signs
            elif type(env) is gym.wrappers.TimeLimit:
                limits.append(env._max_episode_steps)
            elif type(env) not in _NEUTRAL:
                return None
            env = env.env
        plain = type(env) is kind and limits
        return cls(env, min(limits), order, view) if plain else None


class SpecialBackend(Backend, Generic[World]):
    """Plays the environments `ids` where they are unmodified; `fallback` plays the others.

    `World` is what a subclass reads from a real environment, kwargs and perturbed dynamics with it.
    """

    ids: tuple[str, ...] = ()
    #: Name of the backend that plays what this one does not.
    fallback = "gymnasium"

    def __init__(self, version: EnvVersion, network: NetworkParams) -> None:
        super().__init__(version, network)
        self._worlds: dict[Hashable, World | None] = {}

    @classmethod
    @abstractmethod
    def read(cls, env: Env) -> World | None:
        """What this backend reads from an environment; None if it does not support it."""

    @abstractmethod
    def play(
        self, policies: Policies, task: Task, world: World, progress: Progress | None
    ) -> Evaluation:
        """Play the task in the world that was read; the arguments are checked."""

    def plays(self, policies: Policies) -> bool:
        """Whether these policies are for this backend."""
        return True

    @classmethod
    def supports(cls, version: EnvVersion, network: NetworkParams) -> bool:
        known = version.id in cls.ids and version.backend == "gymnasium"
        return known and cls.read(version.make(version.modes[0])) is not None

    def evaluate(
        self, policies: Policies, task: Task, progress: Progress | None = None
    ) -> Evaluation:
        check_call(self.version, self.network, policies, task)
        if task.world not in self._worlds:
            self._worlds[task.world] = self.read(task.make())
        world = self._worlds[task.world]
        if world is None or not self.plays(policies):
            return self.general.evaluate(policies, task, progress)
        with interruptible():
            return self.play(policies, task, world, progress)

    @cached_property
    def general(self) -> Backend:
        """Plays what this backend does not."""
        return make_backend(self.fallback, self.version, self.network)

    def close(self) -> None:
        if "general" in self.__dict__:
            self.general.close()
