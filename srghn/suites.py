"""A suite as a file: which cells the gate plays, what it looks at there, margins and budgets.

    name: cranes
    version: 2
    worlds: [my_package.worlds:Crane]   # left out: any
    rules: {episodes: 800, margin: 0.04}  # names as in the section `gate` of the parameters
    cells:
      - perturbation: observation_noise
        severities: [0.05, 0.1]
        modes: [calm, windy]            # left out: the mode that is served
      - perturbation: my_package.worlds:Gust
        severities: [0.3]
        episodes: 200
        metrics: [failures]

What a suite's `rules` leave out, the gate rules say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from srghn.errors import ConfigError
from srghn.params import Params, explain, nearest
from srghn.yaml_files import read_yaml

#: What of the gate rules is the suite's: budgets, margins, bars, and what returns mean.
RULES = (
    "episodes",
    "cell_episodes",
    "return_low",
    "return_high",
    "failure_return",
    "margin",
    "cell_margin",
    "tail_margin",
    "min_gain",
    "failure_margin",
    "cell_failure_margin",
    "max_failure_rate",
    "max_cell_failure_rate",
    "ceiling",
    "min_return",
    "min_cell_return",
    "modes_bind",
    "max_latency_ms",
    "max_policy_bytes",
)
Metric = Literal["returns", "failures"]


class SuiteCell(Params):
    """Cells of one kind: each severity in each mode. What is not given is as the rules say."""

    late = frozenset(
        {
            "perturbation",
            "severities",
            "modes",
            "metrics",
            "binding",
            "episodes",
            "margin",
            "failure_margin",
            "min_return",
            "max_failure_rate",
        }
    )

    perturbation: str | None = Field(None, description="a kind, or your own as module:Class")
    severities: tuple[float, ...] = Field((), description="from mild to harsh")
    modes: tuple[str, ...] = Field((), description="of the environment; none: the served one")
    metrics: tuple[Metric, ...] = Field(
        ("returns", "failures"), min_length=1, description="what is looked at"
    )
    binding: bool = Field(True, description="false: reported, and decides nothing")
    episodes: int | None = Field(None, ge=20, description="planned paired episodes")
    margin: float | None = Field(None, gt=0, lt=1)
    failure_margin: float | None = Field(None, gt=0, lt=1)
    min_return: float | None = Field(None, description="of a first champion")
    max_failure_rate: float | None = Field(None, gt=0, lt=1, description="of a first champion")

    @model_validator(mode="after")
    def _whole(self) -> SuiteCell:
        if (self.perturbation is None) != (not self.severities):
            raise ValueError("perturbation and severities go together: give both, or neither")
        if self.perturbation is None and not self.modes:
            raise ValueError("a cell has a perturbation with severities, or modes, or both")
        return self


class Suite(Params):
    """Cells: modes x perturbations x severities, beside the primary one, which always stands."""

    late = frozenset({"worlds", "rules"})

    format: Literal[1] = 1
    name: str = Field(min_length=1, max_length=100)
    version: int = Field(1, ge=1, description="raise it with every change")
    worlds: tuple[str, ...] = Field((), description="environments it is for; none: any")
    rules: dict[str, Any] = Field({}, description="budgets, margins and bars, as in `gate`")
    cells: tuple[SuiteCell, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> Suite:
        for name in self.rules:
            if name not in RULES:
                raise ValueError(f"rules.{name} is no rule of a suite; {nearest(name, RULES)}")
        return self

    @classmethod
    def read(cls, given: Any) -> Suite:
        """A suite as it was given: itself, its contents, or the path of its file.

        Raises `ConfigError` naming the file and the value.
        """
        if isinstance(given, cls):
            return given
        source = f"suite {given}" if isinstance(given, str) else "gate.suite"
        data = read_yaml(Path(given)) if isinstance(given, str) else given
        if not isinstance(data, Mapping):
            raise ConfigError(f"{source} must be a suite or the path of its file, got {data!r}")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(f"{source}: {explain(error, model=cls)}") from error


def shipped(name: str) -> Suite:
    """A suite that comes with srghn."""
    return Suite.read(str(Path(__file__).parent / "envs" / "suites" / f"{name}.yaml"))
