"""The contract of evaluation: policies, a pinned world and episode seeds in; returns out.

All individuals of one call play the same seeds. An episode's result depends on its policy, world,
mode, perturbation and seed, and on nothing else: not on who else is in the batch, the backend's
batch size, the number of workers or the order in which they finish.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from srghn.config import EngineSettings, NetworkParams
from srghn.envs.interface import Interface
from srghn.envs.version import EnvVersion
from srghn.errors import ConfigError, EvaluationError, expect
from srghn.evaluation.task import Task
from srghn.notebook import card

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

#: Called with (episodes finished, episodes planned), from the caller's thread.
Progress = Callable[[int, int], None]
#: Observations (k, observation_size) float32 -> k native actions.
PolicyFunction = Callable[[Float32], NDArray[Any]]


@dataclass(frozen=True)
class Crash:
    """One episode that could not be played to its end; its return is minus infinity."""

    individual: int
    seed: int
    step: int
    message: str


@dataclass(frozen=True)
class Evaluation:
    """`returns` float64 (individuals, episodes), `lengths` int64 of the same shape in steps.

    `steps` counts the environment steps that were really taken for these returns, those of crashed
    episodes included; `retries` counts shards that were evaluated again, except those of a lost
    Dask worker, which Dask itself runs elsewhere.
    """

    returns: Float64
    lengths: Int64
    steps: int
    retries: int = 0
    crashes: tuple[Crash, ...] = ()

    def __repr__(self) -> str:
        individuals, episodes = self.returns.shape
        return (
            f"Evaluation({individuals} individuals, {episodes} episodes each, {self.steps} steps, "
            f"{len(self.crashes)} crashes)"
        )

    def _repr_html_(self) -> str:
        individuals, episodes = self.returns.shape
        rows = {
            "individuals": individuals,
            "episodes each": episodes,
            "best mean return": float(self.fitness.max()) if individuals else None,
            "environment steps": f"{self.steps:,}",
            "crashed episodes": len(self.crashes),
        }
        return card("Evaluation", rows)

    @property
    def fitness(self) -> Float64:
        """Mean return (individuals,), to be maximised; minus infinity where an episode crashed."""
        return np.asarray(self.returns.mean(axis=1), dtype=np.float64)


class Recipe(Protocol):
    """How to make weights where they are needed, so that seeds travel and not genomes.

    Must pickle. `rebuild` gives the same bytes whatever the choice and order of indices.
    """

    def __len__(self) -> int: ...

    def rebuild(self, indices: Int64) -> Float32:
        """Individuals' indices (k,) -> flat policy weights (k, parameters)."""


@dataclass(frozen=True)
class WeightedPolicies:
    """A population of one architecture: `weights` float32 (n, parameters), or a recipe for them.

    Weights are flat, in `module.named_parameters()` order, each tensor in row-major order.
    """

    network: NetworkParams
    interface: Interface
    weights: Float32 | None = None
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        expect(self.network, NetworkParams, "network", "give params.network")
        if (self.weights is None) == (self.recipe is None):
            raise EvaluationError("give either weights or a recipe for them, and not both")
        if self.weights is None:
            return
        if expect(self.weights, np.ndarray, "weights", "give np.array(weights)").ndim != 2:
            raise EvaluationError(
                f"weights must have shape (individuals, parameters), got {self.weights.shape}"
            )

    def __len__(self) -> int:
        if self.recipe is not None:
            return len(self.recipe)
        assert self.weights is not None
        return len(self.weights)

    def __repr__(self) -> str:
        kind = "weights" if self.recipe is None else "a recipe"
        return f"WeightedPolicies({len(self)} of {_short(self.network)}, {kind})"

    def take(self, indices: Int64) -> Float32:
        """Weights (k, parameters) of those individuals."""
        if self.recipe is not None:
            return self.recipe.rebuild(indices)
        assert self.weights is not None
        return np.ascontiguousarray(self.weights[indices], dtype=np.float32)

    def dense(self) -> Float32:
        """Weights (n, parameters) of all."""
        return self.take(np.arange(len(self), dtype=np.int64))

    def part(self, rows: Int64) -> WeightedPolicies:
        """The individuals at `rows` (k,), in that order."""
        if self.recipe is not None:
            return replace(self, recipe=_Part(self.recipe, rows))
        return replace(self, weights=self.take(rows))


