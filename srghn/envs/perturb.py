"""A world made a little harder: what a gate plays beside the nominal episodes.

Three kinds fit every world: `observation_noise` (severity: standard deviation as a share of each
element's spread, `EnvVersion.observation_scale`), `action_delay` (severity: steps) and
`action_drop` (severity: probability). The others multiply a constant of the world's dynamics:
severity 1 leaves it as it is.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from srghn.errors import ConfigError

if TYPE_CHECKING:
    from srghn.envs.registry import WorldSpec

NOISE, DELAY, DROP = "observation_noise", "action_delay", "action_drop"
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    NOISE: (lambda s: s >= 0, "0 or more"),
    DELAY: (lambda s: s >= 0 and s == int(s), "a whole number of steps"),
    DROP: (lambda s: 0 <= s <= 1, "a probability"),
}
_FACTOR: tuple[Callable[[float], bool], str] = (lambda s: s > 0, "a factor above 0")


@dataclass(frozen=True, order=True)
class Perturbation:
    """One kind at one severity; `str` gives `kind:severity`, and `parse` reads it back.

    Raises `ConfigError` for a severity outside the kind's range.
    """

    name: str
    severity: float

    def __post_init__(self) -> None:
        fits, expected = _RANGES.get(self.name, _FACTOR)
        if not (math.isfinite(self.severity) and fits(self.severity)):
            raise ConfigError(
                f"perturbation {self.name}: severity must be {expected}, got {self.severity}"
            )

    def __str__(self) -> str:
        return f"{self.name}:{self.severity!r}".removesuffix(".0")


def parse(text: str) -> Perturbation:
    """Read `observation_noise:0.1`; raises `ConfigError` with the expected form."""
    name, sign, severity = text.strip().partition(":")
    try:
        value = float(severity)
    except ValueError:
        value = math.nan
    if not sign or not name or math.isnan(value):
        raise ConfigError(f"a perturbation is written kind:severity, got {text!r}")
    return Perturbation(name, value)


def kinds(spec: WorldSpec, backend: str = "gymnasium") -> tuple[str, ...]:
    """The names of every perturbation that this world knows; EnvPool hides its dynamics."""
    return (*_RANGES, *spec.dynamics) if backend == "gymnasium" else tuple(_RANGES)


def check(perturbation: Perturbation, spec: WorldSpec, backend: str) -> None:
    """Raise `ConfigError`, naming what there is, for a kind that this world does not know."""
    known = kinds(spec, backend)
    if perturbation.name not in known:
        near = difflib.get_close_matches(perturbation.name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{spec.id} has no perturbation {perturbation.name!r}; {hint}known: {', '.join(known)}"
        )
