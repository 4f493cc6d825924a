"""Random immigrants (Grefenstette 1992): every generation, part of the brood is made of strangers.

The control that says how much of a recovery is mere sampling from scratch.
"""

from __future__ import annotations

from pydantic import Field

from srghn.config import Params, RunParams
from srghn.envs.interface import Interface
from srghn.errors import ConfigError
from srghn.evolution.direct import Direct, PolicyWeights
from srghn.evolution.genetic import Genetic
from srghn.evolution.options import options


class ImmigrantOptions(Params):
    sigma: float = Field(0.3, gt=0, description="standard deviation of the children's mutation")
    share: float = Field(
        0.5, gt=0, le=1, description="share of each generation's children that are new founders"
    )


def immigrants(params: RunParams, interface: Interface) -> Genetic:
    chosen = options(ImmigrantOptions, params.evolution)
    count = round(chosen.share * params.evolution.parents * params.evolution.children)
    if count == 0:
        raise ConfigError(
            f"evolution.options.share: {chosen.share} of "
            f"{params.evolution.parents * params.evolution.children} children is less than one; "
            "raise the share, or use the ga strategy"
        )
    encoding = Direct("immigrants", PolicyWeights(params.network, interface), chosen.sigma)
    return Genetic("immigrants", encoding, params.evolution, immigrants=count)
