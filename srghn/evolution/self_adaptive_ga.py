"""A genetic algorithm whose step size is inherited and mutated with the weights.

The log-normal rule of Schwefel 1981 (Beyer and Schwefel 2002, 'Evolution strategies', eq. 19):
`sigma' = sigma * exp(tau * N(0, 1))`, `child = parent + sigma' * N(0, I)`. Choose plus or comma
with `evolution.selection`; comma forgets a step size that was only lucky.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from srghn.config import Params, RunParams
from srghn.envs.interface import Interface
from srghn.evolution.base import F32, I64
from srghn.evolution.direct import PolicyWeights, normal
from srghn.evolution.genetic import Genetic
from srghn.evolution.options import options


class SelfAdaptiveOptions(Params):
    sigma: float = Field(0.3, gt=0, description="step size of the founders")
    tau: float = Field(0.0, ge=0, description="learning rate of the step size; 0: 1/sqrt(weights)")
    sigma_min: float = Field(1e-12, gt=0)
    sigma_max: float = Field(1e3, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> SelfAdaptiveOptions:
        if not self.sigma_min <= self.sigma <= self.sigma_max:
            raise ValueError(
                f"expected sigma_min <= sigma <= sigma_max, got {self.sigma_min:g}, "
                f"{self.sigma:g} and {self.sigma_max:g}"
            )
        return self


@dataclass(frozen=True)
class SelfAdaptive:
    """Genome: the weights (P,) and log(sigma)."""

    layout: PolicyWeights
    options: SelfAdaptiveOptions

    node_names = ("sigma",)

    @property
    def genome_size(self) -> int:
        return self.layout.size + 1

    @property
    def digest(self) -> str:
        return self.layout.digest("self-adaptive-ga", **self.options.model_dump())

    @property
    def tau(self) -> float:
        return self.options.tau or float(self.layout.size**-0.5)

    def init(self, seed: int) -> F32:
        return np.append(self.layout.initial(seed), np.float32(np.log(self.options.sigma)))

    def generate(self, genomes: F32) -> F32:
        return np.ascontiguousarray(genomes[:, :-1])

    def mutate(
        self, parents: F32, noise_seeds: I64, *, index: I64 | None = None, out: F32 | None = None
    ) -> tuple[F32, F32]:
        parents = parents if index is None else parents[index]
        noise = normal(noise_seeds, parents.shape[1])
        low, high = np.log([self.options.sigma_min, self.options.sigma_max]).astype(np.float32)
        steps = np.clip(parents[:, -1:] + np.float32(self.tau) * noise[:, -1:], low, high)
        sigmas: F32 = np.exp(steps)
        children = parents[:, :-1] + sigmas * noise[:, :-1]
        return np.concatenate([children, steps], axis=1, out=out), sigmas

    def rates(self, genomes: F32) -> F32:
        return np.exp(genomes[:, -1:])


def self_adaptive_ga(params: RunParams, interface: Interface) -> Genetic:
    chosen = options(SelfAdaptiveOptions, params.evolution)
    encoding = SelfAdaptive(PolicyWeights(params.network, interface), chosen)
    return Genetic("self-adaptive-ga", encoding, params.evolution)
