"""The same hypernetwork with its mutation rate held: the control for self-reference itself."""

from __future__ import annotations

from pydantic import Field

from srghn.config import Params, RunParams
from srghn.envs.interface import Interface
from srghn.evolution.genetic import Genetic
from srghn.evolution.options import options
from srghn.evolution.self_referential import make_ghn


class ConstantRateOptions(Params):
    rate: float | None = Field(None, gt=0, lt=1, description="None: ghn.initial_rate")


def constant_rate(params: RunParams, interface: Interface) -> Genetic:
    rate = options(ConstantRateOptions, params.evolution).rate or params.ghn.initial_rate
    held = {
        "initial_rate": rate,
        "rate_min": rate,
        "rate_max": rate,
        "meta_floor": 0.0,
        "stress": False,
    }
    ghn = params.ghn.model_copy(update=held)
    encoding = make_ghn(params.model_copy(update={"ghn": ghn}), interface)
    return Genetic("constant-rate", encoding, params.evolution)