@dataclass(frozen=True)
class _Part:
    """A `Recipe` for some rows of another."""

    whole: Recipe
    rows: Int64

    def __len__(self) -> int:
        return len(self.rows)

    def rebuild(self, indices: Int64) -> Float32:
        return self.whole.rebuild(self.rows[indices])


@dataclass(frozen=True)
class SeveralPolicies:
    """The same individuals as policies of several networks: a part for each network."""

    parts: tuple[WeightedPolicies, ...]

    def __post_init__(self) -> None:
        if len({len(part) for part in self.parts}) != 1:
            raise EvaluationError(
                "every network needs a policy of every individual, got parts of "
                f"{[len(part) for part in self.parts]}"
            )

    def __len__(self) -> int:
        return len(self.parts[0])

    def part(self, rows: Int64) -> SeveralPolicies:
        """The individuals at `rows` (k,), in that order."""
        return SeveralPolicies(tuple(part.part(rows) for part in self.parts))


Policies = WeightedPolicies | SeveralPolicies | Sequence[PolicyFunction]


class Evaluator(ABC):
    """Plays populations. A context manager: `close` ends whatever it started.

    `remote`: episodes are played in other processes, so a recipe is worth more than weights.
    """

    remote: bool = False

    @abstractmethod
    def evaluate(
        self, policies: Policies, task: Task, progress: Progress | None = None
    ) -> Evaluation:
        """Every policy plays the task's seeds once, in its version, mode and perturbation.

        A crash, or a NaN observation, reward or output, makes that episode's return minus infinity
        and adds a `Crash`; the call goes on. Raises `EvaluationError` where nothing can be played,
        or where the evaluator was made for another version or network.
        """

    @abstractmethod
    def describe(self) -> str:
        """Backend, engine and workers, for people and for the run's record."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"

    def close(self) -> None:
        """End workers and environments. Safe to call twice."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Backend(Evaluator):
    """An evaluator within this process. Built as `Class(version, policy)`; listed in `BACKENDS`."""

    name: str

    def __init__(self, version: EnvVersion, network: NetworkParams) -> None:
        self.version = version
        self.network = network

    @classmethod
    @abstractmethod
    def supports(cls, version: EnvVersion, network: NetworkParams) -> bool:
        """Whether this backend plays that world with that architecture (asked by 'auto')."""

    def describe(self) -> str:
        return f"{self.name}, in process"


class Remote(Evaluator):
    """An engine: it plays in other processes, but callables, which need not pickle, in this one."""

    remote = True
    backend: str
    version: EnvVersion
    network: NetworkParams

    def evaluate(
        self, policies: Policies, task: Task, progress: Progress | None = None
    ) -> Evaluation:
        check_call(self.version, self.network, policies, task)
        if isinstance(policies, WeightedPolicies):
            return self._elsewhere(policies, task, progress)
        return self._local.evaluate(policies, task, progress)

    @abstractmethod
    def _elsewhere(
        self, policies: WeightedPolicies, task: Task, progress: Progress | None
    ) -> Evaluation:
        """`evaluate` for what other processes can play."""

    @cached_property
    def _local(self) -> Backend:
        return make_backend(self.backend, self.version, self.network)


