"""Self-Referential Graph HyperNetworks: the algorithm, its environments, and its evaluation.

The names below are what a researcher needs. Each is imported when it is first used, so that
`import srghn` is quick and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srghn.candidates.candidate import Candidate, load_candidate
    from srghn.candidates.choose import choose_finalist
    from srghn.candidates.founder import founder_of
    from srghn.candidates.individual import freeze_finalist
    from srghn.candidates.play import play_candidate
    from srghn.config import (
        EngineSettings,
        EnvParams,
        EvolutionParams,
        GHNParams,
        NetworkParams,
        RunParams,
    )
    from srghn.envs.perturb import Perturbation
    from srghn.envs.pinning import pin
    from srghn.envs.version import EnvVersion
    from srghn.errors import SrghnError
    from srghn.evaluation.base import Evaluation, Evaluator, WeightedPolicies, make_evaluator
    from srghn.evaluation.several import make_run_evaluator
    from srghn.evaluation.task import Task
    from srghn.evolution.base import Strategy
    from srghn.evolution.loop import evolve
    from srghn.evolution.run import Run, load_run
    from srghn.evolution.search import Search
    from srghn.ghn.model import GHN
    from srghn.graph.comp_graph import CompGraph
    from srghn.graph.tracing import trace

_HOME = {
    "Candidate": "candidates.candidate",
    "CompGraph": "graph.comp_graph",
    "EngineSettings": "config",
    "EnvParams": "config",
    "EnvVersion": "envs.version",
    "Evaluation": "evaluation.base",
    "Evaluator": "evaluation.base",
    "EvolutionParams": "config",
    "GHN": "ghn.model",
    "GHNParams": "config",
    "NetworkParams": "config",
    "Perturbation": "envs.perturb",
    "Run": "evolution.run",
    "RunParams": "config",
    "Search": "evolution.search",
    "SrghnError": "errors",
    "Strategy": "evolution.base",
    "Task": "evaluation.task",
    "WeightedPolicies": "evaluation.base",
    "choose_finalist": "candidates.choose",
    "evolve": "evolution.loop",
    "founder_of": "candidates.founder",
    "freeze_finalist": "candidates.individual",
    "load_candidate": "candidates.candidate",
    "load_run": "evolution.run",
    "make_evaluator": "evaluation.base",
    "make_run_evaluator": "evaluation.several",
    "pin": "envs.pinning",
    "play_candidate": "candidates.play",
    "trace": "graph.tracing",
}

__all__ = [
    "GHN",
    "Candidate",
    "CompGraph",
    "EngineSettings",
    "EnvParams",
    "EnvVersion",
    "Evaluation",
    "Evaluator",
    "EvolutionParams",
    "GHNParams",
    "NetworkParams",
    "Perturbation",
    "Run",
    "RunParams",
    "Search",
    "SrghnError",
    "Strategy",
    "Task",
    "WeightedPolicies",
    "choose_finalist",
    "evolve",
    "founder_of",
    "freeze_finalist",
    "load_candidate",
    "load_run",
    "make_evaluator",
    "make_run_evaluator",
    "pin",
    "play_candidate",
    "trace",
]

try:
    __version__ = version("srghn")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        from srghn.extras import MissingExtra, needed

        extra = needed(error)
        if extra is None:
            raise
        raise MissingExtra(f"srghn.{name}", error, extra) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
