"""Champions as networks that evolution never saw: their genome makes the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srghn.config import EngineSettings, RunParams
from srghn.envs import EnvVersion
from srghn.errors import GraphError
from srghn.evaluation.base import WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution.base import F32, Encoding
from srghn.evolution.self_referential import example
from srghn.ghn import GHN
from srghn.graph import trace
from srghn.networks import build_network


class Unseen:
    """`networks` by name, each with its `network.kwargs` laid over those of the run."""

    def __init__(
        self,
        networks: Mapping[str, Mapping[str, Any]],
        params: RunParams,
        version: EnvVersion,
        encoding: Encoding | None,
    ) -> None:
        assert isinstance(encoding, GHN), "only a hypernetwork makes weights for other networks"
        own = params.network
        self.networks = {
            name: own.model_copy(update={"kwargs": {**own.kwargs, **kwargs}})
            for name, kwargs in networks.items()
        }
        self.version, self.ghn = version, encoding

    def scores(self, genomes: F32, task: Task) -> dict[str, float]:
        """The mean return with each network of a genome (1, G); 0 where the head cannot make it."""
        face, found = self.version.interface, {}
        for name, network in self.networks.items():
            module = build_network(network, face)
            try:
                weights = self.ghn.generate(genomes, trace(module, *example(module, face)))
            except GraphError:  # the dense head makes no tensor larger than those it evolved for
                found[name] = 0.0
                continue
            with make_evaluator(EngineSettings(), self.version, network) as evaluator:
                played = evaluator.evaluate(WeightedPolicies(network, face, weights), task)
            found[name] = float(played.fitness[0])
        return found