#: Name -> import path of a `Backend`, fastest first: 'auto' takes the first that supports the work.
BACKENDS: dict[str, str] = {
    "cartpole-mlp": "srghn.evaluation.backends.cartpole.compiled:CompiledCartPole",
    "cartpole": "srghn.evaluation.backends.cartpole.vectorised:VectorisedCartPole",
    "ant": "srghn.evaluation.backends.ant:AntBackend",
    "lunar-lander": "srghn.evaluation.backends.lunar_lander.backend:LunarLanderBackend",
    "pendulum": "srghn.evaluation.backends.pendulum:PendulumBackend",
    "envpool": "srghn.evaluation.backends.envpool:EnvPoolBackend",
    "gymnasium": "srghn.evaluation.backends.gymnasium:GymnasiumBackend",
}
#: Names that backends had before 0.3, which scripts may state -> today's.
FORMER_NAMES = {
    "compiled": "cartpole-mlp",
    "vectorised": "cartpole",
    "mujoco": "ant",
    "box2d": "lunar-lander",
}
#: Name -> import path of an `Evaluator` built as `Class(settings, backend name, version, policy)`.
ENGINES: dict[str, str] = {
    "processes": "srghn.evaluation.engines.processes:ProcessEvaluator",
    "dask": "srghn.evaluation.engines.dask:DaskEvaluator",
}


def make_evaluator(
    settings: EngineSettings, version: EnvVersion, network: NetworkParams, backend: str = "auto"
) -> Evaluator:
    """The evaluator of `settings.engine`, with the named or the fastest backend."""
    hint = "call make_evaluator(settings, version, params.network)"
    expect(settings, EngineSettings, "settings", hint)
    expect(version, EnvVersion, "version", hint)
    expect(network, NetworkParams, "network", hint)
    name = choose_backend(version, network) if backend == "auto" else current_name(backend)
    if settings.engine == "inprocess":
        evaluator: Evaluator = make_backend(name, version, network)
    else:
        evaluator = _load(ENGINES, settings.engine, "engine")(settings, name, version, network)
    return evaluator


def make_backend(name: str, version: EnvVersion, network: NetworkParams) -> Backend:
    """One backend by its current or former name; raises `ConfigError` listing the known ones."""
    backend: Backend = _load(BACKENDS, current_name(name), "backend")(version, network)
    return backend


def current_name(name: str) -> str:
    """The current name of a backend, given a current or former one."""
    return FORMER_NAMES.get(name, name)


def choose_backend(version: EnvVersion, network: NetworkParams) -> str:
    """The first name in `BACKENDS` whose class supports this world and architecture."""
    for name in BACKENDS:
        if _load(BACKENDS, name, "backend").supports(version, network):
            return name
    raise EvaluationError(f"no backend runs {version.id} with {network.module}")


def check_call(version: EnvVersion, network: NetworkParams, policies: Policies, task: Task) -> None:
    """Raise `EvaluationError` for a task or policies that an evaluator was not made for.

    `version` and `network` are those that it was made for; callables have no network to compare.
    """
    expect(task, Task, "task", "call evaluate(policies, srghn.Task(version, mode, seeds))")
    if task.version is not version and task.version.fingerprint != version.fingerprint:
        raise EvaluationError(
            f"this evaluator was made for {version.id} {version.fingerprint[:12]}, got a task for "
            f"{task.version.id} {task.version.fingerprint[:12]}; make an evaluator for that version"
        )
    if isinstance(policies, SeveralPolicies):
        raise EvaluationError(
            f"this evaluator was made for {_short(network)}, got policies of "
            f"{len(policies.parts)} networks; make it with srghn.make_run_evaluator and the run's "
            "parameters"
        )
    if not isinstance(policies, WeightedPolicies):
        hint = "give srghn.WeightedPolicies, or a list of functions"
        expect(policies, Sequence, "policies", hint)  # type: ignore[type-abstract]
        return
    if policies.interface != version.interface:
        raise other_interface(policies.interface, version)
    if policies.network != network:
        raise EvaluationError(
            f"this evaluator was made for networks {_short(network)}, got weights of "
            f"{_short(policies.network)}; make an evaluator for that network"
        )


def other_interface(own: Interface, version: EnvVersion) -> EvaluationError:
    """Says that policies with that interface cannot play this version."""
    return EvaluationError(
        f"the policies were made for interface {own}, {version.id} has {version.interface}"
    )


def _short(network: NetworkParams) -> str:
    return f"{network.module} {network.kwargs}"


def _load(table: dict[str, str], name: str, kind: str) -> Any:
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}; known: {', '.join(table) or 'none'}")
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
