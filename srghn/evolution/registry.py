"""The strategies by name: the one of this project, and what it must be compared with."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from srghn.config import RunParams
from srghn.envs.interface import Interface
from srghn.errors import ConfigError
from srghn.evolution.base import Strategy
from srghn.evolution.cmaes import cmaes
from srghn.evolution.constant_rate import constant_rate
from srghn.evolution.ga import ga
from srghn.evolution.immigrants import immigrants
from srghn.evolution.openes import openes
from srghn.evolution.restart import restart
from srghn.evolution.self_adaptive_ga import self_adaptive_ga
from srghn.evolution.self_referential import self_referential

STRATEGIES: dict[str, Callable[[RunParams, Interface], Strategy[Any]]] = {
    "self-referential": self_referential,
    "constant-rate": constant_rate,
    "ga": ga,
    "self-adaptive-ga": self_adaptive_ga,
    "immigrants": immigrants,
    "restart": restart,
    "openes": openes,
    "cmaes": cmaes,
}


def make_strategy(params: RunParams, interface: Interface) -> Strategy[Any]:
    """What `evolution.strategy` names; raises `ConfigError` with the names there are."""
    name = params.evolution.strategy
    if name not in STRATEGIES:
        near = difflib.get_close_matches(name, STRATEGIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(STRATEGIES)}"
        raise ConfigError(f"evolution.strategy: there is no strategy {name!r}; {hint}")
    return STRATEGIES[name](params, interface)
