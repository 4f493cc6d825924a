"""Champions as networks that evolution never saw: their genome makes the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn.config import EngineSettings, RunParams
from srghn.envs import EnvVersion
from srghn.errors import GraphError
from srghn.evaluation.base import Policies, SeveralPolicies, WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution.registry import make_strategy
from srghn.evolution.self_referential import BirthRecipe, example
from srghn.ghn import GHN
from srghn.graph import trace
from srghn.networks import build_network


class Unseen:
    """`networks` by name, each with its `network.kwargs` laid over those of the run."""

    def __init__(
        self, networks: Mapping[str, Mapping[str, Any]], params: RunParams, version: EnvVersion
    ) -> None:
        own = params.network
        self.networks = {
            name: own.model_copy(update={"kwargs": {**own.kwargs, **kwargs}})
            for name, kwargs in networks.items()
        }
        self.version = version
        encoding = make_strategy(params, version.interface).encoding
        assert isinstance(encoding, GHN), "only a hypernetwork makes weights for other networks"
        self.ghn = encoding
        self.genome: NDArray[np.float32] | None = None

    def meet(self, policies: Policies, champion: int) -> None:
        """Keep the champion's genome; policies come as a recipe, as for workers elsewhere."""
        first = policies.parts[0] if isinstance(policies, SeveralPolicies) else policies
        assert isinstance(first, WeightedPolicies)
        assert isinstance(first.recipe, BirthRecipe)
        self.genome = first.recipe.genomes(np.array([champion]))

    def scores(self, task: Task) -> dict[str, float]:
        """Its mean return with each network; 0 where its head cannot make so many values."""
        assert self.genome is not None
        face, found = self.version.interface, {}
        for name, network in self.networks.items():
            module = build_network(network, face)
            try:
                weights = self.ghn.generate(self.genome, trace(module, *example(module, face)))
            except GraphError:  # the dense head makes no tensor larger than those it evolved for
                found[name] = 0.0
                continue
            with make_evaluator(EngineSettings(), self.version, network) as evaluator:
                played = evaluator.evaluate(WeightedPolicies(network, face, weights), task)
            found[name] = float(played.fitness[0])
        return found
