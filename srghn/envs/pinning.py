"""Pin an environment, check that it is unchanged, and show how two versions differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srghn.config import EnvParams
from srghn.envs.build import Env, flatten, native, time_limit
from srghn.envs.cells import idle_cells
from srghn.envs.fingerprint import (
    Behaviour,
    Irreproducible,
    first_difference,
    most_calls,
    observe,
)
from srghn.envs.interface import Interface
from srghn.envs.overdue import Overdue
from srghn.envs.packages import computing, versions
from srghn.envs.probe import Probe
from srghn.envs.registry import WorldSpec, find
from srghn.envs.spaces import read_interface
from srghn.envs.version import EnvVersion
from srghn.errors import ConfigError, EnvVersionError, FingerprintMismatch, expect
from srghn.files import canonical_json

#: What to do when an environment has changed.
NEW_LINEAGE = (
    "pin the new world (srghn env pin) and start a new lineage in it (srghn run --from scratch; "
    "in a checkout: dvc repro --force --single-item pin, then dvc repro)"
)


def pin(params: EnvParams | str, tell: Callable[[str], None] = lambda note: None) -> EnvVersion:
    """Build the environment in each of its modes, observe its behaviour, and record all of it.

    An id alone stands for `EnvParams(id=...)`. `tell` is called with one sentence for each thing
    that is no error but should be known.

    Raises `ConfigError` for a schedule with a mode that the world does not have, `EnvVersionError`
    where it cannot be built, is endless, or does not answer the same to the same seed and actions.
    A call of the environment that does not return for seconds is named on stderr.
    """
    if isinstance(params, str):
        params = EnvParams(id=params)
    expect(params, EnvParams, "pin", "give an id, or params.env")
    spec = find(params.id)
    _check(params, spec)
    packages = spec.moving_packages(params.backend)
    behaviour, seen, found = {}, [], set()
    with Overdue(f"pin {spec.id}") as overdue:
        interface, limit = _shape(params, spec, overdue)
        overdue.expect(1 + len(spec.modes) * (2 + most_calls(limit)))  # each is built, too
        for mode in spec.modes:
            behaviour[mode], observations, behind, notes = _watch(
                params, spec, mode, interface, overdue
            )
            seen.append(observations)
            found |= behind
            for note in notes:
                tell(f"{spec.id} in mode {mode}: {note}")
    everything = np.concatenate(seen)
    version = EnvVersion(
        id=params.id,
        kwargs=params.kwargs,
        wrappers=params.wrappers,
        modes=spec.modes,
        schedule=params.schedule,
        backend=params.backend,
        packages=packages | versions(found, packages),
        interface=_normalised(interface, everything) if params.normalise else interface,
        max_episode_steps=limit,
        observation_scale=_spread(everything),
        behaviour=behaviour,
        history=spec.history,
        window=params.window is not None,
        limited=params.max_episode_steps is not None,
        fresh=params.fresh,
        named_returns=params.returns,
        named_failure=params.failure_return,
    )
    for cell, reason in idle_cells(version):
        tell(f"{spec.id}: perturbation {cell} is left out: {reason}")
    return version


def verify(version: EnvVersion) -> None:
    """Pin the same parameters here and now; raises `FingerprintMismatch` naming what moved.

    Raises `EnvVersionError` for one that fails now, or that cannot be built.
    Packages that the version does not name are not compared.
    """
    try:
        now = pin(version.params).named_by(version)
    except EnvVersionError as error:
        raise EnvVersionError(
            f"{version.id} was pinned as {version.fingerprint[:12]} and cannot be pinned now: "
            f"{error}; if it was edited since, restore it"
        ) from error
    if now.fingerprint == version.fingerprint:
        return
    raise FingerprintMismatch(
        f"{version.id} no longer behaves as it did when it was pinned: fingerprint "
        f"{version.fingerprint} then, {now.fingerprint} now; {'; '.join(diff(version, now))}. "
        f"Fitness in two environments is never compared: restore what changed, or {NEW_LINEAGE}"
    )


def diff(a: EnvVersion, b: EnvVersion) -> list[str]:
    """One line for each field that differs: its path, both values, first differing step."""
    lines = []
    left, right = a.to_dict(), b.to_dict()
    for name in sorted({*left, *right}, key=[*left, *right].index):
        if name == "behaviour":
            lines += list(_behaviour_lines(a, b))
        else:
            lines += list(_lines(name, left.get(name), right.get(name)))
    return lines


def _check(params: EnvParams, spec: WorldSpec) -> None:
    for switch in params.schedule:
        if switch.mode not in spec.modes:
            raise ConfigError(
                f"env.schedule: {spec.id} has no mode {switch.mode!r} (generation "
                f"{switch.generation}); modes: {', '.join(spec.modes)}"
            )
    try:
        canonical_json(params.kwargs)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"env.kwargs must be plain JSON values: {error}") from error


def _built(params: EnvParams, spec: WorldSpec, mode: str, overdue: Overdue) -> Env:
    with overdue.during(f"building it in mode {mode}"):
        env = native(spec, mode, params)
    return overdue.watched(env)


def _shape(params: EnvParams, spec: WorldSpec, overdue: Overdue) -> tuple[Interface, int]:
    env = _built(params, spec, spec.modes[0], overdue)
    try:
        return read_interface(env, spec.id), time_limit(env, spec.id)
    finally:
        env.close()


def _watch(
    params: EnvParams, spec: WorldSpec, mode: str, interface: Interface, overdue: Overdue
) -> tuple[Behaviour, NDArray[np.float32], set[str], list[str]]:
    """Its behaviour on the fixed seeds, the observations (steps, size), packages, and notes."""
    first, other = (_built(params, spec, mode, overdue) for _ in range(2))
    env = Probe(first, interface.layout)
    name = f"{spec.id} in mode {mode}"
    try:
        if read_interface(env, name) != interface:
            raise EnvVersionError(
                f"{name} has other spaces than in mode {spec.modes[0]}; one policy must fit all"
            )
        behaviour, seen = observe(flatten(env, name), flatten(other, name), interface, name)
        return behaviour, seen, computing(first), env.notes()
    except Irreproducible as error:
        if params.fresh or not _fresh_mends(params, spec, mode, interface, overdue):
            raise
        raise EnvVersionError(
            f"{error}. With a new instance for each episode it is reproducible: set env.fresh=true"
        ) from error
    finally:
        env.close()
        other.close()


def _fresh_mends(
    params: EnvParams, spec: WorldSpec, mode: str, interface: Interface, overdue: Overdue
) -> bool:
    """Whether an irreproducible environment is reproducible with a new instance per episode."""
    fresh = params.model_copy(update={"fresh": True})
    env, other = (flatten(_built(fresh, spec, mode, overdue), spec.id) for _ in range(2))
    try:
        observe(env, other, interface, spec.id)
    except EnvVersionError:
        return False
    finally:
        env.close()
        other.close()
    return True


def _normalised(interface: Interface, observations: NDArray[np.float32]) -> Interface:
    """The interface with each element's mean and standard deviation, to four digits.

    A mean has more of them where it is far larger than its deviation. Flags, only ever 0 or 1, are
    left as they are; an element that never changed is only shifted.
    """
    values = observations.astype(np.float64)
    flags = np.isin(observations, (0.0, 1.0)).all(axis=0)
    means = np.where(flags, 0.0, values.mean(axis=0))
    spread = values.std(axis=0)
    still = flags | (spread <= np.maximum(1e-6 * np.abs(means), 1e-10))
    deviations = np.where(still, 1.0, spread)
    ratios = np.abs(means) / deviations
    more = np.where(ratios > 10, np.ceil(np.log10(np.maximum(ratios, 1.0))), 0).astype(int)
    return replace(
        interface,
        observation_mean=tuple(
            float(f"{mean:.{4 + digits}g}") for mean, digits in zip(means, more, strict=True)
        ),
        observation_deviation=tuple(float(f"{deviation:.4g}") for deviation in deviations),
    )


def _spread(observations: NDArray[np.float32]) -> tuple[float, ...]:
    """Standard deviation of each element, to three digits: the unit of observation noise.

    0 for flags, elements that are never anything but 0 or 1: noise would make them nonsense.
    """
    flags = np.isin(observations, (0.0, 1.0)).all(axis=0)
    deviations = np.where(flags, 0.0, observations.astype(np.float64).std(axis=0))
    return tuple(float(f"{deviation:.3g}") for deviation in deviations)


def _lines(path: str, a: Any, b: Any) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _lines(f"{path}.{key}", a.get(key), b.get(key))
    elif a != b:
        yield f"{path}: {_short(a)} became {_short(b)}"


def _behaviour_lines(a: EnvVersion, b: EnvVersion) -> Iterator[str]:
    for mode in sorted({*a.behaviour, *b.behaviour}):
        before = a.behaviour.get(mode, Behaviour({}))
        after = b.behaviour.get(mode, Behaviour({}))
        parted = first_difference(before, after)
        if parted:
            yield (
                f"behaviour.{mode}: {before.digest[:12]} became {after.digest[:12]}, first "
                f"differing step: seed {parted[0]}, step {parted[1]}"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
