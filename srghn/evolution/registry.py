"""The strategies by name: this project's own, and those it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from srghn.config import RunParams
from srghn.envs.interface import Interface
from srghn.errors import FAILURES, ConfigError, SrghnError, one_line
from srghn.evolution.alert import MEMORY, NEWCOMERS, Alert
from srghn.evolution.base import State, Strategy
from srghn.evolution.cmaes import cmaes
from srghn.evolution.constant_rate import constant_rate
from srghn.evolution.ga import ga
from srghn.evolution.genetic import Genetic
from srghn.evolution.gesmr import gesmr
from srghn.evolution.immigrants import immigrants
from srghn.evolution.openes import openes
from srghn.evolution.restart import restart
from srghn.evolution.self_adaptive_ga import self_adaptive_ga
from srghn.evolution.self_referential import self_referential
from srghn.evolution.snes import snes
from srghn.ghn import GHN
from srghn.params import nearest

Factory = Callable[[RunParams, Interface], Strategy[Any]]

STRATEGIES: dict[str, Factory] = {
    "self-referential": self_referential,
    "constant-rate": constant_rate,
    "ga": ga,
    "self-adaptive-ga": self_adaptive_ga,
    "gesmr": gesmr,
    "immigrants": immigrants,
    "restart": restart,
    "openes": openes,
    "snes": snes,
    "cmaes": cmaes,
}
#: What a `Strategy` has, for those that are named by import path.
PARTS = ("name", "digest", "state_type", "node_names", "encoding", "init", "ask", "tell")


def make_strategy(params: RunParams, interface: Interface) -> Strategy[Any]:
    """What `evolution.strategy` names: one of `STRATEGIES`, or an import path `module:factory`.

    A factory is called with (params, interface) and gives a `Strategy`. Raises `ConfigError` for
    anything else.
    """
    strategy = _made(params, interface)
    if missing := [part for part in PARTS if not hasattr(strategy, part)]:
        raise ConfigError(
            f"evolution.strategy: {params.evolution.strategy} gave a "
            f"{type(strategy).__name__} without {', '.join(missing)}; "
            "see srghn.evolution.Strategy for what a strategy has"
        )
    if not (isinstance(strategy.state_type, type) and issubclass(strategy.state_type, State)):
        raise ConfigError(
            f"evolution.strategy: state_type of {params.evolution.strategy} must be a subclass of "
            f"srghn.evolution.State, got {strategy.state_type!r}"
        )
    _check_architectures(strategy, params)
    return _alert(strategy, params)


def _made(params: RunParams, interface: Interface) -> Strategy[Any]:
    name = params.evolution.strategy
    factory = _factory(name)
    if name in STRATEGIES:
        return factory(params, interface)
    if not callable(factory):
        raise ConfigError(
            f"evolution.strategy: {name} is a {type(factory).__name__}; expected a function that "
            "takes (params, interface) and gives a strategy"
        )
    try:
        return factory(params, interface)
    except SrghnError:
        raise
    except Exception as error:
        raise ConfigError(
            f"evolution.strategy: {name}, called with (params, interface), gave no strategy but "
            f"{type(error).__name__}: {error}; see srghn.evolution.Strategy"
        ) from error


def _check_architectures(strategy: Strategy[Any], params: RunParams) -> None:
    """Raise unless the strategy's genomes generate every network of the run."""
    wanted = len(params.networks)
    targets = len(strategy.encoding.targets) if isinstance(strategy.encoding, GHN) else 1
    if wanted > 1 and targets != wanted:
        raise ConfigError(
            f"evolution.architectures: genomes of {strategy.name} are the weights of one network; "
            "use self-referential or constant-rate, or set it to []"
        )


def _factory(name: str) -> Factory:
    if name in STRATEGIES:
        return STRATEGIES[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ConfigError(
            f"evolution.strategy: there is no strategy {name!r}; {nearest(name, STRATEGIES)}; your "
            "own: an import path module:factory"
        )
    try:
        found: Factory = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"evolution.strategy: cannot import {name!r}: {error}; install it, or add its folder "
            "to PYTHONPATH"
        ) from error
    except FAILURES as error:  # its own code failed, or ended the program
        raise ConfigError(
            f"evolution.strategy: {module!r} failed while it was imported, with "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error
    return found


def _alert(strategy: Strategy[Any], params: RunParams) -> Strategy[Any]:
    """The strategy, with its response to a drop of fitness if it has births and asks for one.

    Raises `ConfigError` for a response that the strategy cannot give.
    """
    evolution = params.evolution
    stress = isinstance(strategy.encoding, GHN) and strategy.encoding.params.stress
    if params.ghn.stress and not (stress and isinstance(strategy, Genetic | Alert)):
        raise ConfigError(
            f"ghn.stress: births of {strategy.name} take no least rate from their seeds; set it to "
            "false, or use self-referential"
        )
    if not isinstance(strategy, Genetic):
        asked = [name for name in ("memory", "newcomers") if getattr(evolution, name)]
        if asked:
            raise ConfigError(
                f"evolution.{asked[0]}: {strategy.name} has none; set it to 0, or use "
                "self-referential, constant-rate, ga, self-adaptive-ga or immigrants"
            )
        return strategy
    memory = MEMORY if evolution.memory is None else evolution.memory
    share = NEWCOMERS if evolution.newcomers is None else evolution.newcomers
    newcomers = round(share * evolution.parents * evolution.children)
    if not (memory or stress or newcomers):
        return strategy
    return Alert(strategy, memory, stress, newcomers)
