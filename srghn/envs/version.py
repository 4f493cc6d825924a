"""A pinned environment: everything that determines it, with one fingerprint over all of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from srghn.config import EnvParams, Returns, Switch, Wrapper
from srghn.envs.fingerprint import Behaviour
from srghn.envs.interface import Float32, Interface
from srghn.errors import ConfigError, EnvVersionError, FingerprintMismatch
from srghn.files import atomic_write, canonical_json, sha256_bytes

if TYPE_CHECKING:
    import gymnasium as gym

    from srghn.envs.perturb import Perturbation

FORMAT = 1
#: Fields that do not change behaviour and are no part of the fingerprint. Nor is the layout, which
#: says how clients may send the same vector.
UNMOVING = ("history", "returns", "failure_return")


@dataclass(frozen=True)
class EnvVersion:
    """An environment as `srghn.envs.pin` recorded it. Compare fitness only within one fingerprint.

    `window`: the task never ends, and `max_episode_steps` are a window that counts as an episode;
    `fresh`: it is made again for each episode; `limited`: the limit is `env.max_episode_steps`.

    `packages`: distribution -> version of what computes the world; earlier releases recorded fewer;
    `observation_scale` (observation_size,): spread of each element under random actions, which
    noise is a share of (0 for flags, elements that are only ever 0 or 1); `behaviour`: mode ->
    digests of what fixed actions bring about. The fingerprint leaves out what moves no world:
    `history`, for people, and the range of returns and the highest return of a failed episode that
    the parameters name.
    """

    id: str
    kwargs: Mapping[str, Any]
    wrappers: tuple[str | Wrapper, ...]
    modes: tuple[str, ...]
    schedule: tuple[Switch, ...]
    backend: str
    packages: Mapping[str, str]
    interface: Interface
    max_episode_steps: int
    observation_scale: tuple[float, ...]
    behaviour: Mapping[str, Behaviour]
    history: str = ""
    window: bool = False
    limited: bool = False
    fresh: bool = False
    named_returns: Returns | None = None
    named_failure: float | None = None

    def __repr__(self) -> str:
        modes = ", ".join(self.modes)
        return f"EnvVersion({self.id}, {self.fingerprint[:12]}, modes {modes})"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of everything that determines this environment."""
        moving = {k: v for k, v in self.to_dict().items() if k not in UNMOVING}
        moving["interface"] = {k: v for k, v in moving["interface"].items() if k != "layout"}
        return sha256_bytes(canonical_json(moving))

    def named_by(self, older: EnvVersion) -> EnvVersion:
        """This version with those of its packages alone that another one names.

        Earlier releases recorded fewer: if it then has the other's fingerprint, nothing that the
        other records has moved.
        """
        named = {name: found for name, found in self.packages.items() if name in older.packages}
        return replace(self, packages=named)

    def check_not_fuller(self, saved: Path) -> None:
        """Raise `FingerprintMismatch` if a saved version is this one with fewer packages named."""
        older = EnvVersion.load(saved)
        if self.named_by(older).fingerprint == older.fingerprint != self.fingerprint:
            raise FingerprintMismatch(
                f"what was evolved in {saved} goes on in that version: it is {self.id} as it is "
                f"now, {self.fingerprint[:12]}, but names fewer packages; give "
                f"EnvVersion.load({str(saved)!r})"
            )

    def check_installed(self) -> None:
        """Raise `FingerprintMismatch` where a package is not installed here in its version."""
        for name, wanted in self.packages.items():
            try:
                found = metadata.version(name)
            except metadata.PackageNotFoundError:
                found = "none"
            if found != wanted:
                raise FingerprintMismatch(
                    f"{self.id} was pinned with {name} {wanted}, {platform.node()} has {found}; "
                    f"install the same there: pip install {name}=={wanted}"
                )

    @property
    def params(self) -> EnvParams:
        """The parameters that pin this environment again."""
        return EnvParams.model_validate(
            {
                "id": self.id,
                "kwargs": dict(self.kwargs),
                "wrappers": self.wrappers,
                "schedule": self.schedule,
                "backend": self.backend,
                "max_episode_steps": self.max_episode_steps if self.limited else None,
                "window": self.max_episode_steps if self.window else None,
                "fresh": self.fresh,
                "normalise": bool(self.interface.observation_mean),
                "returns": self.named_returns,
                "failure_return": self.named_failure,
            }
        )

    @property
    def returns(self) -> Returns | None:
        """The range by which gate, trial and watch scale returns: as set, or the environment's own.

        None where neither is known; `srghn check` proposes one. What lies outside is clipped; a
        crashed episode counts as `low`.
        """
        return self.named_returns or (self._own_scale[0] if self._own_scale else None)

    @property
    def failure_return(self) -> float | None:
        """An episode whose return is no higher has failed; None where nothing says so."""
        if self.named_failure is not None:
            return self.named_failure
        return self._own_scale[1] if self._own_scale and self.named_returns is None else None

    @cached_property
    def _own_scale(self) -> tuple[Returns, float] | None:
        from srghn.envs.registry import registered

        spec = registered().get(self.id)
        return spec.scale(self.max_episode_steps) if spec and spec.scale else None

    def mode_at(self, generation: int) -> str:
        """The mode of that lineage generation: the first mode until the first switch."""
        mode = self.modes[0]
        for switch in self.schedule:
            if switch.generation <= generation:
                mode = switch.mode
        return mode

    def check_mode(self, mode: str) -> None:
        """Raise `ConfigError`, naming the modes there are, for any other."""
        if mode not in self.modes:
            raise ConfigError(f"{self.id} has no mode {mode!r}; modes: {', '.join(self.modes)}")

    def make(self, mode: str, perturbation: Perturbation | None = None) -> gym.Env[Any, Any]:
        """The environment in a mode: flat float32 observations, native actions, its time limit.

        Raises `ConfigError` for an unknown mode or perturbation, `EnvVersionError` where the world
        cannot be built.
        """
        from srghn.envs.build import build

        self.check_mode(mode)
        return build(self.params, mode, perturbation, self.noise_scale)

    @property
    def noise_scale(self) -> Float32:
        """`observation_scale` as float32 (observation_size,)."""
        return np.array(self.observation_scale, dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data of every field."""
        return {
            "id": self.id,
            "kwargs": dict(self.kwargs),
            "wrappers": [w if isinstance(w, str) else w.model_dump() for w in self.wrappers],
            "modes": list(self.modes),
            "schedule": [switch.model_dump() for switch in self.schedule],
            "backend": self.backend,
            "packages": dict(self.packages),
            "interface": self.interface.to_dict(),
            "max_episode_steps": self.max_episode_steps,
            "observation_scale": list(self.observation_scale),
            "behaviour": {mode: seen.to_dict() for mode, seen in self.behaviour.items()},
            "history": self.history,
            **self._named(),
        }

    def _named(self) -> dict[str, Any]:
        """Fields that a later release brought, where they are set."""
        flags = ("window", "limited", "fresh")
        named: dict[str, Any] = {name: True for name in flags if getattr(self, name)}
        if self.named_returns is not None:
            named["returns"] = self.named_returns.model_dump()
        if self.named_failure is not None:
            named["failure_return"] = self.named_failure
        return named

    def to_json(self) -> str:
        """Readable JSON with the fingerprint, and a digest over every field, history too."""
        data = self.to_dict()
        seal = {"format": FORMAT, "fingerprint": self.fingerprint, "digest": _digest(data)}
        return json.dumps({**seal, **data}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "environment version") -> EnvVersion:
        """Read `to_json`'s form; raises `EnvVersionError` for anything torn or tampered with."""
        try:
            data = json.loads(text)
            seal = {name: data.pop(name) for name in ("format", "fingerprint", "digest")}
            version = cls._from_dict(data)
        except (EnvVersionError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EnvVersionError(f"{source} is not an environment version: {error!r}") from error
        if seal["format"] != FORMAT:
            raise EnvVersionError(f"{source}: format {seal['format']}, expected {FORMAT}")
        if version.to_json().encode() != (text.encode() if isinstance(text, str) else text):
            raise EnvVersionError(
                f"{source} was changed after it was written: it states fingerprint "
                f"{seal['fingerprint']} and digest {seal['digest']}, its contents have "
                f"{version.fingerprint} and {_digest(version.to_dict())}; restore it, or pin again"
            )
        return version

    @classmethod
    def _from_dict(cls, data: dict[str, Any]) -> EnvVersion:
        behaviour = data["behaviour"].items()
        changed: dict[str, Any] = {
            "wrappers": tuple(w if isinstance(w, str) else Wrapper(**w) for w in data["wrappers"]),
            "modes": tuple(data["modes"]),
            "schedule": tuple(Switch(**switch) for switch in data["schedule"]),
            "interface": Interface.from_dict(data["interface"]),
            "observation_scale": tuple(data["observation_scale"]),
            "behaviour": {mode: Behaviour.from_dict(seen) for mode, seen in behaviour},
        }
        if "returns" in data:
            changed["named_returns"] = Returns(**data.pop("returns"))
        if "failure_return" in data:
            changed["named_failure"] = data.pop("failure_return")
        return cls(**{**data, **changed})

    def save(self, path: Path | str) -> None:
        """Write the JSON form, whole or not at all."""
        atomic_write(Path(path), self.to_json())

    @classmethod
    def load(cls, path: Path | str) -> EnvVersion:
        """Read a saved version; raises `EnvVersionError` naming the file."""
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise EnvVersionError(
                f"cannot read environment version {path}: {error.strerror}"
            ) from error
        return cls.from_json(text, str(path))


def _digest(data: Mapping[str, Any]) -> str:
    return sha256_bytes(canonical_json(data))
