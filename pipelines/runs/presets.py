"""Presets and parameter files: a typo is reported before anything heavy is imported."""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path

from srghn.config import RunParams, load_params, parse_params
from srghn.errors import ConfigError
from srghn.yaml_files import read_yaml

ENDINGS = (".yaml", ".yml")


def presets() -> dict[str, Path]:
    """Name -> file of every preset that comes with srghn."""
    folder = Path(str(files("pipelines"))) / "presets"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_preset(name: str) -> RunParams:
    """A preset by name, or any parameter file by path.

    Raises `ConfigError` naming the presets there are, and the nearest to what was asked for.
    """
    known = presets()
    if name in known:
        return parse_params(read_yaml(known[name]), f"preset {name}")
    if name.endswith(ENDINGS):
        return load_params(Path(name))
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "a parameter file's name must end in .yaml."
    raise ConfigError(f"unknown preset {name!r}; {hint} Presets: {', '.join(known)}")


def preset_name(preset: str) -> str:
    """What a run is named after: the preset, or the parameter file without its ending."""
    return Path(preset).stem
