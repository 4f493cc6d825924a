"""Pinned environment versions in the home folder: `envs/<fingerprint>.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.runs.presets import load_preset
from serving.settings import Settings
from srghn.config import Wrapper, with_overrides
from srghn.envs import EnvVersion, pin
from srghn.errors import EnvVersionError


def pin_world(settings: Settings, preset: str, overrides: Sequence[str]) -> tuple[EnvVersion, Path]:
    """Pin a preset's world and keep it; pinning the same world again changes nothing."""
    version = pin(with_overrides(load_preset(preset), overrides).env)
    path = keep(settings, version)
    return version, path


def describe(version: EnvVersion) -> dict[str, str]:
    """What a person wants to know of a version, field by field."""
    seen, modes = version.interface, ", ".join(version.modes)
    switches = ", ".join(f"{s.mode} from generation {s.generation}" for s in version.schedule)
    behaviour = (f"{mode} {found.digest}" for mode, found in version.behaviour.items())
    return {
        "fingerprint": version.fingerprint,
        "modes": modes,
        "schedule": switches or f"{version.modes[0]} throughout",
        "arguments": ", ".join(f"{k}={v}" for k, v in version.kwargs.items()) or "none",
        "wrappers": ", ".join(map(_wrapper, version.wrappers)) or "none",
        "backend": version.backend,
        "packages": ", ".join(f"{k} {v}" for k, v in version.packages.items()),
        "observations": f"{seen.observation_size} numbers, {seen.observation_dtype}",
        "actions": f"{seen.action_kind}, {seen.action_size} network outputs",
        "longest episode": f"{version.max_episode_steps} steps"
        + (", a window of an endless task" if version.window else ""),
        "instances": "one an episode" if version.fresh else "used again",
        "returns": _range(version),
        "behaviour": "\n".join(behaviour),
        "version history": version.history or "none written",
    }


def _wrapper(wrapper: str | Wrapper) -> str:
    if isinstance(wrapper, str):
        return wrapper
    return f"{wrapper.path}({', '.join(f'{k}={v}' for k, v in wrapper.kwargs.items())})"


def _range(version: EnvVersion) -> str:
    if version.returns is None:
        return "unknown: set env.returns"
    said = f"{version.returns.low:g} to {version.returns.high:g}"
    if version.failure_return is None:
        return said
    return f"{said}, a failure at {version.failure_return:g} or below"


def keep(settings: Settings, version: EnvVersion) -> Path:
    """The version's file; what moves no world, such as the range of returns, is as last pinned."""
    path = settings.home / "envs" / f"{version.fingerprint}.json"
    if not path.exists() or path.read_text(encoding="utf-8") != version.to_json():
        version.save(path)
    return path


def pinned_versions(settings: Settings) -> list[EnvVersion]:
    """Every version kept in the home folder, by fingerprint."""
    return [EnvVersion.load(path) for path in sorted((settings.home / "envs").glob("*.json"))]


def find(settings: Settings, name: str) -> EnvVersion:
    """A kept version by the start of its fingerprint, or any version's file by path."""
    if name.endswith(".json"):
        return EnvVersion.load(Path(name))
    found = [p for p in (settings.home / "envs").glob("*.json") if p.stem.startswith(name)]
    if len(found) == 1:
        return EnvVersion.load(found[0])
    said = f"{len(found)} begin so" if found else "none begins so"
    known = [f"{version.fingerprint[:12]} ({version.id})" for version in pinned_versions(settings)]
    there = f"; pinned: {', '.join(known)}" if known else "; none is pinned: srghn env pin PRESET"
    raise EnvVersionError(f"no single version {name!r} in {settings.home / 'envs'}: {said}{there}")
