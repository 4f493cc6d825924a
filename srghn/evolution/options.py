"""`evolution.options` of the parameters, read by the strategy that they are for."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from srghn.config import EvolutionParams, Params
from srghn.errors import ConfigError
from srghn.params import told

P = TypeVar("P", bound=Params)


class NoOptions(Params):
    """For strategies that have none."""


def options(model: type[P], params: EvolutionParams) -> P:
    """Validate `params.options` as `model`; raises `ConfigError` naming each bad option."""
    try:
        return model.model_validate(params.options)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(model, params, e) for e in error.errors())) from error


def _explain(model: type[Params], params: EvolutionParams, item: object) -> str:
    assert isinstance(item, dict)
    path = ".".join(["evolution.options", *map(str, item["loc"])])
    if item["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields) or "none"
        return f"{path}: {params.strategy} has no such option; known: {known}"
    return f"{path}: {told(item)}"
