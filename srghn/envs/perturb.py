"""Perturbed environments, which a gate uses beside the nominal one.

Some kinds fit every world (`GENERIC` says what each does, and what its severity is). The others
multiply a constant of the world's dynamics: severity 1 leaves it as it is, but for `wind`. A kind
written as an import path, `module:Class`, is anyone's own (`srghn.envs.disturb.own`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from srghn.errors import ConfigError

if TYPE_CHECKING:
    from srghn.envs.registry import WorldSpec

NOISE, BIAS, SCALING = "observation_noise", "observation_bias", "observation_scaling"
DROPOUT, LATE = "sensor_dropout", "observation_delay"
DELAY, DROP, RANDOM, REPEAT = "action_delay", "action_drop", "action_noise", "action_repeat"


@dataclass(frozen=True)
class Kind:
    """What a generic kind does; `neutral` is the severity at which it does nothing."""

    what: str
    severity: str
    fits: Callable[[float], bool]
    expected: str
    neutral: float = 0.0


def _share(s: float) -> bool:
    return s >= 0


def _probability(s: float) -> bool:
    return 0 <= s <= 1


def _steps(s: float) -> bool:
    return 0 <= s < 2**31 and s == int(s)


_SPREAD = "share of each element's spread"
_FACTOR: tuple[Callable[[float], bool], str] = (lambda s: s > 0, "a factor above 0")
_LEAST = (_share, "0 or more")
_CHANCE = (_probability, "a probability")
_WHOLE = (_steps, "a whole number of steps below 2**31")
_TIMES: tuple[Callable[[float], bool], str] = (
    lambda s: s >= 1 and s == int(s),
    "a whole number from 1 on",
)
#: Every kind that fits every world, by name.
GENERIC: dict[str, Kind] = {
    NOISE: Kind("Gaussian noise on observations", _SPREAD, *_LEAST),
    BIAS: Kind("each element is off by a constant for an episode", _SPREAD, *_LEAST),
    SCALING: Kind("observations are multiplied", "factor", *_FACTOR, 1.0),
    DROPOUT: Kind("an element reads 0", "probability, per step", *_CHANCE),
    LATE: Kind("observations arrive late", "steps", *_WHOLE),
    DELAY: Kind("actions are executed late", "steps", *_WHOLE),
    DROP: Kind("an action is lost, the last repeated", "probability", *_CHANCE),
    RANDOM: Kind("random choices; noise on a box", "probability; share of half", *_CHANCE),
    REPEAT: Kind("each chosen action is executed several times", "times", *_TIMES, 1.0),
}
#: Kinds that leave alone elements which are flags or never change.
OF_SPREAD = (NOISE, BIAS, SCALING)
#: Kinds that need a choice of actions.
OF_ACTIONS = (DELAY, DROP, RANDOM, REPEAT)
_OWN: tuple[Callable[[float], bool], str] = (math.isfinite, "a number")


@dataclass(frozen=True, order=True)
class Perturbation:
    """One kind at one severity; `str` gives `kind:severity`, and `parse` reads it back.

    Raises `ConfigError` for a severity outside the kind's range. An environment of one's own has
    kinds of its own, so whether it has this one is said where the two meet: by `Task` and `make`.
    """

    name: str
    severity: float

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and isinstance(self.severity, Real)):
            raise ConfigError(
                "a perturbation is a kind's name and a severity, such as "
                f"Perturbation({NOISE!r}, 0.1), got ({self.name!r}, {self.severity!r})"
            )
        fits, expected = _range(self.name)
        if not (math.isfinite(self.severity) and fits(self.severity)):
            raise ConfigError(
                f"perturbation {self.name}: severity must be {expected}, got {self.severity}"
            )

    @property
    def own(self) -> bool:
        """Whether it is anyone's own, by import path."""
        return ":" in self.name

    def __str__(self) -> str:
        return f"{self.name}:{float(self.severity)!r}".removesuffix(".0")


def parse(text: str) -> Perturbation:
    """Read `observation_noise:0.1` or `module:Class:0.1`; raises `ConfigError` with the form."""
    name, sign, severity = text.strip().rpartition(":")
    try:
        value = float(severity)
    except ValueError:
        value = math.nan
    if not sign or not name or math.isnan(value):
        raise ConfigError(f"a perturbation is written kind:severity, got {text!r}")
    return Perturbation(name, value)


def kinds(spec: WorldSpec, backend: str = "gymnasium") -> tuple[str, ...]:
    """The names of every perturbation that this world knows; EnvPool hides its dynamics."""
    return (*GENERIC, *spec.dynamics) if backend == "gymnasium" else tuple(GENERIC)


def check(perturbation: Perturbation, spec: WorldSpec, backend: str) -> None:
    """Raise `ConfigError`, naming the known kinds, for one that this environment lacks."""
    known = kinds(spec, backend)
    if perturbation.name not in known and not perturbation.own:
        near = difflib.get_close_matches(perturbation.name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{spec.id} has no perturbation {perturbation.name!r}; {hint}known: "
            f"{', '.join(known)}, and your own as module:Class"
        )


def _range(name: str) -> tuple[Callable[[float], bool], str]:
    if name in GENERIC:
        return GENERIC[name].fits, GENERIC[name].expected
    return _OWN if ":" in name else _FACTOR
