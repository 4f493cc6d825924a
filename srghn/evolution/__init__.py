"""Evolution: strategies that ask and tell, the loop that keeps, lineages that can be replayed.

Names are imported when they are first used, because the strategies need torch and reading a
lineage does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srghn.evolution.again import rebuild
    from srghn.evolution.ancestry import Ancestor, Ancestry, Told, genome_digest
    from srghn.evolution.base import Encoding, Population, State, Strategy
    from srghn.evolution.genetic import Genetic, GeneticState
    from srghn.evolution.loop import evolve
    from srghn.evolution.metrics import GenerationRecord
    from srghn.evolution.registry import STRATEGIES, make_strategy
    from srghn.evolution.run import Founder, Run, load_run
    from srghn.evolution.search import Search

__all__ = [
    "STRATEGIES",
    "Ancestor",
    "Ancestry",
    "Encoding",
    "Founder",
    "GenerationRecord",
    "Genetic",
    "GeneticState",
    "Population",
    "Run",
    "Search",
    "State",
    "Strategy",
    "Told",
    "evolve",
    "genome_digest",
    "load_run",
    "make_strategy",
    "rebuild",
]

_HOME = {
    "Ancestor": "ancestry",
    "Ancestry": "ancestry",
    "Told": "ancestry",
    "genome_digest": "ancestry",
    "rebuild": "again",
    "Encoding": "base",
    "Population": "base",
    "State": "base",
    "Strategy": "base",
    "Genetic": "genetic",
    "GeneticState": "genetic",
    "evolve": "loop",
    "GenerationRecord": "metrics",
    "STRATEGIES": "registry",
    "make_strategy": "registry",
    "Founder": "run",
    "Run": "run",
    "load_run": "run",
    "Search": "search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
