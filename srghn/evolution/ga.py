"""A genetic algorithm on the policy's weights with a fixed step (Such et al. 2017, 1712.06567)."""

from __future__ import annotations

from pydantic import Field

from srghn.config import Params, RunParams
from srghn.envs.interface import Interface
from srghn.evolution.direct import Direct, PolicyWeights
from srghn.evolution.genetic import Genetic
from srghn.evolution.options import options


class GAOptions(Params):
    sigma: float = Field(0.3, gt=0, description="standard deviation of the mutation")


def ga(params: RunParams, interface: Interface) -> Genetic:
    chosen = options(GAOptions, params.evolution)
    encoding = Direct("ga", PolicyWeights(params.network, interface), chosen.sigma)
    return Genetic("ga", encoding, params.evolution)
